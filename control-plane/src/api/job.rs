//! One job that exists: itself, its events, its log, abort, retry and resume.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use service::{Caller, Fields, OptionalJson, Parse, Problem, Query, read};

use super::params::JobId;
use super::views::{EventView, EventsView, JobView, ReasonView};
use crate::app::{App, ask};
use crate::error::no_such_job;

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
pub(crate) struct Reason(Option<String>);

impl Parse for Reason {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self(fields.optional("reason", reason)))
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
) -> Result<axum::Json<JobView>, Problem> {
    Ok(axum::Json(app.job(id).await?.into()))
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
) -> Result<axum::Json<EventsView>, Problem> {
    let events = ask(app.store.events(id, after, limit)).await?;
    if events.is_empty() {
        // No event after this number, or no job: only reading again tells.
        app.job(id).await?;
    }
    Ok(axum::Json(EventsView {
        events: events.into_iter().map(EventView::from).collect(),
    }))
}

/// Read what the handler printed, as text, attempts in order.
#[utoipa::path(
    get,
    path = "/jobs/{id}/log",
    tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job")),
    responses(
        (status = 200, description = "Its log, which may be empty", body = String, content_type = "text/plain; charset=utf-8"),
        (status = 404, description = "No such job"),
    ),
)]
pub(crate) async fn log(
    State(app): State<Arc<App>>,
    JobId(id): JobId,
    Query(()): Query<()>,
) -> Result<impl IntoResponse, Problem> {
    let log = ask(app.store.log(id)).await?.ok_or_else(no_such_job)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], log))
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
) -> Result<(StatusCode, axum::Json<JobView>), Problem> {
    ask(app
        .store
        .abort(id, &caller.key_id.to_string(), reason.as_deref()))
    .await?;
    Ok((StatusCode::ACCEPTED, axum::Json(app.job(id).await?.into())))
}

/// Queue a failed or aborted job again, with a fresh attempt budget.
#[utoipa::path(
    post,
    path = "/jobs/{id}/retry",
    tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job")),
    request_body = Option<ReasonView>,
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
    OptionalJson(Reason(reason)): OptionalJson<Reason>,
) -> Result<(StatusCode, axum::Json<JobView>), Problem> {
    ask(app
        .store
        .retry(id, &caller.key_id.to_string(), reason.as_deref()))
    .await?;
    Ok((StatusCode::ACCEPTED, axum::Json(app.job(id).await?.into())))
}

/// Let a held job go on: its runner was lost, and its type leaves what then happens to a person.
#[utoipa::path(
    post,
    path = "/jobs/{id}/resume",
    tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job")),
    request_body = Option<ReasonView>,
    responses(
        (status = 202, description = "Queued again", body = JobView),
        (status = 404, description = "No such job"),
        (status = 409, description = "It is not held"),
    ),
)]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    caller: Caller,
    JobId(id): JobId,
    OptionalJson(Reason(reason)): OptionalJson<Reason>,
) -> Result<(StatusCode, axum::Json<JobView>), Problem> {
    ask(app
        .store
        .resume(id, &caller.key_id.to_string(), reason.as_deref()))
    .await?;
    Ok((StatusCode::ACCEPTED, axum::Json(app.job(id).await?.into())))
}
