//! The rollup of events into `ops_metrics`: counts and percentiles per hour and job type.

use std::time::Duration;

use serde::Serialize;

use super::Store;
use crate::error::StoreError;

/// How long a rollup may take.
const LONGEST: Duration = Duration::from_secs(300);

/// What a rollup did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rollup {
    /// Hours looked at, the current one included.
    pub hours: i32,
    /// Rows of `ops_metrics` written.
    pub rows: u64,
}

impl Store {
    /// Rolls the events of the last `hours` whole hours and of the current one up into `ops_metrics`.
    /// Running it again gives the same rows.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refresh_metrics(&self, hours: i32) -> Result<Rollup, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // A busy hour takes longer than any other statement may.
        transaction.allow(LONGEST + Duration::from_secs(1));
        sqlx::query!("set local statement_timeout = '5min'")
            .execute(&mut *transaction)
            .await?;
        let written = sqlx::query!(
            r#"
            insert into ops_metrics as m (
              hour, job_type, queued, started, succeeded, failed, aborted, retried, lost, dead_lettered,
              wait_ms_p50, wait_ms_p95, wait_ms_p99, run_ms_p50, run_ms_p95, run_ms_p99
            )
            select
              date_trunc('hour', e.at, 'UTC'),
              e.data ->> 'job_type',
              count(*) filter (where e.kind = 'queued'),
              count(*) filter (where e.kind = 'running'),
              count(*) filter (where e.kind = 'succeeded'),
              count(*) filter (where e.kind = 'failed'),
              count(*) filter (where e.kind = 'aborted'),
              count(*) filter (where e.kind = 'retry_scheduled'),
              count(*) filter (where e.kind = 'lease_expired'),
              count(*) filter (where e.kind = 'dead_lettered'),
              percentile_disc(0.50) within group (order by (e.data ->> 'waited_ms')::bigint) filter (where e.kind = 'running'),
              percentile_disc(0.95) within group (order by (e.data ->> 'waited_ms')::bigint) filter (where e.kind = 'running'),
              percentile_disc(0.99) within group (order by (e.data ->> 'waited_ms')::bigint) filter (where e.kind = 'running'),
              percentile_disc(0.50) within group (order by (e.data ->> 'ran_ms')::bigint)
                filter (where e.kind in ('succeeded', 'failed', 'aborted', 'retry_scheduled')),
              percentile_disc(0.95) within group (order by (e.data ->> 'ran_ms')::bigint)
                filter (where e.kind in ('succeeded', 'failed', 'aborted', 'retry_scheduled')),
              percentile_disc(0.99) within group (order by (e.data ->> 'ran_ms')::bigint)
                filter (where e.kind in ('succeeded', 'failed', 'aborted', 'retry_scheduled'))
            from ops_job_events e
            where e.at >= date_trunc('hour', now(), 'UTC') - make_interval(hours => $1)
              -- notes of people may say anything
              and e.kind in (
                'queued', 'running', 'succeeded', 'failed', 'aborted', 'retry_scheduled', 'lease_expired', 'dead_lettered'
              )
              and jsonb_typeof(e.data -> 'job_type') = 'string'
            group by 1, 2
            on conflict (hour, job_type) do update
            set queued = excluded.queued, started = excluded.started, succeeded = excluded.succeeded,
              failed = excluded.failed, aborted = excluded.aborted, retried = excluded.retried, lost = excluded.lost,
              dead_lettered = excluded.dead_lettered,
              wait_ms_p50 = excluded.wait_ms_p50, wait_ms_p95 = excluded.wait_ms_p95, wait_ms_p99 = excluded.wait_ms_p99,
              run_ms_p50 = excluded.run_ms_p50, run_ms_p95 = excluded.run_ms_p95, run_ms_p99 = excluded.run_ms_p99,
              refreshed_at = clock_timestamp()
            "#,
            hours,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Rollup {
            hours: hours + 1,
            rows: written.rows_affected(),
        })
    }
}
