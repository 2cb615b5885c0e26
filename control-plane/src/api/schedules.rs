//! Schedules: made, changed, paused, removed, fired by hand; what is next, and what became of each instant.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jobs::{Changed, Grid, Schedule};
use service::{Caller, FieldError, Json, OptionalJson, Problem, Query};
use time::OffsetDateTime;

use super::BASE;
use super::job::Reason;
use super::schedule_request::{
    FiresRequest, Named, NextRequest, PreviewRequest, ScheduleRequest, SchedulesRequest, if_match,
    no_such_schedule,
};
use super::views::{
    FireView, FiresView, HandFiredView, InstantView, InstantsView, PreviewRequestView, ReasonView,
    ScheduleRequestView, ScheduleView, SchedulesView,
};
use crate::app::{App, ask};

/// The schedule with its revision as its `ETag`.
fn answer(status: StatusCode, schedule: Schedule) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{}\"", schedule.revision));
    let mut response = (status, Json(ScheduleView::from(schedule))).into_response();
    if let Ok(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// List schedules by name.
#[utoipa::path(
    get,
    path = "/schedules",
    tag = "schedules",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "50 unless asked otherwise"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page", body = SchedulesView)),
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(SchedulesRequest { limit, cursor }): Query<SchedulesRequest>,
) -> Result<Json<SchedulesView>, Problem> {
    let after = cursor.map(String::from).unwrap_or_default();
    let page = ask(app.store.schedules(&after, limit)).await?;
    Ok(Json(SchedulesView {
        next_cursor: page.next.map(String::from),
        schedules: page.schedules.into_iter().map(ScheduleView::from).collect(),
    }))
}

/// Make a schedule.
#[utoipa::path(
    post,
    path = "/schedules",
    tag = "schedules",
    request_body = ScheduleRequestView,
    responses(
        (status = 201, description = "Made", body = ScheduleView, headers(("Location" = String, description = "Where it is"), ("ETag" = String, description = "Its revision"))),
        (status = 403, description = "The job type's flag is off"),
        (status = 409, description = "There is one of this name"),
    ),
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(request): Json<ScheduleRequest>,
) -> Result<Response, Problem> {
    let Some(name) = request.name else {
        return Err(Problem::invalid_fields(vec![FieldError::new(
            "/name",
            "is required",
        )]));
    };
    if request.revision.is_some() {
        let why = "is for changes: a new schedule has none yet";
        return Err(Problem::invalid_fields(vec![FieldError::new(
            "/revision",
            why,
        )]));
    }
    app.check_flag_of(&request.terms.job_type)?;
    let enabled = request.enabled.unwrap_or(true);
    let actor = caller.key_id.to_string();
    let made = ask(app
        .store
        .create_schedule(&name, &request.terms, enabled, &actor))
    .await?;
    let made = made.ok_or_else(|| {
        Problem::conflict(format!(
            "There is a schedule of this name: change it with PUT {BASE}/schedules/{name}, or choose another name."
        ))
    })?;
    let mut response = answer(StatusCode::CREATED, made);
    if let Ok(location) = HeaderValue::from_str(&format!("{BASE}/schedules/{name}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Read a schedule.
#[utoipa::path(
    get,
    path = "/schedules/{name}",
    tag = "schedules",
    params(("name" = String, Path, description = "The schedule")),
    responses(
        (status = 200, description = "The schedule", body = ScheduleView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "No such schedule"),
    ),
)]
pub(crate) async fn schedule(
    State(app): State<Arc<App>>,
    Named(name): Named,
) -> Result<Response, Problem> {
    let schedule = ask(app.store.schedule(&name)).await?;
    Ok(answer(
        StatusCode::OK,
        schedule.ok_or_else(no_such_schedule)?,
    ))
}

/// Change a schedule: all of it, what is left out gets its default; but `enabled` stays as it is unless it is sent.
///
/// With `If-Match` (the ETag) or `revision`, only where nobody has changed it since. What was due under the old terms is
/// decided before.
#[utoipa::path(
    put,
    path = "/schedules/{name}",
    tag = "schedules",
    params(
        ("name" = String, Path, description = "The schedule"),
        ("If-Match" = Option<String>, Header, description = "The ETag that it came with"),
    ),
    request_body = ScheduleRequestView,
    responses(
        (status = 200, description = "Changed", body = ScheduleView, headers(("ETag" = String, description = "Its new revision"))),
        (status = 403, description = "The job type's flag is off"),
        (status = 404, description = "No such schedule"),
        (status = 409, description = "It has changed since the revision in the body"),
        (status = 412, description = "It has changed since the ETag in If-Match"),
    ),
)]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(name): Named,
    headers: HeaderMap,
    Json(request): Json<ScheduleRequest>,
) -> Result<Response, Problem> {
    let tag = if_match(&headers)?;
    let renames = request.name.as_ref().is_some_and(|other| *other != name);
    if renames {
        let why = "must be the name in the path: a schedule keeps its name";
        return Err(Problem::invalid_fields(vec![FieldError::new("/name", why)]));
    }
    app.check_flag_of(&request.terms.job_type)?;
    let actor = caller.key_id.to_string();
    let revision = tag.or(request.revision);
    let terms = &request.terms;
    let changed = app
        .store
        .change_schedule(&name, terms, request.enabled, revision, &actor);
    match ask(changed).await?.ok_or_else(no_such_schedule)? {
        Changed::Yes(schedule) => Ok(answer(StatusCode::OK, *schedule)),
        Changed::Outdated(revision) => {
            let detail =
                "The schedule has changed meanwhile: read it again, and change what is there now.";
            let problem = match tag {
                Some(_) => Problem::precondition_failed(detail),
                None => Problem::conflict(detail),
            };
            Err(problem.with_member("revision", revision))
        }
    }
}

/// Remove a schedule; its ledger stays for 90 days, its jobs stay.
#[utoipa::path(
    delete,
    path = "/schedules/{name}",
    tag = "schedules",
    params(("name" = String, Path, description = "The schedule")),
    responses((status = 204, description = "Removed"), (status = 404, description = "No such schedule")),
)]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(name): Named,
) -> Result<StatusCode, Problem> {
    let actor = caller.key_id.to_string();
    let deleted = ask(app.store.delete_schedule(&name, &actor)).await?;
    deleted
        .then_some(StatusCode::NO_CONTENT)
        .ok_or_else(no_such_schedule)
}

/// Record a job of a schedule now, outside its cron, also while it is paused; the ledger says who and why.
#[utoipa::path(
    post,
    path = "/schedules/{name}/fire",
    tag = "schedules",
    params(("name" = String, Path, description = "The schedule")),
    request_body = Option<ReasonView>,
    responses(
        (status = 202, description = "Recorded", body = HandFiredView),
        (status = 403, description = "The job type's flag is off"),
        (status = 404, description = "No such schedule"),
    ),
)]
pub(crate) async fn fire(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(name): Named,
    OptionalJson(Reason(reason)): OptionalJson<Reason>,
) -> Result<(StatusCode, Json<HandFiredView>), Problem> {
    let schedule = ask(app.store.schedule(&name))
        .await?
        .ok_or_else(no_such_schedule)?;
    app.check_flag_of(&schedule.terms.job_type)?;
    let actor = caller.key_id.to_string();
    let fired = ask(app.store.fire_by_hand(&name, &actor, reason.as_deref())).await?;
    let job_id = fired.ok_or_else(no_such_schedule)?;
    let job = app.job(job_id).await?.into();
    Ok((StatusCode::ACCEPTED, Json(HandFiredView { job_id, job })))
}

/// Pause a schedule, with who and why; its instants are recorded as paused until it is resumed.
#[utoipa::path(
    post,
    path = "/schedules/{name}/pause",
    tag = "schedules",
    params(("name" = String, Path, description = "The schedule")),
    request_body = Option<ReasonView>,
    responses((status = 200, description = "Paused", body = ScheduleView), (status = 404, description = "No such schedule")),
)]
pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(name): Named,
    OptionalJson(Reason(reason)): OptionalJson<Reason>,
) -> Result<Response, Problem> {
    let actor = caller.key_id.to_string();
    let paused = ask(app.store.pause_schedule(&name, &actor, reason.as_deref())).await?;
    Ok(answer(StatusCode::OK, paused.ok_or_else(no_such_schedule)?))
}

/// Let a paused schedule fire again, from its next instant on.
#[utoipa::path(
    post,
    path = "/schedules/{name}/resume",
    tag = "schedules",
    params(("name" = String, Path, description = "The schedule")),
    responses((status = 200, description = "Resumed", body = ScheduleView), (status = 404, description = "No such schedule")),
)]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(name): Named,
    OptionalJson(()): OptionalJson<()>,
) -> Result<Response, Problem> {
    let actor = caller.key_id.to_string();
    let resumed = ask(app.store.resume_schedule(&name, &actor)).await?;
    Ok(answer(
        StatusCode::OK,
        resumed.ok_or_else(no_such_schedule)?,
    ))
}

/// List what became of a schedule's instants, newest first.
#[utoipa::path(
    get,
    path = "/schedules/{name}/fires",
    tag = "schedules",
    params(
        ("name" = String, Path, description = "The schedule"),
        ("outcome" = Option<String>, Query, description = "fired, skipped, missed or paused"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "50 unless asked otherwise"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page", body = FiresView), (status = 404, description = "No such schedule")),
)]
pub(crate) async fn fires(
    State(app): State<Arc<App>>,
    Named(name): Named,
    Query(request): Query<FiresRequest>,
) -> Result<Json<FiresView>, Problem> {
    let page = app
        .store
        .fires(&name, request.outcome, request.cursor, request.limit);
    let page = ask(page).await?;
    if page.fires.is_empty() {
        // No row, or no schedule: only reading again tells.
        ask(app.store.schedule(&name))
            .await?
            .ok_or_else(no_such_schedule)?;
    }
    Ok(Json(FiresView::new(page)))
}

/// Read when a schedule fires next.
#[utoipa::path(
    get,
    path = "/schedules/{name}/next",
    tag = "schedules",
    params(
        ("name" = String, Path, description = "The schedule"),
        ("count" = Option<usize>, Query, minimum = 1, maximum = 100, description = "10 unless asked otherwise"),
        ("after" = Option<String>, Query, description = "RFC 3339; now unless asked otherwise"),
    ),
    responses((status = 200, description = "Its next instants", body = InstantsView), (status = 404, description = "No such schedule")),
)]
pub(crate) async fn next(
    State(app): State<Arc<App>>,
    Named(name): Named,
    Query(NextRequest { count, after }): Query<NextRequest>,
) -> Result<Json<InstantsView>, Problem> {
    let schedule = ask(app.store.schedule(&name))
        .await?
        .ok_or_else(no_such_schedule)?;
    let terms = schedule.terms;
    instants(&app, terms.cron, terms.timezone, count, after).await
}

/// Look at a pattern before it is kept: when would it fire?
#[utoipa::path(
    post,
    path = "/schedules/preview",
    tag = "schedules",
    request_body = PreviewRequestView,
    responses((status = 200, description = "Its next instants", body = InstantsView)),
)]
pub(crate) async fn preview(
    State(app): State<Arc<App>>,
    Json(request): Json<PreviewRequest>,
) -> Result<Json<InstantsView>, Problem> {
    let PreviewRequest {
        cron,
        timezone,
        count,
        after,
    } = request;
    instants(&app, cron, timezone, count, after).await
}

async fn instants(
    app: &App,
    cron: String,
    timezone: String,
    count: usize,
    after: Option<OffsetDateTime>,
) -> Result<Json<InstantsView>, Problem> {
    let grid = Grid::new(&cron, &timezone);
    let grid =
        grid.map_err(|why| Problem::unprocessable(format!("The schedule cannot fire: {why}.")))?;
    let mut from = match after {
        Some(after) => after,
        None => ask(app.store.now()).await?,
    };
    let mut instants = Vec::with_capacity(count);
    while instants.len() < count
        && let Some(instant) = grid.next_after(from)
    {
        let local = grid.local(instant);
        instants.push(InstantView { instant, local });
        from = instant;
    }
    Ok(Json(InstantsView {
        description: grid.description(),
        cron,
        timezone,
        instants,
    }))
}

impl FiresView {
    fn new(page: jobs::FirePage) -> Self {
        let format = &time::format_description::well_known::Rfc3339;
        Self {
            next_cursor: page.next.and_then(|instant| instant.format(format).ok()),
            fires: page.fires.into_iter().map(FireView::from).collect(),
        }
    }
}
