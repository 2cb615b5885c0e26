//! Housekeeping that any runner may do, none has to lead: guarded statements, a page at a time, safe to run at once.

use super::Store;
use super::persist::Again;
use super::pool::Pool;
use crate::error::StoreError;

/// What one sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Jobs taken back from runners whose lease ran out.
    pub recovered: u64,
    /// Queued jobs whose time to live ran out.
    pub expired: u64,
    /// Runners forgotten because they were silent for a day.
    pub forgotten: u64,
}

/// Rows a statement; a longer backlog takes more statements, not longer locks.
const PAGE: i64 = 100;

impl Store {
    /// Takes back the jobs of lost runners, fails what outlived its time to live, forgets runners long gone.
    ///
    /// # Errors
    /// When the database does not answer; the rest is left to the next sweep.
    pub async fn sweep(&self, actor: &str) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        loop {
            let page = self
                .persist(Again::Always, || take_back(&self.pool, actor))
                .await?;
            swept.recovered += page;
            if page < PAGE.unsigned_abs() {
                break;
            }
        }
        loop {
            let page = self
                .persist(Again::Always, || expire(&self.pool, actor))
                .await?;
            swept.expired += page;
            if page < PAGE.unsigned_abs() {
                break;
            }
        }
        swept.forgotten = sqlx::query!(
            "delete from ops_runners where last_seen_at < clock_timestamp() - interval '1 day'"
        )
        .execute(&self.pool)
        .await?
        .rows_affected();
        Ok(swept)
    }
}

async fn take_back(pool: &Pool, actor: &str) -> Result<u64, StoreError> {
    // The condition stands in the locking select, so that a job that was finished or renewed meanwhile is left alone.
    let taken = sqlx::query!(
        r#"
        with acting as materialized (
          select set_config('ops.actor', $1, true) as actor, set_config('ops.cause', 'lease_expired', true) as cause
        ),
        lost as materialized (
          select
            j.id,
            case
              when j.abort_requested_at is not null then 'aborted'
              when j.attempt < j.max_attempts and j.lost_count < 2 then 'queued'
              else 'failed'
            end as next
          from ops_jobs j
          where j.status = 'running' and j.lease_expires_at < clock_timestamp()
          order by j.id
          limit $2
          for update of j skip locked
        )
        update ops_jobs j
        set status = l.next,
          lost_count = j.lost_count + 1,
          error = format('runner %s was lost: its lease ran out in attempt %s of %s', j.runner_id, j.attempt, j.max_attempts),
          run_at = case when l.next = 'queued' then clock_timestamp() else j.run_at end,
          dead_lettered_at = case when l.next = 'failed' then clock_timestamp() end
        from lost l, acting a
        where j.id = l.id and a.actor is not null and a.cause is not null
        "#,
        actor,
        PAGE,
    )
    .execute(pool)
    .await?;
    Ok(taken.rows_affected())
}

async fn expire(pool: &Pool, actor: &str) -> Result<u64, StoreError> {
    let failed = sqlx::query!(
        r#"
        with acting as materialized (
          select set_config('ops.actor', $1, true) as actor
        ),
        outlived as materialized (
          select j.id
          from ops_jobs j
          where j.status = 'queued' and j.expires_at <= now()
          order by j.expires_at
          limit $2
          for update of j skip locked
        )
        update ops_jobs j
        set status = 'failed', error = 'its time to live (ttl_seconds) ran out before a runner took it'
        from outlived o, acting a
        where j.id = o.id and a.actor is not null
        "#,
        actor,
        PAGE,
    )
    .execute(pool)
    .await?;
    Ok(failed.rows_affected())
}
