//! How publishing to Notion looks in JSON. Holds no logic, and no token.

use jobs::{NotionHealth, NotionKey, RefusedOutcome};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// How publishing fares.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Notion)]
pub(crate) struct NotionView {
    /// Whether ends of jobs are noted: a program with `NOTION_ENABLED` looked for work within 26 hours.
    noting: bool,
    /// How many jobs wait to be published.
    pending: i64,
    /// Since when the oldest of them has waited.
    #[serde(with = "time::serde::rfc3339::option")]
    oldest_pending_at: Option<OffsetDateTime>,
    /// How many Notion has refused for good.
    dead: i64,
    /// How many outcomes were published.
    published: i64,
    /// When the last of them was.
    #[serde(with = "time::serde::rfc3339::option")]
    last_published_at: Option<OffsetDateTime>,
    /// Why a request last failed.
    last_error: Option<String>,
    /// When that was.
    #[serde(with = "time::serde::rfc3339::option")]
    last_error_at: Option<OffsetDateTime>,
    /// Until when nobody calls Notion, where that is in the future.
    #[serde(with = "time::serde::rfc3339::option")]
    waits_until: Option<OffsetDateTime>,
    /// What programs publish with, of those that looked for work in the last hour.
    keys: Vec<NotionKeyView>,
    /// Outcomes that were refused, newest first, at most 20.
    refused: Vec<RefusedView>,
}

/// A token and a database that a program publishes with.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotionKey)]
pub(crate) struct NotionKeyView {
    /// A part of a digest of the token, the database's id and the address.
    key: String,
    /// The database in Notion.
    database_id: String,
    /// When it was last found good.
    #[serde(with = "time::serde::rfc3339::option")]
    checked_at: Option<OffsetDateTime>,
    /// What is wrong with it, and what to do; null: nothing that is known.
    fault: Option<String>,
    /// Since when.
    #[serde(with = "time::serde::rfc3339::option")]
    fault_at: Option<OffsetDateTime>,
}

/// An outcome that Notion has refused.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotionRefused)]
pub(crate) struct RefusedView {
    /// The job.
    job_id: Uuid,
    /// What Notion answered.
    status: Option<i32>,
    /// Why, by its own word.
    error: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339::option")]
    at: Option<OffsetDateTime>,
}

impl From<NotionHealth> for NotionView {
    fn from(health: NotionHealth) -> Self {
        Self {
            noting: health.noting,
            pending: health.pending,
            oldest_pending_at: health.oldest_pending_at,
            dead: health.dead,
            published: health.published,
            last_published_at: health.last_published_at,
            last_error: health.last_error,
            last_error_at: health.last_error_at,
            waits_until: health.waits_until,
            keys: health.keys.into_iter().map(NotionKeyView::from).collect(),
            refused: health.refused.into_iter().map(RefusedView::from).collect(),
        }
    }
}

impl From<NotionKey> for NotionKeyView {
    fn from(key: NotionKey) -> Self {
        Self {
            key: key.key,
            database_id: key.database_id,
            checked_at: key.checked_at,
            fault: key.fault,
            fault_at: key.fault_at,
        }
    }
}

impl From<RefusedOutcome> for RefusedView {
    fn from(refused: RefusedOutcome) -> Self {
        Self {
            job_id: refused.job_id,
            status: refused.status,
            error: refused.error,
            at: refused.at,
        }
    }
}

/// Which outcomes are to be published again.
#[derive(ToSchema)]
#[schema(as = NotionRetry)]
#[expect(dead_code, reason = "describes a request, which RetryRequest parses")]
pub(crate) struct NotionRetryView {
    /// That of this job, which has ended; without it, all that Notion has refused.
    job_id: Option<Uuid>,
}

/// What is published again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotionRetried)]
pub(crate) struct NotionRetriedView {
    /// How many outcomes.
    pub(crate) retried: u64,
}
