//! `POST /jobs`: records one job, once under an idempotency key.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jobs::Submitted;
use service::{Caller, Json, Problem};

use super::BASE;
use super::new_job::JobRequest;
use super::params::IdempotencyKey;
use super::views::{JobRequestView, JobView};
use crate::app::{App, ask};

/// Says that the answer is that of an earlier request under the same key.
pub(super) const REPLAYED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("idempotency-replayed"),
    HeaderValue::from_static("true"),
);

/// Record a job.
///
/// It is queued; a runner takes it once it is due. The same `Idempotency-Key` and body again give the same job.
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
    key: IdempotencyKey,
    Json(JobRequest(mut new)): Json<JobRequest>,
) -> Result<Response, Problem> {
    app.check_flag_of(&new.job_type)?;
    new.idempotency_key = key.0;
    let submitted = ask(app.store.submit(new, &caller.key_id.to_string())).await?;
    Ok(match submitted {
        Submitted::Created(job) => {
            let location = [(header::LOCATION, format!("{BASE}/jobs/{}", job.id))];
            (
                StatusCode::CREATED,
                location,
                axum::Json(JobView::from(job)),
            )
                .into_response()
        }
        Submitted::Replayed(job) => ([REPLAYED], axum::Json(JobView::from(job))).into_response(),
    })
}
