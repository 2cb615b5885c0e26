//! What handlers print, and the progress that they report: written under the lease, read by anyone.

use std::time::Instant;

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::persist::Again;
use super::row::parsed;
use crate::error::StoreError;
use crate::lease::LeaseKey;
use crate::state::Status;
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
    /// When its first line was read: storing may lag behind.
    pub came: Instant,
    /// The lines, each ended by a newline.
    pub body: String,
}

/// Some lines as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPiece {
    /// The number of its first line within the job; where it is more than the line before and one, lines are missing.
    pub first_seq: i64,
    /// How many lines.
    pub lines: i32,
    /// When its first line was read.
    pub at: OffsetDateTime,
    /// The attempt that printed it.
    pub attempt: i32,
    /// `stdout`, `stderr`, or `runner` for the runner's own remarks.
    pub stream: String,
    /// The lines, each ended by a newline.
    pub body: String,
}

impl LogPiece {
    /// The number of its last line.
    pub fn last_seq(&self) -> i64 {
        self.first_seq + i64::from(self.lines) - 1
    }
}

/// What of a job's log comes after a line: as much as is read at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// In order. The first may begin before the line that was named.
    pub pieces: Vec<LogPiece>,
    /// Whether there may be more by now.
    pub cut: bool,
    /// Whether the job had ended when this was read.
    pub ended: bool,
}

/// A page has at most so many pieces.
const PAGE_PIECES: i64 = 256;
/// A statement writes about so many bytes of log, so that the job's row is not held for long.
const APPEND_BYTES: usize = 512 * 1024;

impl Store {
    /// Appends chunks to the job's log. Writing the same chunk twice is harmless.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when the lease is another's by now.
    pub async fn append_log(&self, key: LeaseKey, chunks: &[LogChunk]) -> Result<(), StoreError> {
        let mut rest = chunks;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|chunk| {
                let first = bytes == 0;
                bytes += chunk.body.len() + 1;
                first || bytes <= APPEND_BYTES
            });
            let (now, later) = rest.split_at(fits.count());
            self.persist(Again::Always, || self.append_once(key, now))
                .await?;
            rest = later;
        }
        Ok(())
    }

    async fn append_once(&self, key: LeaseKey, chunks: &[LogChunk]) -> Result<(), StoreError> {
        let numbers: Vec<i32> = chunks.iter().map(|chunk| chunk.chunk).collect();
        let streams: Vec<String> = chunks.iter().map(|chunk| chunk.stream.to_owned()).collect();
        let first_lines: Vec<i32> = chunks.iter().map(|chunk| chunk.first_line).collect();
        let lines: Vec<i32> = chunks.iter().map(|chunk| chunk.lines).collect();
        let ages: Vec<f64> = chunks
            .iter()
            .map(|chunk| chunk.came.elapsed().as_secs_f64())
            .collect();
        let bodies: Vec<String> = chunks
            .iter()
            .map(|chunk| storable_text(&chunk.body, usize::MAX))
            .collect();
        // Holding the row keeps the lines of a claim before those of the next, and before the job's end.
        let holds = sqlx::query_scalar!(
            r#"
            with held as materialized (
              select id, fence, attempt from ops_jobs where id = $1 and fence = $2 and status = 'running' for share
            ),
            written as (
              insert into ops_job_log (job_id, fence, attempt, chunk, stream, first_line, lines, at, body)
              select
                h.id, h.fence, h.attempt, c.chunk, c.stream, c.first_line, c.lines,
                clock_timestamp() - make_interval(secs => c.age), c.body
              from held h
              cross join unnest($3::int[], $4::text[], $5::int[], $6::int[], $7::float8[], $8::text[])
                as c (chunk, stream, first_line, lines, age, body)
              order by c.chunk
              on conflict (job_id, fence, chunk) do nothing
            )
            select exists (select from held) as "holds!"
            "#,
            key.job_id,
            key.fence,
            &numbers,
            &streams,
            &first_lines,
            &lines,
            &ages,
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

    /// Writes reports as events, in their order, and keeps the last progress among them on the row.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when the lease is another's by now.
    pub async fn report(
        &self,
        key: LeaseKey,
        reports: Vec<(ProgressKind, Value)>,
    ) -> Result<(), StoreError> {
        let (kinds, data): (Vec<String>, Vec<Value>) = reports
            .into_iter()
            .map(|(kind, data)| (kind.word().to_owned(), storable_json(data)))
            .unzip();
        // What may have been reported is not reported twice.
        self.persist(Again::Undone, || self.report_once(key, &kinds, &data))
            .await
    }

    async fn report_once(
        &self,
        key: LeaseKey,
        kinds: &[String],
        data: &[Value],
    ) -> Result<(), StoreError> {
        let written = sqlx::query_scalar!(
            r#"
            with reports as materialized (
              select r.kind, r.data, r.place
              from unnest($3::text[], $4::jsonb[]) with ordinality as r (kind, data, place)
            ),
            held as materialized (
              update ops_jobs
              set progress = coalesce(
                (select r.data from reports r where r.kind = 'progress' order by r.place desc limit 1), progress
              )
              where id = $1 and fence = $2 and status = 'running'
              returning id, attempt, runner_id
            ),
            written as (
              insert into ops_job_events (job_id, kind, attempt, runner_id, actor, data)
              select h.id, r.kind, h.attempt, h.runner_id, 'runner:' || h.runner_id, r.data
              from held h
              cross join reports r
              order by r.place
            )
            select exists (select from held) as "holds!"
            "#,
            key.job_id,
            key.fence,
            kinds,
            data,
        )
        .fetch_one(&self.pool)
        .await?;
        if written {
            Ok(())
        } else {
            Err(StoreError::LeaseLost(key.job_id))
        }
    }

    /// What comes after line number `after` of the job's log, attempts in order, up to the piece that reaches
    /// `most_bytes`; `None` for an unknown job.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn log_page(
        &self,
        job_id: Uuid,
        after: i64,
        most_bytes: i64,
    ) -> Result<Option<LogPage>, StoreError> {
        self.persist(Again::Always, || {
            self.log_page_once(job_id, after, most_bytes)
        })
        .await
    }

    async fn log_page_once(
        &self,
        job_id: Uuid,
        after: i64,
        most_bytes: i64,
    ) -> Result<Option<LogPage>, StoreError> {
        let rows = sqlx::query!(
            r#"
            select
              j.status, l.first_seq as "first_seq?", l.lines as "lines?", l.at as "at?", l.attempt as "attempt?",
              l.stream as "stream?", l.body as "body?"
            from ops_jobs j
            left join lateral (
              select p.*
              from (
                select
                  c.first_seq, c.lines, c.at, c.attempt, c.stream, c.body, octet_length(c.body) as bytes,
                  sum(octet_length(c.body)) over (order by c.first_seq) as bytes_so_far
                from ops_job_log c
                where c.job_id = j.id
                  -- the piece that the line after stands in, which may begin before it
                  and c.first_seq >= coalesce(
                    (select max(b.first_seq) from ops_job_log b where b.job_id = j.id and b.first_seq <= $2::bigint + 1), 0
                  )
                  and c.first_seq + c.lines > $2::bigint + 1
                order by c.first_seq
                limit $3
              ) p
              where p.bytes_so_far - p.bytes < $4::bigint
              order by p.first_seq
            ) l on true
            where j.id = $1
            order by l.first_seq
            "#,
            job_id,
            after,
            PAGE_PIECES,
            most_bytes,
        )
        .fetch_all(&self.pool)
        .await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let ended = parsed::<Status>(&first.status, "status", job_id)?.is_terminal();
        let pieces: Vec<LogPiece> = rows
            .into_iter()
            .filter_map(|row| {
                Some(LogPiece {
                    first_seq: row.first_seq?,
                    lines: row.lines?,
                    at: row.at?,
                    attempt: row.attempt?,
                    stream: row.stream?,
                    body: row.body?,
                })
            })
            .collect();
        let bytes: usize = pieces.iter().map(|piece| piece.body.len()).sum();
        let cut = pieces.len() as i64 >= PAGE_PIECES || bytes as i64 >= most_bytes;
        Ok(Some(LogPage { pieces, cut, ended }))
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

impl ProgressKind {
    fn word(self) -> &'static str {
        match self {
            Self::Progress => "progress",
            Self::Refused => "progress_refused",
            Self::Warning => "warning",
        }
    }
}
