//! `GET /runners`: who runs jobs, by their own account; `/fleet`: whether any job is claimed at all, and the switch for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use service::{Caller, OptionalJson, Problem};

use super::job::Reason;
use super::views::{FleetChangeView, FleetView, PauseView, ReasonView, RunnerView, RunnersView};
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
