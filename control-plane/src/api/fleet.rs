//! `GET /runners`: who runs jobs, by their own account.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use service::Problem;

use super::views::{RunnerView, RunnersView};
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
    }))
}
