//! `POST /jobs`: records one job, once under an idempotency key.

use std::sync::Arc;

use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jobs::{Inputs, Submitted};
use service::trace::Caused;
use service::{Caller, Json, Problem, is_multipart};

use super::BASE;
use super::new_job::JobRequest;
use super::params::IdempotencyKey;
use super::upload;
use super::views::{JobRequestView, JobView};
use crate::app::{App, ask};

/// Says that the answer is that of an earlier request under the same key.
pub(super) const REPLAYED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("idempotency-replayed"),
    HeaderValue::from_static("true"),
);

/// Record a job.
///
/// It is queued; a runner takes it once it is due. With files it is sent as `multipart/form-data`: a part `job` with
/// this JSON, and files, which the handler finds in its input folder. The same `Idempotency-Key` and body again give the same job.
#[utoipa::path(
    post,
    path = "/jobs",
    tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters", max_length = 255)),
    request_body = JobRequestView,
    responses(
        (status = 201, description = "Recorded now", body = JobView, headers(("Location" = String, description = "Where the job is"))),
        (status = 200, description = "Recorded before, under the same key", body = JobView,
            headers(("Idempotency-Replayed" = String, description = "`true`"))),
        (status = 403, description = "The job type's flag is off"),
    ),
)]
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    caller: Caller,
    caused: Caused,
    key: IdempotencyKey,
    request: Request,
) -> Result<Response, Problem> {
    let (JobRequest(mut new), inputs) = if is_multipart(request.headers()) {
        let read = upload::read(&app, request).await?;
        (read.job, read.inputs)
    } else {
        let Json(job) = Json::from_request(request, &()).await?;
        (job, Inputs::default())
    };
    app.check_flags_of(&new)?;
    new.idempotency_key = key.0;
    let mut span = app.causing(caused.0.as_ref(), std::slice::from_mut(&mut new));
    let created_by = caller.key_id.to_string();
    let submitted = ask(app.store.submit_with(new, &inputs, &created_by)).await;
    if !matches!(submitted, Ok(Submitted::Created(_))) {
        // Nobody was given them, unless the answer was lost; then they are the job's by now and are left alone.
        upload::forget(&app, &inputs.ids).await;
    }
    Ok(match submitted? {
        Submitted::Created(job) => {
            span.set("messaging.message.id", job.id.to_string());
            let location = [(header::LOCATION, format!("{BASE}/jobs/{}", job.id))];
            (StatusCode::CREATED, location, Json(JobView::from(job))).into_response()
        }
        Submitted::Replayed(job) => ([REPLAYED], Json(JobView::from(job))).into_response(),
    })
}
