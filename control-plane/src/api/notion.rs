//! `/notion`: how publishing to Notion fares, and what is to be published again. Calls nobody.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use service::{Fields, Json, OptionalJson, Parse, Problem, read};
use uuid::Uuid;

use super::views::{NotionRetriedView, NotionRetryView, NotionView};
use crate::app::{App, ask};

/// Which outcomes are to be published again.
#[derive(Debug)]
pub(crate) struct RetryRequest {
    job_id: Option<Uuid>,
}

impl Parse for RetryRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let id = read::text_as(|text| text.parse().map_err(|_| "must be a job's id".to_owned()));
        Some(Self {
            job_id: fields.optional("job_id", id),
        })
    }
}

/// How publishing to Notion fares: what waits, what was refused, and what keeps programs from it.
#[utoipa::path(
    get,
    path = "/notion",
    tag = "notion",
    responses((status = 200, description = "How it fares", body = NotionView)),
)]
pub(crate) async fn health(State(app): State<Arc<App>>) -> Result<Json<NotionView>, Problem> {
    let health = ask(app.store.notion_health()).await?;
    Ok(Json(NotionView::from(health)))
}

/// Publish again: everything that Notion has refused, or one job that has ended, whatever became of it, also one that ended
/// before anybody published. A token or a database that was found faulty is looked at again at once.
#[utoipa::path(
    post,
    path = "/notion/retry",
    tag = "notion",
    request_body = Option<NotionRetryView>,
    responses(
        (status = 202, description = "How many are published again", body = NotionRetriedView),
        (status = 404, description = "No such job has ended"),
    ),
)]
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    OptionalJson(request): OptionalJson<RetryRequest>,
) -> Result<(StatusCode, Json<NotionRetriedView>), Problem> {
    let retried = ask(app.store.retry_notion(request.job_id)).await?;
    let retried =
        retried.ok_or_else(|| Problem::not_found("There is no such job that has ended."))?;
    let retried = u64::from(retried.unsigned_abs());
    Ok((StatusCode::ACCEPTED, Json(NotionRetriedView { retried })))
}
