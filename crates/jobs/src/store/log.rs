//! What handlers print, and the progress that they report: written under the lease, read by anyone.

use serde_json::Value;
use uuid::Uuid;

use super::Store;
use super::persist::Again;
use crate::error::StoreError;
use crate::lease::LeaseKey;
use crate::storable::{storable_json, storable_text};

/// Some whole lines of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    /// Its number within the claim, from 1.
    pub chunk: i32,
    /// `stdout`, `stderr`, or `runner` for the runner's own remarks.
    pub stream: &'static str,
    /// The number of its first line within the claim, from 1.
    pub first_line: i32,
    /// How many lines.
    pub lines: i32,
    /// The lines, each ended by a newline.
    pub body: String,
}

impl Store {
    /// Appends chunks to the job's log. Writing the same chunk twice is harmless.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when the lease is another's by now.
    pub async fn append_log(&self, key: LeaseKey, chunks: &[LogChunk]) -> Result<(), StoreError> {
        self.persist(Again::Always, || self.append_once(key, chunks))
            .await
    }

    async fn append_once(&self, key: LeaseKey, chunks: &[LogChunk]) -> Result<(), StoreError> {
        let numbers: Vec<i32> = chunks.iter().map(|chunk| chunk.chunk).collect();
        let streams: Vec<String> = chunks.iter().map(|chunk| chunk.stream.to_owned()).collect();
        let first_lines: Vec<i32> = chunks.iter().map(|chunk| chunk.first_line).collect();
        let lines: Vec<i32> = chunks.iter().map(|chunk| chunk.lines).collect();
        let bodies: Vec<String> = chunks
            .iter()
            .map(|chunk| storable_text(&chunk.body, usize::MAX))
            .collect();
        let holds = sqlx::query_scalar!(
            r#"
            with held as materialized (
              select id, fence, attempt from ops_jobs where id = $1 and fence = $2 and status = 'running'
            ),
            written as (
              insert into ops_job_log (job_id, fence, attempt, chunk, stream, first_line, lines, body)
              select h.id, h.fence, h.attempt, c.chunk, c.stream, c.first_line, c.lines, c.body
              from held h
              cross join unnest($3::int[], $4::text[], $5::int[], $6::int[], $7::text[])
                as c (chunk, stream, first_line, lines, body)
              on conflict do nothing
            )
            select exists (select from held) as "holds!"
            "#,
            key.job_id,
            key.fence,
            &numbers,
            &streams,
            &first_lines,
            &lines,
            &bodies,
        )
        .fetch_one(&self.pool)
        .await?;
        if holds {
            Ok(())
        } else {
            Err(StoreError::LeaseLost(key.job_id))
        }
    }

    /// Keeps the handler's last progress on the row and each report as an event.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when the lease is another's by now.
    pub async fn report_progress(
        &self,
        key: LeaseKey,
        kind: ProgressKind,
        data: Value,
    ) -> Result<(), StoreError> {
        let (kind, keep) = match kind {
            ProgressKind::Progress => ("progress", true),
            ProgressKind::Refused => ("progress_refused", false),
            ProgressKind::Warning => ("warning", false),
        };
        let written = sqlx::query!(
            r#"
            with held as materialized (
              update ops_jobs
              set progress = case when $4 then $3 else progress end
              where id = $1 and fence = $2 and status = 'running'
              returning id, attempt, runner_id
            )
            insert into ops_job_events (job_id, kind, attempt, runner_id, actor, data)
            select id, $5, attempt, runner_id, 'runner:' || runner_id, $3 from held
            "#,
            key.job_id,
            key.fence,
            storable_json(data),
            keep,
            kind,
        )
        .execute(&self.pool)
        .await?;
        if written.rows_affected() == 1 {
            Ok(())
        } else {
            Err(StoreError::LeaseLost(key.job_id))
        }
    }

    /// The job's whole log as text, attempts in order; `None` for an unknown job.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn log(&self, job_id: Uuid) -> Result<Option<String>, StoreError> {
        let text = sqlx::query_scalar!(
            r#"
            select coalesce(
              (select string_agg(l.body, '' order by l.fence, l.chunk) from ops_job_log l where l.job_id = j.id), ''
            ) as "text!"
            from ops_jobs j
            where j.id = $1
            "#,
            job_id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(text)
    }
}

/// What a line of the handler's events file, or a remark of the runner, becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressKind {
    /// A valid report: an event `progress`, and the row's progress.
    Progress,
    /// A malformed line: an event `progress_refused`.
    Refused,
    /// A remark of the runner: an event `warning`.
    Warning,
}
