//! The figures of the fleet: depths, counts of a window, last successes, ages. Read from what transitions have counted and
//! by index; never by looking through `ops_jobs`, however many jobs there are. Changes nothing.

use time::OffsetDateTime;

use super::Store;
use crate::error::StoreError;

/// So many queues and job types are told apart; what the rest has is not read.
const MOST_PAIRS: i64 = 1_000;

/// How many jobs of a queue and type have a status that is not terminal.
#[derive(Clone, Debug, PartialEq)]
pub struct Depth {
    /// The queue.
    pub queue: String,
    /// The job type.
    pub job_type: String,
    /// `queued`, `running` or `waiting`.
    pub status: String,
    /// How many.
    pub jobs: i64,
    /// Of queued ones: the one that is due for longest, where any is.
    pub oldest_due: Option<OldestDue>,
}

/// The job that has been due for longest.
#[derive(Clone, Debug, PartialEq)]
pub struct OldestDue {
    /// Since when.
    pub at: OffsetDateTime,
    /// How long that is, in seconds, by the database's clock.
    pub age_seconds: f64,
    /// What is to be done next of it: its type, or that of its stage.
    pub work_type: String,
    /// Whether a living runner takes that.
    pub is_served: bool,
}

/// Counts since an instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// The database's clock.
    pub now: OffsetDateTime,
    /// From here on: the beginning of an hour.
    pub since: OffsetDateTime,
    /// Since when transitions are counted without a gap; what happened before is not in the counts. `None`: they are not.
    pub counted_since: Option<OffsetDateTime>,
    /// The counts.
    pub counts: Vec<HowOften>,
}

/// How often something happened.
#[derive(Clone, Debug, PartialEq)]
pub struct HowOften {
    /// The job type.
    pub job_type: String,
    /// The kind of the event.
    pub kind: String,
    /// How often.
    pub jobs: i64,
}

/// How often something has happened since transitions are counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    /// The queue.
    pub queue: String,
    /// The job type.
    pub job_type: String,
    /// The kind of the event.
    pub kind: String,
    /// How often.
    pub jobs: i64,
    /// When last.
    pub last_at: OffsetDateTime,
}

/// What `metrics_refresh` last found of a job type, in its newest hour.
#[derive(Clone, Debug, PartialEq)]
pub struct Durations {
    /// The job type.
    pub job_type: String,
    /// The hour, by its beginning.
    pub hour: OffsetDateTime,
    /// Percentiles of the wait from due to claimed, in milliseconds: 50th, 95th, 99th.
    pub wait_ms: [Option<i64>; 3],
    /// Percentiles of the run time of an attempt, in milliseconds: 50th, 95th, 99th.
    pub run_ms: [Option<i64>; 3],
}

/// When something of the fleet's own was last done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LastDone {
    /// When.
    pub at: OffsetDateTime,
    /// How long ago, in seconds, by the database's clock.
    pub age_seconds: f64,
}

/// What keeps the fleet safe, and when it was last done; `None`: not yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Upkeep {
    /// `POST /tick`, to either program.
    pub tick: Option<LastDone>,
    /// Lost and outlived jobs were taken back.
    pub sweep: Option<LastDone>,
    /// A backup was made.
    pub backup: Option<LastDone>,
    /// The newest backup was tried.
    pub drill: Option<LastDone>,
    /// Whether that proved it equal.
    pub drill_ok: Option<bool>,
}

impl Store {
    /// How many jobs are not over, by queue, type and status, with the oldest due one of each.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn depths(&self) -> Result<Vec<Depth>, StoreError> {
        let rows = sqlx::query!(
            r#"
            select
              d.queue as "queue!", d.job_type as "job_type!", d.status as "status!", d.jobs as "jobs!",
              o.run_at as "run_at?", o.work_type as "work_type?",
              extract(epoch from clock_timestamp() - o.run_at)::float8 as age_seconds,
              exists (
                select from ops_runners r
                where o.work_type = any (r.job_types) and not r.draining
                  and r.last_seen_at > clock_timestamp() - interval '1 minute'
              ) as "is_served!"
            from (
              select v.queue, v.job_type, v.status, v.jobs from ops_job_depths v
              order by v.jobs desc, v.queue, v.job_type, v.status
              limit $1
            ) d
            left join lateral (
              select j.run_at, coalesce(j.stage_type, j.job_type) as work_type
              from ops_jobs j
              where j.status = 'queued' and d.status = 'queued'
                and j.queue = d.queue and j.job_type = d.job_type and j.run_at <= now()
              order by j.run_at
              limit 1
            ) o on true
            order by d.queue, d.job_type, d.status
            "#,
            MOST_PAIRS,
        )
        .fetch_all(&self.pool)
        .await?;
        let depths = rows.into_iter().map(|row| Depth {
            queue: row.queue,
            job_type: row.job_type,
            status: row.status,
            jobs: row.jobs,
            oldest_due: match (row.run_at, row.work_type, row.age_seconds) {
                (Some(at), Some(work_type), Some(age_seconds)) => Some(OldestDue {
                    at,
                    age_seconds: age_seconds.max(0.0),
                    work_type,
                    is_served: row.is_served,
                }),
                _ => None,
            },
        });
        Ok(depths.collect())
    }

    /// What happened in the last `hours` hours and the part of an hour before them that makes the first one whole.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn window(&self, hours: u32) -> Result<Window, StoreError> {
        let hours = i32::try_from(hours).unwrap_or(i32::MAX);
        let clock = sqlx::query!(
            r#"
            select
              clock_timestamp() as "now!",
              date_trunc('hour', clock_timestamp() - make_interval(hours => $1), 'UTC') as "since!",
              case when c.wanted_until > clock_timestamp() then c.since end as counted_since
            from ops_counting c
            "#,
            hours,
        )
        .fetch_one(&self.pool)
        .await?;
        let rows = sqlx::query!(
            r#"
            select v.job_type as "job_type!", v.kind as "kind!", sum(v.jobs)::bigint as "jobs!"
            from ops_job_counts v
            where v.hour >= $1
            group by v.job_type, v.kind
            order by v.job_type, v.kind
            "#,
            clock.since,
        )
        .fetch_all(&self.pool)
        .await?;
        let counts = rows.into_iter().map(|row| HowOften {
            job_type: row.job_type,
            kind: row.kind,
            jobs: row.jobs,
        });
        Ok(Window {
            now: clock.now,
            since: clock.since,
            counted_since: clock.counted_since,
            counts: counts.collect(),
        })
    }

    /// What has happened since transitions are counted, the most frequent first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn totals(&self) -> Result<Vec<Totals>, StoreError> {
        let totals = sqlx::query_as!(
            Totals,
            r#"
            select v.queue as "queue!", v.job_type as "job_type!", v.kind as "kind!", v.jobs as "jobs!", v.last_at as "last_at!"
            from ops_job_totals v
            order by v.jobs desc, v.queue, v.job_type, v.kind
            limit $1
            "#,
            20 * MOST_PAIRS,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(totals)
    }

    /// The percentiles that `metrics_refresh` last computed in the last `hours` hours, by job type.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn durations(&self, hours: u32) -> Result<Vec<Durations>, StoreError> {
        let hours = i32::try_from(hours).unwrap_or(i32::MAX);
        let rows = sqlx::query!(
            r#"
            select distinct on (m.job_type)
              m.job_type, m.hour, m.wait_ms_p50, m.wait_ms_p95, m.wait_ms_p99, m.run_ms_p50, m.run_ms_p95, m.run_ms_p99
            from ops_metrics m
            where m.hour >= date_trunc('hour', clock_timestamp() - make_interval(hours => $1), 'UTC') and m.started > 0
            order by m.job_type, m.hour desc
            limit $2
            "#,
            hours,
            MOST_PAIRS,
        )
        .fetch_all(&self.pool)
        .await?;
        let durations = rows.into_iter().map(|row| Durations {
            job_type: row.job_type,
            hour: row.hour,
            wait_ms: [row.wait_ms_p50, row.wait_ms_p95, row.wait_ms_p99],
            run_ms: [row.run_ms_p50, row.run_ms_p95, row.run_ms_p99],
        });
        Ok(durations.collect())
    }

    /// When the fleet last looked after itself.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn upkeep(&self) -> Result<Upkeep, StoreError> {
        let row = sqlx::query!(
            r#"
            select
              t.ran_at as "tick_at?", s.ran_at as "sweep_at?", p.backup_at, p.drill_at, p.drill_ok,
              clock_timestamp() as "now!"
            from ops_last_backup() p
            left join ops_sweeps t on t.name = 'tick'
            left join ops_sweeps s on s.name = 'sweep'
            "#
        )
        .fetch_one(&self.pool)
        .await?;
        let done = |at: Option<OffsetDateTime>| {
            at.map(|at| LastDone {
                at,
                age_seconds: (row.now - at).as_seconds_f64().max(0.0),
            })
        };
        Ok(Upkeep {
            tick: done(row.tick_at),
            sweep: done(row.sweep_at),
            backup: done(row.backup_at),
            drill: done(row.drill_at),
            drill_ok: row.drill_ok,
        })
    }
}
