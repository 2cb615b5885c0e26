//! `GET /jobs`: newest first, filtered, page by page. A page is found by the last job of the one before, never by counting.

use std::sync::Arc;

use axum::extract::State;
use jobs::{JobFilter, Status};
use serde_json::{Value, json};
use service::{FieldError, Fields, Json, Parse, Problem, Query, read};
use time::OffsetDateTime;

use super::new_job::{instant_within, name};
use super::views::{JobListView, JobView};
use crate::app::{App, ask};

/// How many jobs a page may have.
pub(super) const MOST_JOBS: i64 = 200;

/// The query of a list.
#[derive(Debug)]
pub(crate) struct ListRequest {
    filter: JobFilter,
    cursor: Option<String>,
}

impl Parse for ListRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let status =
            read::text_as(|text| text.parse::<Status>().map_err(|fault| fault.to_string()));
        let filter = JobFilter {
            status: fields.optional("status", status),
            job_type: fields.optional("job_type", name),
            queue: fields.optional("queue", name),
            label: fields.optional("label", read::text_as(label)),
            stalled: fields
                .optional("stalled", read::boolean_text)
                .unwrap_or(false),
            created_after: fields.optional("created_after", instant_within(1..=9998)),
            created_before: fields.optional("created_before", instant_within(1..=9998)),
            limit: fields
                .optional("limit", read::number_text(1, MOST_JOBS))
                .unwrap_or(50),
            ..JobFilter::default()
        };
        let cursor = fields.optional("cursor", read::text);
        Some(Self { filter, cursor })
    }
}

/// A label as `name=value` or `name:value`.
fn label(text: &str) -> Result<(String, String), read::Fault> {
    match text.split_once(['=', ':']) {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("must be name=value or name:value".to_owned()),
    }
}

/// What a cursor is good for: the list's filter, but neither its limit nor where it begins.
fn scope(filter: &JobFilter) -> String {
    let nanos = |instant: OffsetDateTime| instant.unix_timestamp_nanos().to_string();
    let scope: Value = json!([
        filter.status.map(Status::as_str),
        filter.job_type,
        filter.queue,
        filter.label,
        filter.stalled,
        filter.created_after.map(nanos),
        filter.created_before.map(nanos),
    ]);
    scope.to_string()
}

/// List jobs, newest first.
///
/// `next_cursor` is there while there are more; it is good for the same filter only.
#[utoipa::path(
    get,
    path = "/jobs",
    tag = "jobs",
    params(
        ("status" = Option<String>, Query, description = "queued, running, waiting, succeeded, failed or aborted"),
        ("job_type" = Option<String>, Query),
        ("queue" = Option<String>, Query),
        ("label" = Option<String>, Query, description = "`name=value` or `name:value`"),
        ("stalled" = Option<bool>, Query, description = "`true`: running, but not heard of for longer than the threshold"),
        ("created_after" = Option<String>, Query, description = "RFC 3339; at this instant or later"),
        ("created_before" = Option<String>, Query, description = "RFC 3339; before this instant"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "50 unless asked otherwise"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page", body = JobListView)),
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(ListRequest { mut filter, cursor }): Query<ListRequest>,
) -> Result<Json<JobListView>, Problem> {
    let scope = scope(&filter);
    filter.stall_after = app.config.stall_after;
    if let Some(cursor) = cursor {
        let wrong = || {
            FieldError::new(
                "cursor",
                "must be the next_cursor of a list under the same filter",
            )
        };
        let before = app.cursors.check(&cursor, &scope);
        filter.before = Some(before.ok_or_else(|| Problem::invalid_fields(vec![wrong()]))?);
    }
    let page = ask(app.store.list(&filter)).await?;
    Ok(Json(JobListView {
        jobs: page.jobs.into_iter().map(JobView::from).collect(),
        next_cursor: page.next.map(|last| app.cursors.sign(last, &scope)),
    }))
}

#[cfg(test)]
mod tests {
    use axum::extract::{FromRequestParts, Request};

    use super::*;

    async fn parse(query: &str) -> Result<ListRequest, Vec<String>> {
        let (mut parts, ()) = Request::builder()
            .uri(format!("/jobs?{query}"))
            .body(())
            .expect("a request")
            .into_parts();
        match Query::<ListRequest>::from_request_parts(&mut parts, &()).await {
            Ok(Query(list)) => Ok(list),
            Err(problem) => Err(problem
                .document()
                .errors
                .into_iter()
                .map(|error| error.field)
                .collect()),
        }
    }

    #[tokio::test]
    async fn every_filter_is_read() {
        let list = parse(
            "status=failed&job_type=a&queue=q&label=env=prod&stalled=true\
             &created_after=2026-01-01T00:00:00Z&created_before=2026-01-02T00:00:00Z&limit=200&cursor=c",
        )
        .await
        .expect("right");
        assert_eq!(list.filter.status, Some(Status::Failed));
        assert_eq!(
            list.filter.label,
            Some(("env".to_owned(), "prod".to_owned()))
        );
        assert!(list.filter.stalled);
        assert_eq!(list.filter.limit, 200);
        assert_eq!(list.cursor.as_deref(), Some("c"));
        assert_eq!(parse("").await.expect("right").filter, JobFilter::default());
    }

    #[tokio::test]
    async fn wrong_and_unknown_parameters_are_named() {
        for (query, names) in [
            ("limit=0", vec!["limit"]),
            ("limit=201", vec!["limit"]),
            ("limit=1e9", vec!["limit"]),
            ("status=done", vec!["status"]),
            ("status=failed&status=queued", vec!["status"]),
            ("label=env", vec!["label"]),
            ("label==x", vec!["label"]),
            (
                "created_after=9999-12-31T23:59:59-01:00",
                vec!["created_after"],
            ),
            ("stalled=maybe&typ=a", vec!["stalled", "typ"]),
            ("job_type=A", vec!["job_type"]),
        ] {
            assert_eq!(parse(query).await.expect_err(query), names, "{query}");
        }
    }

    #[test]
    fn a_label_is_split_at_its_first_separator() {
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(label("a=b"), pair("a", "b"));
        assert_eq!(label("a:b=c"), pair("a", "b=c"));
        assert_eq!(label("a="), pair("a", ""));
    }

    #[test]
    fn the_scope_tells_filters_apart_but_not_pages() {
        let all = JobFilter::default();
        let queue = JobFilter {
            queue: Some("a".parse().expect("a name")),
            ..JobFilter::default()
        };
        let job_type = JobFilter {
            job_type: Some("a".parse().expect("a name")),
            ..JobFilter::default()
        };
        assert_ne!(scope(&all), scope(&queue));
        assert_ne!(scope(&job_type), scope(&queue));
        assert_eq!(
            scope(&all),
            scope(&JobFilter {
                limit: 7,
                ..JobFilter::default()
            })
        );
    }
}
