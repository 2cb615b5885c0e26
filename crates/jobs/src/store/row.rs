//! Rows become domain values here and nowhere else; an impossible row is named by its table, column and id.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::StoreError;
use crate::job::{CurrentStage, Event, Job};

/// A row of `ops_jobs` as the queries give it.
pub(super) struct JobRow {
    pub(super) id: Uuid,
    pub(super) job_type: String,
    pub(super) queue: String,
    pub(super) status: String,
    pub(super) stalled: bool,
    pub(super) priority: i16,
    pub(super) payload: Value,
    pub(super) result: Option<Value>,
    pub(super) error: Option<String>,
    pub(super) attempt: i32,
    pub(super) max_attempts: i32,
    pub(super) run_at: OffsetDateTime,
    pub(super) expires_at: Option<OffsetDateTime>,
    pub(super) timeout_seconds: Option<i32>,
    pub(super) idempotency_key: Option<String>,
    pub(super) labels: Value,
    pub(super) runner_id: Option<String>,
    pub(super) lease_expires_at: Option<OffsetDateTime>,
    pub(super) heartbeat_at: Option<OffsetDateTime>,
    pub(super) fence: i64,
    pub(super) progress: Option<Value>,
    pub(super) abort_requested_at: Option<OffsetDateTime>,
    pub(super) dead_lettered_at: Option<OffsetDateTime>,
    pub(super) created_by: String,
    pub(super) created_at: OffsetDateTime,
    pub(super) started_at: Option<OffsetDateTime>,
    pub(super) finished_at: Option<OffsetDateTime>,
    pub(super) updated_at: OffsetDateTime,
    /// In a list: no longer of the page, but proof that there is a next one.
    pub(super) beyond: bool,
    pub(super) stage_no: Option<i32>,
    pub(super) stage_type: Option<String>,
}

impl TryFrom<JobRow> for Job {
    type Error = StoreError;

    fn try_from(row: JobRow) -> Result<Self, StoreError> {
        let stage = match (row.stage_no, row.stage_type) {
            (Some(no), Some(job_type)) => Some(CurrentStage {
                no,
                job_type: parsed(&job_type, "stage_type", row.id)?,
            }),
            _ => None,
        };
        Ok(Self {
            stage,
            id: row.id,
            job_type: parsed(&row.job_type, "job_type", row.id)?,
            queue: parsed(&row.queue, "queue", row.id)?,
            status: parsed(&row.status, "status", row.id)?,
            stalled: row.stalled,
            priority: row.priority,
            payload: row.payload,
            result: row.result,
            error: row.error,
            attempt: row.attempt,
            max_attempts: row.max_attempts,
            run_at: row.run_at,
            expires_at: row.expires_at,
            timeout_seconds: row.timeout_seconds,
            idempotency_key: row.idempotency_key,
            labels: row.labels,
            runner_id: row.runner_id,
            lease_expires_at: row.lease_expires_at,
            heartbeat_at: row.heartbeat_at,
            fence: row.fence,
            progress: row.progress,
            abort_requested_at: row.abort_requested_at,
            dead_lettered_at: row.dead_lettered_at,
            created_by: row.created_by,
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            updated_at: row.updated_at,
        })
    }
}

/// Reads a word of a column that the schema keeps within a known set.
pub(super) fn parsed<T: std::str::FromStr>(
    text: &str,
    column: &str,
    id: Uuid,
) -> Result<T, StoreError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|why| {
        StoreError::Internal(
            format!("ops_jobs.{column} of job {id} makes no sense: it {why}").into(),
        )
    })
}

/// A row of `ops_job_events`.
pub(super) struct EventRow {
    pub(super) job_id: Uuid,
    pub(super) seq: i32,
    pub(super) at: OffsetDateTime,
    pub(super) kind: String,
    pub(super) attempt: i32,
    pub(super) runner_id: Option<String>,
    pub(super) actor: String,
    pub(super) data: Value,
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        Self {
            job_id: row.job_id,
            seq: row.seq,
            at: row.at,
            kind: row.kind,
            attempt: row.attempt,
            runner_id: row.runner_id,
            actor: row.actor,
            data: row.data,
        }
    }
}
