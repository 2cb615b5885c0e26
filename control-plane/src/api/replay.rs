//! `POST /jobs/retry`: queues many ended jobs again by filter, counted first. Each page is one statement; asked again, it goes on.

use std::sync::Arc;

use axum::extract::State;
use jobs::{RetryFilter, Status};
use service::{Caller, Fields, Json, Parse, Problem, read};

use super::job::reason;
use super::new_job::{instant_within, name};
use super::views::{ReplayRequestView, ReplayView};
use crate::app::{App, ask};

/// How many jobs one request may queue again.
const MOST_JOBS: i64 = 10_000;
/// How long the text may be that is looked for in errors, in characters.
const LONGEST_TEXT: usize = 1000;

/// Which jobs, and whether they are only counted.
#[derive(Debug)]
pub(crate) struct ReplayRequest {
    filter: RetryFilter,
    dry_run: bool,
    limit: i64,
    reason: Option<String>,
}

struct Filter(RetryFilter);

impl Parse for Filter {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let status = fields.required(
            "status",
            read::text_as(|text| match text.parse() {
                Ok(status @ (Status::Failed | Status::Aborted)) => Ok(status),
                Ok(_) | Err(_) => Err("must be failed or aborted".to_owned()),
            }),
        );
        let filter = RetryFilter {
            status: status.unwrap_or(Status::Failed),
            job_type: fields.optional("job_type", name),
            queue: fields.optional("queue", name),
            error_contains: fields.optional(
                "error_contains",
                read::text_as(|text| match text.chars().count() {
                    1..=LONGEST_TEXT => Ok(text.to_owned()),
                    _ => Err(format!("must have 1 to {LONGEST_TEXT} characters")),
                }),
            ),
            created_after: fields.optional("created_after", instant_within(1..=9998)),
            created_before: fields.optional("created_before", instant_within(1..=9998)),
        };
        status.map(|_| Self(filter))
    }
}

impl Parse for ReplayRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let dry_run = fields.optional("dry_run", read::boolean);
        let limit = fields.optional("limit", read::integer_within(1, MOST_JOBS));
        let reason = fields.optional("reason", reason);
        let Filter(filter) = fields.object("filter")?;
        Some(Self {
            filter,
            dry_run: dry_run.unwrap_or(false),
            limit: limit.unwrap_or(MOST_JOBS),
            reason,
        })
    }
}

/// Queue many failed or aborted jobs again, the oldest first, each with a fresh attempt budget.
///
/// `matched` is counted first. Jobs that end while this goes on are left alone. With `dry_run` they are only counted.
#[utoipa::path(
    post,
    path = "/jobs/retry",
    tag = "jobs",
    request_body = ReplayRequestView,
    responses((status = 200, description = "How many matched, and how many are queued again", body = ReplayView)),
)]
pub(crate) async fn replay(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(request): Json<ReplayRequest>,
) -> Result<Json<ReplayView>, Problem> {
    let ReplayRequest {
        filter,
        dry_run,
        limit,
        reason,
    } = request;
    let matched = ask(app.store.count_to_retry(&filter)).await?;
    let most = if dry_run { 0 } else { limit.min(matched.count) };
    let actor = caller.key_id.to_string();
    let mut retried = 0;
    while retried < most {
        let page =
            ask(app
                .store
                .retry_page(&filter, matched, most - retried, &actor, reason.as_deref()))
            .await?;
        if page == 0 {
            break;
        }
        retried += i64::try_from(page).unwrap_or(most);
    }
    Ok(Json(ReplayView {
        matched: matched.count,
        retried,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::new_job::tests::parse;
    use super::*;

    #[tokio::test]
    async fn a_replay_needs_a_status_and_names_every_wrong_field() {
        let right = json!({"filter": {"status": "failed", "error_contains": "x"}, "limit": 7});
        let right = parse::<ReplayRequest>(&right).await.expect("right");
        assert_eq!((right.limit, right.dry_run), (7, false));
        for (body, fields) in [
            (json!({}), vec!["/filter"]),
            (json!({"filter": {}}), vec!["/filter/status"]),
            (json!({"filter": []}), vec!["/filter"]),
            (
                json!({"filter": {"status": "queued", "job_type": "A", "id": 1}, "limit": 0}),
                vec!["/limit", "/filter/status", "/filter/job_type", "/filter/id"],
            ),
        ] {
            assert_eq!(
                parse::<ReplayRequest>(&body).await.expect_err("wrong"),
                fields,
                "{body}"
            );
        }
    }
}
