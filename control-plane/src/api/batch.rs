//! `POST /jobs/batch`: records up to a thousand jobs, all or none.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use jobs::NewJob;
use service::trace::Caused;
use service::{Caller, Fields, Json, Parse, Problem};

use super::new_job::JobRequest;
use super::params::IdempotencyKey;
use super::views::{BatchRequestView, BatchView, JobView};
use crate::app::{App, ask};

/// How many jobs a batch may have.
pub(super) const MOST_JOBS: usize = 1000;

/// The jobs of a batch.
#[derive(Debug)]
pub(crate) struct BatchRequest(Vec<NewJob>);

impl Parse for BatchRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let is_empty = fields.optional("jobs", |jobs| {
            Ok(jobs.as_array().is_some_and(Vec::is_empty))
        });
        let jobs = fields.objects::<JobRequest>("jobs", MOST_JOBS)?;
        if is_empty == Some(true) {
            fields.refuse("jobs", "must have at least one item");
        }
        Some(Self(jobs.into_iter().map(|JobRequest(job)| job).collect()))
    }
}

/// Record up to a thousand jobs, all or none.
///
/// The answer has them in the order in which they were sent.
#[utoipa::path(
    post,
    path = "/jobs/batch",
    tag = "jobs",
    request_body = BatchRequestView,
    responses(
        (status = 201, description = "All recorded", body = BatchView),
        (status = 403, description = "The flag of one of the job types is off"),
    ),
)]
pub(crate) async fn submit_batch(
    State(app): State<Arc<App>>,
    caller: Caller,
    caused: Caused,
    key: IdempotencyKey,
    Json(BatchRequest(mut new)): Json<BatchRequest>,
) -> Result<(StatusCode, Json<BatchView>), Problem> {
    key.refuse("is not taken for a batch: send jobs that must not be doubled one by one to /jobs")?;
    for job in &new {
        app.check_flags_of(job)?;
    }
    let _span = app.causing(caused.0.as_ref(), &mut new);
    let jobs = ask(app.store.submit_batch(&new, &caller.key_id.to_string())).await?;
    let jobs = jobs.into_iter().map(JobView::from).collect();
    Ok((StatusCode::CREATED, Json(BatchView { jobs })))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::new_job::tests::parse;
    use super::*;

    #[tokio::test]
    async fn a_batch_names_the_wrong_fields_of_every_job_by_their_place() {
        let right = json!({"job_type": "a"});
        let body = json!({"jobs": [right, {}, right, {"job_type": "a", "priority": "x", "idempotency_key": "k"}, 5]});
        let wrong = parse::<BatchRequest>(&body).await.expect_err("wrong");
        assert_eq!(
            wrong,
            [
                "/jobs/1/job_type",
                "/jobs/3/priority",
                "/jobs/3/idempotency_key",
                "/jobs/4"
            ]
        );
    }

    #[tokio::test]
    async fn a_batch_has_one_to_a_thousand_jobs() {
        let jobs: Vec<Value> = (0..1001).map(|_| json!({"job_type": "a"})).collect();
        assert!(
            parse::<BatchRequest>(&json!({"jobs": jobs[..1000]}))
                .await
                .is_ok()
        );
        for wrong in [
            json!({"jobs": jobs}),
            json!({"jobs": []}),
            json!({"jobs": {}}),
            json!({}),
        ] {
            assert_eq!(
                parse::<BatchRequest>(&wrong).await.expect_err("wrong"),
                ["/jobs"]
            );
        }
        assert_eq!(
            parse::<BatchRequest>(&json!({"jobs": [1]}))
                .await
                .expect_err("wrong"),
            ["/jobs/0"]
        );
    }
}
