//! `GET /runners`: who runs jobs, by their own account; `/fleet`: whether any job is claimed at all, and the switch for it.

use std::sync::Arc;

use axum::extract::State;
use jobs::Steered;
use service::{Caller, Json, OptionalJson, Path, Problem};

use super::job::Reason;
use super::views::{
    FleetChangeView, FleetView, ForgottenView, PauseView, ReasonView, RunnerView, RunnersView,
};
use crate::app::{App, ask};

/// List the runners, most recently seen first.
#[utoipa::path(
    get,
    path = "/runners",
    tag = "fleet",
    responses((status = 200, description = "The runners", body = RunnersView)),
)]
pub(crate) async fn runners(State(app): State<Arc<App>>) -> Result<Json<RunnersView>, Problem> {
    let runners = ask(app.store.runners()).await?;
    Ok(Json(RunnersView {
        runners: runners.into_iter().map(RunnerView::from).collect(),
        pause: ask(app.store.pause()).await?.map(PauseView::from),
    }))
}

/// Read whether the fleet is paused, by whom and why, and who paused and resumed it before.
#[utoipa::path(
    get,
    path = "/fleet",
    tag = "fleet",
    responses((status = 200, description = "The fleet's switch", body = FleetView)),
)]
pub(crate) async fn fleet(State(app): State<Arc<App>>) -> Result<Json<FleetView>, Problem> {
    view(&app).await.map(Json)
}

/// Pause the fleet: from the answer on no runner takes a job, however it is asked to. Jobs that run go on.
///
/// A paused fleet stays as it was paused: by whom, when and why.
#[utoipa::path(
    post,
    path = "/fleet/pause",
    tag = "fleet",
    request_body = Option<ReasonView>,
    responses((status = 200, description = "Paused", body = FleetView)),
)]
pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    caller: Caller,
    OptionalJson(Reason(reason)): OptionalJson<Reason>,
) -> Result<Json<FleetView>, Problem> {
    let actor = caller.key_id.to_string();
    ask(app.store.pause_fleet(&actor, reason.as_deref())).await?;
    view(&app).await.map(Json)
}

/// Resume the fleet: runners take jobs again.
#[utoipa::path(
    post,
    path = "/fleet/resume",
    tag = "fleet",
    request_body = Option<ReasonView>,
    responses((status = 200, description = "Resumed", body = FleetView)),
)]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    caller: Caller,
    OptionalJson(Reason(reason)): OptionalJson<Reason>,
) -> Result<Json<FleetView>, Problem> {
    let actor = caller.key_id.to_string();
    ask(app.store.resume_fleet(&actor, reason.as_deref())).await?;
    view(&app).await.map(Json)
}

/// Drain a runner: from the answer on it is given no job, over restarts too, until it is undrained. What it runs goes on.
///
/// A drained runner stays as it was drained: by whom, when and why.
#[utoipa::path(
    post,
    path = "/runners/{id}/drain",
    tag = "fleet",
    params(("id" = String, Path, description = "RUNNER_ID")),
    request_body = Option<ReasonView>,
    responses(
        (status = 200, description = "Drained", body = RunnerView),
        (status = 404, description = "No such runner is known"),
    ),
)]
pub(crate) async fn drain(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    OptionalJson(Reason(reason)): OptionalJson<Reason>,
) -> Result<Json<RunnerView>, Problem> {
    let actor = caller.key_id.to_string();
    let steered = ask(app.store.drain_runner(&id, &actor, reason.as_deref())).await?;
    taken_back(&steered)?;
    runner(&app, &id).await.map(Json)
}

/// Undrain a runner: it is given jobs again.
#[utoipa::path(
    post,
    path = "/runners/{id}/undrain",
    tag = "fleet",
    params(("id" = String, Path, description = "RUNNER_ID")),
    request_body = Option<ReasonView>,
    responses(
        (status = 200, description = "Undrained", body = RunnerView),
        (status = 404, description = "No such runner is known"),
    ),
)]
pub(crate) async fn undrain(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    OptionalJson(Reason(reason)): OptionalJson<Reason>,
) -> Result<Json<RunnerView>, Problem> {
    let actor = caller.key_id.to_string();
    let steered = ask(app.store.undrain_runner(&id, &actor, reason.as_deref())).await?;
    taken_back(&steered)?;
    runner(&app, &id).await.map(Json)
}

/// Forget a runner that has been silent for a minute: what it ran is taken back at once, as from any runner that is lost.
#[utoipa::path(
    delete,
    path = "/runners/{id}",
    tag = "fleet",
    params(("id" = String, Path, description = "RUNNER_ID")),
    request_body = Option<ReasonView>,
    responses(
        (status = 200, description = "Forgotten", body = ForgottenView),
        (status = 404, description = "No such runner is known"),
        (status = 409, description = "It was heard of within the last minute"),
    ),
)]
pub(crate) async fn forget(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    OptionalJson(Reason(reason)): OptionalJson<Reason>,
) -> Result<Json<ForgottenView>, Problem> {
    let actor = caller.key_id.to_string();
    let steered = ask(app.store.forget_runner(&id, &actor, reason.as_deref())).await?;
    let taken_back = taken_back(&steered)?;
    Ok(Json(ForgottenView { id, taken_back }))
}

fn taken_back(steered: &Steered) -> Result<u64, Problem> {
    match steered {
        Steered::Done { taken_back } => Ok(*taken_back),
        Steered::Unknown => Err(no_such_runner()),
        Steered::Alive => Err(Problem::conflict(
            "The runner was heard of within the last minute: stop it first; it can be forgotten once it is silent.",
        )),
    }
}

fn no_such_runner() -> Problem {
    Problem::not_found("No such runner is known: GET /runners lists them.")
}

async fn runner(app: &App, id: &str) -> Result<RunnerView, Problem> {
    let runners = ask(app.store.runners()).await?;
    let found = runners.into_iter().find(|runner| runner.id == id);
    found.map(RunnerView::from).ok_or_else(no_such_runner)
}

async fn view(app: &App) -> Result<FleetView, Problem> {
    let pause = ask(app.store.pause()).await?;
    let changes = ask(app.store.fleet_changes()).await?;
    Ok(FleetView {
        paused: pause.is_some(),
        paused_at: pause.as_ref().map(|pause| pause.at),
        paused_by: pause.as_ref().map(|pause| pause.by.clone()),
        reason: pause.and_then(|pause| pause.reason),
        changes: changes.into_iter().map(FleetChangeView::from).collect(),
    })
}
