//! Replay of many ended jobs by filter: first counted, then queued again a page at a time, each page one guarded statement.

use time::OffsetDateTime;

use super::Store;
use crate::error::StoreError;
use crate::name::Name;
use crate::state::Status;

/// Rows a statement; more take more statements, not longer locks.
const PAGE: i64 = 500;

/// Which ended jobs are meant. `None` means any.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryFilter {
    /// Failed or aborted; nothing else can be retried.
    pub status: Status,
    /// Only of this type.
    pub job_type: Option<Name>,
    /// Only of this queue.
    pub queue: Option<Name>,
    /// Only those whose error has this text in it.
    pub error_contains: Option<String>,
    /// Recorded at this instant or later.
    pub created_after: Option<OffsetDateTime>,
    /// Recorded before this instant.
    pub created_before: Option<OffsetDateTime>,
}

/// How many there are, and as of when: what ends later is not meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matched {
    /// How many.
    pub count: i64,
    /// By the database's clock.
    pub at: OffsetDateTime,
}

impl Store {
    /// Counts the jobs that a retry would queue again.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn count_to_retry(&self, filter: &RetryFilter) -> Result<Matched, StoreError> {
        let row = sqlx::query!(
            r#"
            select count(*) as "count!", clock_timestamp() as "at!"
            from ops_jobs j
            where j.status in ('failed', 'aborted')
              and j.status = $1
              and ($2::text is null or j.job_type = $2)
              and ($3::text is null or j.queue = $3)
              and ($4::text is null or position($4 in j.error) > 0)
              and ($5::timestamptz is null or j.created_at >= $5)
              and ($6::timestamptz is null or j.created_at < $6)
            "#,
            filter.status.as_str(),
            filter.job_type.as_ref().map(Name::as_str),
            filter.queue.as_ref().map(Name::as_str),
            filter.error_contains,
            filter.created_after,
            filter.created_before,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Matched {
            count: row.count,
            at: row.at,
        })
    }

    /// Queues a page of them again, the oldest first, up to `limit`; gives how many. Those that have ended since
    /// `matched` are left alone, so that what fails again at once is not queued again and again.
    ///
    /// # Errors
    /// When the database does not answer; then the page is not queued, those before it are.
    pub async fn retry_page(
        &self,
        filter: &RetryFilter,
        matched: Matched,
        limit: i64,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<u64, StoreError> {
        let retried = sqlx::query!(
            r#"
            with acting as materialized (
              select set_config('ops.actor', $1, true) as actor, set_config('ops.reason', coalesce($2, ''), true) as reason
            ),
            chosen as materialized (
              select j.id
              from ops_jobs j
              where j.status in ('failed', 'aborted')
                and j.status = $3
                and ($4::text is null or j.job_type = $4)
                and ($5::text is null or j.queue = $5)
                and ($6::text is null or position($6 in j.error) > 0)
                and ($7::timestamptz is null or j.created_at >= $7)
                and ($8::timestamptz is null or j.created_at < $8)
                and j.updated_at <= $9
              order by j.id
              limit $10
              for update of j skip locked
            )
            update ops_jobs j
            set status = 'queued'
            from chosen c, acting a
            where j.id = c.id and a.actor is not null and a.reason is not null
            "#,
            actor,
            reason,
            filter.status.as_str(),
            filter.job_type.as_ref().map(Name::as_str),
            filter.queue.as_ref().map(Name::as_str),
            filter.error_contains,
            filter.created_after,
            filter.created_before,
            matched.at,
            limit.min(PAGE),
        )
        .execute(&self.pool)
        .await?;
        Ok(retried.rows_affected())
    }
}
