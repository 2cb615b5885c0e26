//! One job that exists: itself, its events, abort, retry and resume.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use jobs::RetryFrom;
use service::{Caller, Fields, Flag, Json, OptionalJson, Parse, Problem, Query, read};

use super::params::JobId;
use super::views::{EventView, EventsView, JobView, ReasonView, RetryView};
use crate::app::{App, ask};

/// How many events an answer has at most.
const MOST_EVENTS: i64 = 1000;
/// How long a reason may be, in characters.
const LONGEST_REASON: usize = 1000;

/// The query of a list of events.
#[derive(Debug)]
pub(crate) struct EventsRequest {
    after: i32,
    limit: i64,
}

impl Parse for EventsRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let after = fields.optional("after", read::number_text(0, i32::MAX));
        let limit = fields.optional("limit", read::number_text(1, MOST_EVENTS));
        Some(Self {
            after: after.unwrap_or(0),
            limit: limit.unwrap_or(MOST_EVENTS),
        })
    }
}

/// Why somebody aborts or retries.
#[derive(Debug)]
pub(crate) struct Reason(pub(crate) Option<String>);

impl Parse for Reason {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self(fields.optional("reason", reason)))
    }
}

/// Why somebody retries, and from where.
#[derive(Debug)]
pub(crate) struct RetryRequest {
    reason: Option<String>,
    from: RetryFrom,
}

impl Parse for RetryRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let from = fields.optional(
            "from",
            read::text_as(|text| match text {
                "failed_stage" => Ok(RetryFrom::FailedStage),
                "start" => Ok(RetryFrom::Start),
                _ => Err("must be failed_stage or start".to_owned()),
            }),
        );
        Some(Self {
            reason: fields.optional("reason", reason),
            from: from.unwrap_or(RetryFrom::FailedStage),
        })
    }
}

/// A reason, in the caller's words.
pub(super) fn reason(value: &serde_json::Value) -> Result<String, read::Fault> {
    let reason = read::text(value)?;
    let fits = reason.chars().count() <= LONGEST_REASON;
    fits.then_some(reason)
        .ok_or_else(|| format!("must have at most {LONGEST_REASON} characters"))
}

/// Read a job.
#[utoipa::path(
    get,
    path = "/jobs/{id}",
    tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job")),
    responses((status = 200, description = "The job", body = JobView), (status = 404, description = "No such job")),
)]
pub(crate) async fn job(
    State(app): State<Arc<App>>,
    JobId(id): JobId,
) -> Result<Json<JobView>, Problem> {
    let job = app.job(id).await?;
    let stages = match job.stage {
        Some(_) if app.flags().is_on(Flag::Gates) => Some(ask(app.store.stages(id)).await?),
        Some(_) | None => None,
    };
    Ok(Json(JobView::from(job).with_stages(stages)))
}

/// List what happened to a job, in order.
#[utoipa::path(
    get,
    path = "/jobs/{id}/events",
    tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path, description = "The job"),
        ("after" = Option<i32>, Query, minimum = 0, description = "Only events with a greater `seq`"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 1000, description = "1000 unless asked otherwise"),
    ),
    responses((status = 200, description = "Its events", body = EventsView), (status = 404, description = "No such job")),
)]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    JobId(id): JobId,
    Query(EventsRequest { after, limit }): Query<EventsRequest>,
) -> Result<Json<EventsView>, Problem> {
    let events = ask(app.store.events(id, after, limit)).await?;
    if events.is_empty() {
        // No event after this number, or no job: only reading again tells.
        app.job(id).await?;
    }
    Ok(Json(EventsView {
        events: events.into_iter().map(EventView::from).collect(),
    }))
}

type Accepted = (StatusCode, Json<JobView>);

/// The job as it is once the store has done what was asked.
async fn accepted<T>(
    app: &App,
    id: uuid::Uuid,
    asked: impl Future<Output = Result<T, jobs::StoreError>>,
) -> Result<Accepted, Problem> {
    ask(asked).await?;
    app.live.changed(id);
    Ok((StatusCode::ACCEPTED, Json(app.job(id).await?.into())))
}

/// Stop a job: at once while it is not running, else by its runner.
#[utoipa::path(
    post,
    path = "/jobs/{id}/abort",
    tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job")),
    request_body = Option<ReasonView>,
    responses(
        (status = 202, description = "Aborted, or its abort is requested", body = JobView),
        (status = 404, description = "No such job"),
        (status = 409, description = "It has ended already"),
    ),
)]
pub(crate) async fn abort(
    State(app): State<Arc<App>>,
    caller: Caller,
    JobId(id): JobId,
    OptionalJson(Reason(reason)): OptionalJson<Reason>,
) -> Result<Accepted, Problem> {
    let actor = caller.key_id.to_string();
    let asked = app.store.abort(id, &actor, reason.as_deref());
    accepted(&app, id, asked).await
}

/// Queue a failed or aborted job again, with a fresh attempt budget.
///
/// A job with stages goes on with the stage that failed, or begins anew with `from: start`.
#[utoipa::path(
    post,
    path = "/jobs/{id}/retry",
    tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job")),
    request_body = Option<RetryView>,
    responses(
        (status = 202, description = "Queued again", body = JobView),
        (status = 404, description = "No such job"),
        (status = 409, description = "It has neither failed nor been aborted"),
    ),
)]
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    caller: Caller,
    JobId(id): JobId,
    OptionalJson(RetryRequest { reason, from }): OptionalJson<RetryRequest>,
) -> Result<Accepted, Problem> {
    let actor = caller.key_id.to_string();
    let asked = app.store.retry_from(id, from, &actor, reason.as_deref());
    accepted(&app, id, asked).await
}

/// Let a job go on that waits: held because its runner was lost, or rejected at a gate, whose stage is then run again.
#[utoipa::path(
    post,
    path = "/jobs/{id}/resume",
    tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job")),
    request_body = Option<ReasonView>,
    responses(
        (status = 202, description = "Queued again", body = JobView),
        (status = 404, description = "No such job"),
        (status = 409, description = "It is neither held nor rejected at a gate"),
    ),
)]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    caller: Caller,
    JobId(id): JobId,
    OptionalJson(Reason(reason)): OptionalJson<Reason>,
) -> Result<Accepted, Problem> {
    let actor = caller.key_id.to_string();
    let asked = app.store.resume(id, &actor, reason.as_deref());
    accepted(&app, id, asked).await
}
