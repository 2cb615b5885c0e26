//! Looking after many jobs at once, for those who watch them: what is new of each, in one statement for all.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Store;
use super::row::{EventRow, parsed};
use crate::error::StoreError;
use crate::job::Event;
use crate::state::Status;

/// Where a reader is that has not read anything yet.
const NOT_BEGUN: i64 = -1;
/// Who begins is given so many of the last events.
const FIRST_EVENTS: i32 = 200;

/// What is new of a job's events.
#[derive(Clone, Debug, PartialEq)]
pub struct EventsSeen {
    /// The next ones, in order; not all where there are many.
    pub events: Vec<Event>,
    /// The number of the job's last event.
    pub last_seq: i64,
    /// Whether the job had ended by then.
    pub ended: bool,
}

/// How far a job's log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSeen {
    /// The number of its last line.
    pub last_seq: i64,
    /// Whether the job had ended by then.
    pub ended: bool,
}

impl Store {
    /// What is new of the events of many jobs, each after a number of its own; `None` gives the last ones. Jobs of which
    /// nothing is new and that have not ended are left out, and so are unknown ones.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn watch_events(
        &self,
        jobs: &[(Uuid, Option<i64>)],
        most_each: i64,
    ) -> Result<BTreeMap<Uuid, EventsSeen>, StoreError> {
        let (ids, afters) = places(jobs);
        let rows = sqlx::query!(
            r#"
            select
              j.id, j.status, j.event_seq,
              e.seq as "seq?", e.at as "at?", e.kind as "kind?", e.attempt as "attempt?", e.runner_id as "runner_id?",
              e.actor as "actor?", e.data as "data?"
            from unnest($1::uuid[], $2::bigint[]) as w (id, after)
            join ops_jobs j on j.id = w.id
            left join lateral (
              select n.seq, n.at, n.kind, n.attempt, n.runner_id, n.actor, n.data
              from ops_job_events n
              where n.job_id = w.id and n.seq > case when w.after < 0 then j.event_seq - $3 else w.after::int end
              order by n.seq
              limit $4
            ) e on true
            where w.after < 0 or j.event_seq > w.after or j.status in ('succeeded', 'failed', 'aborted')
            order by j.id, e.seq
            "#,
            &ids,
            &afters,
            FIRST_EVENTS,
            most_each,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut seen = BTreeMap::new();
        for row in rows {
            let ended = parsed::<Status>(&row.status, "status", row.id)?.is_terminal();
            let job = seen.entry(row.id).or_insert(EventsSeen {
                events: Vec::new(),
                last_seq: i64::from(row.event_seq),
                ended,
            });
            let event = (|| {
                Some(EventRow {
                    job_id: row.id,
                    seq: row.seq?,
                    at: row.at?,
                    kind: row.kind?,
                    attempt: row.attempt?,
                    runner_id: row.runner_id,
                    actor: row.actor?,
                    data: row.data?,
                })
            })();
            job.events.extend(event.map(Event::from));
        }
        Ok(seen)
    }

    /// How far the logs of many jobs go, each seen before up to a number of its own. Jobs of which nothing is new and
    /// that have not ended are left out, and so are unknown ones.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn watch_logs(
        &self,
        jobs: &[(Uuid, Option<i64>)],
    ) -> Result<BTreeMap<Uuid, LogSeen>, StoreError> {
        let (ids, afters) = places(jobs);
        let rows = sqlx::query!(
            r#"
            select j.id, j.status, coalesce(l.last_seq, 0) as "last_seq!"
            from unnest($1::uuid[], $2::bigint[]) as w (id, after)
            join ops_jobs j on j.id = w.id
            left join lateral (
              select n.first_seq + n.lines - 1 as last_seq
              from ops_job_log n
              where n.job_id = w.id
              order by n.first_seq desc
              limit 1
            ) l on true
            where w.after < 0 or l.last_seq > w.after or j.status in ('succeeded', 'failed', 'aborted')
            "#,
            &ids,
            &afters,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let ended = parsed::<Status>(&row.status, "status", row.id)?.is_terminal();
                let seen = LogSeen {
                    last_seq: row.last_seq,
                    ended,
                };
                Ok((row.id, seen))
            })
            .collect()
    }
}

fn places(jobs: &[(Uuid, Option<i64>)]) -> (Vec<Uuid>, Vec<i64>) {
    jobs.iter()
        .map(|(id, after)| (*id, after.unwrap_or(NOT_BEGUN)))
        .unzip()
}
