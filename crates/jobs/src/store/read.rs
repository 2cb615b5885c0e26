//! Reading: one job, lists by keyset, events.

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::persist::Again;
use super::row::{EventRow, JobRow};
use super::{Store, seconds};
use crate::error::StoreError;
use crate::job::{Event, Job};
use crate::name::Name;
use crate::state::Status;

/// A list ends early once its texts have so many bytes, however few its rows are: whoever reads it holds it in memory whole.
const PAGE_BYTES: i64 = 8 * 1024 * 1024;

/// Which jobs a list holds. `None` means any.
#[derive(Clone, Debug, PartialEq)]
pub struct JobFilter {
    /// Only these.
    pub ids: Option<Vec<Uuid>>,
    /// Only of this status.
    pub status: Option<Status>,
    /// Only of this type.
    pub job_type: Option<Name>,
    /// Only of this queue.
    pub queue: Option<Name>,
    /// Only with this label of this value.
    pub label: Option<(String, String)>,
    /// Only running jobs silent for longer than `stall_after`.
    pub stalled: bool,
    /// Recorded at this instant or later.
    pub created_after: Option<OffsetDateTime>,
    /// Recorded before this instant.
    pub created_before: Option<OffsetDateTime>,
    /// Only those older than this one: where the page before ended.
    pub before: Option<Uuid>,
    /// At most so many; fewer where they are large.
    pub limit: i64,
    /// From when on a silent running job is stalled.
    pub stall_after: Duration,
}

impl Default for JobFilter {
    fn default() -> Self {
        Self {
            ids: None,
            status: None,
            job_type: None,
            queue: None,
            label: None,
            stalled: false,
            created_after: None,
            created_before: None,
            before: None,
            limit: 50,
            stall_after: Duration::from_secs(20),
        }
    }
}

/// One page of a list, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Where the next page begins, if there is one.
    pub next: Option<Uuid>,
}

impl Store {
    /// The job, `stalled` by the usual threshold of 20 s, or `None`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn get(&self, id: Uuid) -> Result<Option<Job>, StoreError> {
        self.get_with(id, JobFilter::default().stall_after).await
    }

    /// The job, `stalled` by the given threshold, or `None`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn get_with(
        &self,
        id: Uuid,
        stall_after: Duration,
    ) -> Result<Option<Job>, StoreError> {
        self.persist(Again::Always, || self.get_once(id, stall_after))
            .await
    }

    /// As a list of one, which PostgreSQL would plan anew each time, for longer than it takes to read the job.
    async fn get_once(&self, id: Uuid, stall_after: Duration) -> Result<Option<Job>, StoreError> {
        let row = sqlx::query_as!(
            JobRow,
            r#"
            select
              id, job_type, queue, status,
              (status = 'running' and heartbeat_at < clock_timestamp() - make_interval(secs => $2)) as "stalled!",
              priority, payload, result, error, attempt, max_attempts, run_at, expires_at, timeout_seconds,
              idempotency_key, labels, runner_id, lease_expires_at, heartbeat_at, fence, progress, abort_requested_at,
              dead_lettered_at, created_by, created_at, started_at, finished_at, updated_at, stage_no, stage_type,
              false as "beyond!"
            from ops_jobs
            where id = $1
            "#,
            id,
            seconds(stall_after),
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(Job::try_from).transpose()
    }

    /// A page of jobs, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list(&self, filter: &JobFilter) -> Result<Page, StoreError> {
        self.persist(Again::Always, || self.list_once(filter)).await
    }

    async fn list_once(&self, filter: &JobFilter) -> Result<Page, StoreError> {
        let label: Option<Value> = filter
            .label
            .as_ref()
            .map(|(name, value)| json!({ name: value }));
        // Ids sort by creation, so that the primary key serves the order; the status filters have
        // their own small indexes. One row more than asked for, or than fits, tells whether there is a next page. It is
        // beyond when those before it fill the page; then the ones after it are not sent at all.
        let rows = sqlx::query_as!(
            JobRow,
            r#"
            select
              id, job_type, queue, status,
              (status = 'running' and heartbeat_at < clock_timestamp() - make_interval(secs => $11)) as "stalled!",
              priority, payload, result, error, attempt, max_attempts, run_at, expires_at, timeout_seconds,
              idempotency_key, labels, runner_id, lease_expires_at, heartbeat_at, fence, progress, abort_requested_at,
              dead_lettered_at, created_by, created_at, started_at, finished_at, updated_at, stage_no, stage_type,
              (bytes_before >= $12) as "beyond!"
            from (
              select
                page.*,
                coalesce(sum(bytes) over (order by id desc rows between unbounded preceding and 1 preceding), 0) as bytes_before,
                coalesce(sum(bytes) over (order by id desc rows between unbounded preceding and 2 preceding), 0) as bytes_before_last
              from (
                select
                  *,
                  octet_length(payload::text) + coalesce(octet_length(result::text), 0) + coalesce(octet_length(error), 0)
                    + coalesce(octet_length(progress::text), 0) as bytes
                from ops_jobs
                where ($1::uuid[] is null or id = any($1))
                  and ($2::text is null or status = $2)
                  and ($3::text is null or job_type = $3)
                  and ($4::text is null or queue = $4)
                  and ($5::jsonb is null or (labels <> '{}' and labels @> $5))
                  and (not $6::boolean or (status = 'running' and heartbeat_at < clock_timestamp() - make_interval(secs => $11)))
                  and ($7::timestamptz is null or created_at >= $7)
                  and ($8::timestamptz is null or created_at < $8)
                  and ($9::uuid is null or id < $9)
                order by id desc
                limit $10
              ) page
            ) sized
            where bytes_before_last < $12
            order by id desc
            "#,
            filter.ids.as_deref(),
            filter.status.map(Status::as_str),
            filter.job_type.as_ref().map(Name::as_str),
            filter.queue.as_ref().map(Name::as_str),
            label,
            filter.stalled,
            filter.created_after,
            filter.created_before,
            filter.before,
            filter.limit + 1,
            seconds(filter.stall_after),
            PAGE_BYTES,
        )
        .fetch_all(&self.pool)
        .await?;
        let wanted = usize::try_from(filter.limit).unwrap_or(0);
        let more = rows.len() > wanted || rows.last().is_some_and(|row| row.beyond);
        let jobs = rows
            .into_iter()
            .filter(|row| !row.beyond)
            .take(wanted)
            .map(Job::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        let next = if more {
            jobs.last().map(|job| job.id)
        } else {
            None
        };
        Ok(Page { jobs, next })
    }

    /// The job's events after number `after`, in order, at most `limit` and fewer where they are large; empty only when
    /// there is none, or for an unknown job.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn events(
        &self,
        job_id: Uuid,
        after: i32,
        limit: i64,
    ) -> Result<Vec<Event>, StoreError> {
        self.persist(Again::Always, || self.events_once(job_id, after, limit))
            .await
    }

    async fn events_once(
        &self,
        job_id: Uuid,
        after: i32,
        limit: i64,
    ) -> Result<Vec<Event>, StoreError> {
        let rows = sqlx::query_as!(
            EventRow,
            r#"
            select job_id, seq, at, kind, attempt, runner_id, actor, data
            from (
              select
                page.*,
                coalesce(
                  sum(octet_length(data::text)) over (order by seq rows between unbounded preceding and 1 preceding), 0
                ) as bytes_before
              from (
                select *
                from ops_job_events
                where job_id = $1 and seq > $2
                order by seq
                limit $3
              ) page
            ) sized
            where bytes_before < $4
            order by seq
            "#,
            job_id,
            after,
            limit,
            PAGE_BYTES,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(Event::from).collect())
    }
}
