//! `POST /trigger_runner`: records a job, or takes a queued one, and nudges the runner. The row alone says what came of it:
//! whatever the runner answers, a job that it did not take stays queued, unless it refused the job for good.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jobs::{Job, Status, Submitted};
use service::edge::RequestId;
use service::trace::Caused;
use service::{Caller, Fields, Json, Parse, Problem, read};
use uuid::Uuid;

use super::BASE;
use super::new_job::JobRequest;
use super::params::IdempotencyKey;
use super::submit::REPLAYED;
use super::views::{JobView, TriggerOutcome, TriggerRequestView, TriggerView, TriggeredView};
use crate::app::{App, ask};
use crate::error::{no_such_job, wrong_status};
use crate::runner_client::{Refusal, TriggerAnswer};

/// What is to be triggered.
#[derive(Debug)]
pub(crate) enum TriggerRequest {
    /// A job to record.
    New(Box<JobRequest>),
    /// A queued job.
    Queued(Uuid),
}

impl Parse for TriggerRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        if !fields.has("job_id") {
            if !fields.has("job_type") {
                fields.refuse("job_id", "is required, unless job_type asks for a new job");
            }
            fields.optional("job_id", read::uuid);
            return JobRequest::parse(fields).map(Box::new).map(Self::New);
        }
        let id = fields.required("job_id", read::uuid);
        if fields.has("job_type") {
            fields.refuse(
                "job_id",
                "cannot go with job_type: name a queued job or ask for a new one",
            );
            JobRequest::parse(fields);
        }
        id.map(Self::Queued)
    }
}

/// Whether the same request had been made before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Now,
    Before,
}

/// The job to nudge for, or the answer where there is nothing to nudge for.
enum Target {
    Job(Box<Job>, Seen),
    Answered(Response),
}

/// Record a job, or take a queued one, and trigger the runner.
///
/// `accepted`: the runner runs it. `deferred`: the runner is busy; the job waits, queued, and is taken up later.
/// On 502 and 504 with `job_id` the job stays queued too, unless `detail` says that the runner refused it.
#[utoipa::path(
    post,
    path = "/trigger_runner",
    tag = "fleet",
    params(("Idempotency-Key" = Option<String>, Header, description = "As for `POST /jobs`; only with `job_type`", max_length = 255)),
    request_body = TriggerRequestView,
    responses(
        (status = 202, description = "Accepted or deferred", body = TriggeredView),
        (status = 403, description = "The job type's flag is off"),
        (status = 404, description = "No such job"),
        (status = 409, description = "The job is not queued"),
        (status = 502, description = "The runner was not reached, or it refused the job; with `job_id`"),
        (status = 504, description = "The runner was too slow; with `job_id`"),
    ),
)]
pub(crate) async fn trigger_runner(
    State(app): State<Arc<App>>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    caused: Caused,
    key: IdempotencyKey,
    Json(request): Json<TriggerRequest>,
) -> Result<Response, Problem> {
    let target = match request {
        TriggerRequest::New(new) => record(&app, caller, &caused, key, *new).await?,
        TriggerRequest::Queued(id) => find(&app, key, id).await?,
    };
    match target {
        Target::Answered(response) => Ok(response),
        Target::Job(job, seen) => {
            let response = nudge(&app, caller, &caused, &job, &request_id)
                .await
                .map_err(|problem| problem.with_member("job_id", job.id.to_string()))?;
            Ok(match seen {
                Seen::Now => response,
                Seen::Before => ([REPLAYED], response).into_response(),
            })
        }
    }
}

/// Records the job; asked again under the same key once it has been taken, there is nothing left to nudge for.
async fn record(
    app: &App,
    caller: Caller,
    caused: &Caused,
    key: IdempotencyKey,
    new: JobRequest,
) -> Result<Target, Problem> {
    let JobRequest(mut new) = new;
    app.check_flags_of(&new)?;
    new.idempotency_key = key.0;
    let mut span = app.causing(caused.0.as_ref(), std::slice::from_mut(&mut new));
    // The trigger is the hint; another would only race with it.
    match ask(app.store.submit_quietly(new, &caller.key_id.to_string())).await? {
        Submitted::Replayed(job) if job.status != Status::Queued => Ok(Target::Answered(
            ([REPLAYED], answer(job, TriggerOutcome::Accepted)).into_response(),
        )),
        Submitted::Created(job) => {
            span.set("messaging.message.id", job.id.to_string());
            Ok(Target::Job(Box::new(job), Seen::Now))
        }
        Submitted::Replayed(job) => Ok(Target::Job(Box::new(job), Seen::Before)),
    }
}

async fn find(app: &App, key: IdempotencyKey, id: Uuid) -> Result<Target, Problem> {
    key.refuse("is not taken with job_id: a job that is triggered twice runs only once anyway")?;
    let job = app.job(id).await?;
    app.check_flag_of(job.work_type())?;
    match job.status {
        Status::Queued => Ok(Target::Job(Box::new(job), Seen::Now)),
        Status::Running
        | Status::Waiting
        | Status::Succeeded
        | Status::Failed
        | Status::Aborted => Err(wrong_status(&job)),
    }
}

/// Nudges the runner, and answers by what the row says afterwards.
async fn nudge(
    app: &App,
    caller: Caller,
    caused: &Caused,
    job: &Job,
    request_id: &str,
) -> Result<Response, Problem> {
    let runner = app.runner.as_ref().ok_or_else(no_such_job)?;
    let asked = runner
        .trigger(job.id, request_id, &app.tracing, caused.0.as_ref())
        .await;
    app.note_trigger(job.id, &asked).await;
    match asked {
        TriggerAnswer::Accepted => Ok(answer(app.job(job.id).await?, TriggerOutcome::Accepted)),
        TriggerAnswer::Busy => Ok(answer(app.job(job.id).await?, TriggerOutcome::Deferred)),
        TriggerAnswer::NotQueued => answer_by_status(app, job.id).await,
        TriggerAnswer::Refused(what, why) => refuse(app, caller, job.id, (what, &why)).await,
        TriggerAnswer::Unreachable => Err(Problem::bad_gateway(
            "The runner could not be reached. The job stays queued and is taken up later.",
        )),
        TriggerAnswer::Strange(status) => Err(Problem::bad_gateway(format!(
            "What answered the trigger, with {status}, is no runner that knows us: check where triggers go and what they bear. \
             The job stays queued and is taken up later."
        ))),
        TriggerAnswer::TooSlow => Err(Problem::gateway_timeout(
            "The runner did not answer in time. The job stays queued, unless the runner has taken it, and is taken up later.",
        )),
    }
}

/// The runner refused the job for good: it fails, unless somebody else took it meanwhile, or will.
async fn refuse(
    app: &App,
    caller: Caller,
    id: Uuid,
    (what, why): (Refusal, &str),
) -> Result<Response, Problem> {
    let (actor, error) = (
        caller.key_id.to_string(),
        format!("the runner refused it: {why}"),
    );
    let failed = match what {
        Refusal::Type => ask(app.store.refuse_type(id, &actor, &error)).await?,
        Refusal::Payload => ask(app.store.refuse(id, &actor, &error)).await?,
    };
    if failed {
        let detail = format!("The runner refused the job, which has failed: {why}");
        return Err(
            Problem::bad_gateway(detail).with_code("runner-refused", "Runner refused the job")
        );
    }
    answer_by_status(app, id).await
}

/// A job that is still queued waits; any other has been taken.
async fn answer_by_status(app: &App, id: Uuid) -> Result<Response, Problem> {
    let job = app.job(id).await?;
    let outcome = match job.status {
        Status::Queued => TriggerOutcome::Deferred,
        Status::Running
        | Status::Waiting
        | Status::Succeeded
        | Status::Failed
        | Status::Aborted => TriggerOutcome::Accepted,
    };
    Ok(answer(job, outcome))
}

fn answer(job: Job, outcome: TriggerOutcome) -> Response {
    let location = [(header::LOCATION, format!("{BASE}/jobs/{}", job.id))];
    let body = TriggeredView {
        job: JobView::from(job),
        trigger: TriggerView { outcome },
    };
    (StatusCode::ACCEPTED, location, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::new_job::tests::parse;
    use super::*;

    #[tokio::test]
    async fn a_trigger_names_a_queued_job_or_asks_for_a_new_one() {
        let new = parse(&json!({"job_type": "a", "job_id": null, "priority": 3}))
            .await
            .expect("right");
        assert!(matches!(new, TriggerRequest::New(_)));
        let queued = parse(&json!({"job_id": Uuid::nil()})).await.expect("right");
        assert!(matches!(queued, TriggerRequest::Queued(id) if id.is_nil()));
    }

    #[tokio::test]
    async fn both_neither_and_fields_of_the_other_form_are_refused() {
        for (body, fields) in [
            (json!({}), vec!["/job_id", "/job_type"]),
            (json!({"payload": {}}), vec!["/job_id", "/job_type"]),
            (
                json!({"job_type": "a", "job_id": Uuid::nil()}),
                vec!["/job_id"],
            ),
            (json!({"job_id": "x"}), vec!["/job_id"]),
            (
                json!({"job_id": Uuid::nil(), "payload": {}}),
                vec!["/payload"],
            ),
            (
                json!({"job_type": "A", "when": 1}),
                vec!["/job_type", "/when"],
            ),
        ] {
            assert_eq!(
                parse::<TriggerRequest>(&body).await.expect_err("wrong"),
                fields,
                "{body}"
            );
        }
    }
}
