//! `GET /jobs/{id}/why`: why a job is where it is, and what would change it. Decides nothing: the database finds the reasons.

use std::sync::Arc;

use axum::extract::State;
use service::{Flag, Json, Problem};

use super::params::JobId;
use super::views::{WhyReasonView, WhyView};
use crate::app::{App, ask};

/// Read why a job is where it is, the weightiest reason first, each with what would change it.
///
/// A job that has not ended has at least one; one that has says how it ended.
#[utoipa::path(
    get,
    path = "/jobs/{id}/why",
    tag = "jobs",
    params(("id" = uuid::Uuid, Path, description = "The job")),
    responses((status = 200, description = "The reasons", body = WhyView), (status = 404, description = "No such job")),
)]
pub(crate) async fn why(
    State(app): State<Arc<App>>,
    JobId(id): JobId,
) -> Result<Json<WhyView>, Problem> {
    let closed: Vec<_> = app
        .flags()
        .closed_job_types()
        .into_iter()
        .filter_map(|job_type| Some((job_type, Flag::of_job_type(job_type)?.name())))
        .collect();
    let reasons = ask(app.store.why(id, &closed, app.config.stall_after)).await?;
    Ok(Json(WhyView {
        job_id: id,
        reasons: reasons.into_iter().map(WhyReasonView::from).collect(),
    }))
}
