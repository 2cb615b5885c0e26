//! Housekeeping that any runner may do, none has to lead: guarded statements, a page at a time, safe to run at once.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::persist::Again;
use super::pool::Pool;
use super::reach::{Reach, Seen};
use super::{Store, seconds};
use crate::error::StoreError;
use crate::lease::{LeaseKey, RunnerIdentity};

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

/// The last time that lost and outlived jobs were taken back.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastSweep {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// By whom.
    pub actor: String,
    /// How long ago that is, in seconds, by the database's clock.
    pub ago_seconds: f64,
}

/// Rows a statement; a longer backlog takes more statements, not longer locks.
const PAGE: i64 = 100;

impl Store {
    /// Gives back, uncounted, what this start of a runner has claimed and does not hold: the answer to the claim was lost.
    /// Only claims older than `settled` are looked at, which is longer than a claim may be under way.
    ///
    /// # Errors
    /// When the database does not answer; the next time does it.
    pub async fn release_unheld(
        &self,
        runner: &RunnerIdentity,
        held: &[LeaseKey],
        settled: Duration,
    ) -> Result<u64, StoreError> {
        let fences: Vec<i64> = held.iter().map(|key| key.fence).collect();
        let look = self.reaches.begin();
        let reach = &look.reach;
        let released = sqlx::query!(
            r#"
            with acting as materialized (
              select set_config('ops.actor', 'runner:' || $1, true) as actor
            ),
            near as materialized (
              select r.id
              from ops_jobs r
              where r.status = 'running'
                and r.started_at >= coalesce($5::timestamptz, '-infinity')
                and r.runner_id = $1
                and r.boot_id = $2
                and not r.fence = any($3)
              union
              select k.id from unnest($6::uuid[]) k (id)
              order by id
            ),
            unheld as materialized (
              select j.place
              from near n
              -- One by one, as the planner cannot know how few they are.
              cross join lateral (
                select j.ctid as place
                from ops_jobs j
                where j.id = n.id
                  and j.status = 'running'
                  and j.runner_id = $1
                  and j.boot_id = $2
                  and not j.fence = any($3)
                  and j.started_at < clock_timestamp() - make_interval(secs => $4)
                  and j.abort_requested_at is null
                limit 1
                for update of j
              ) j
            )
            update ops_jobs j
            set status = 'queued', attempt = j.attempt - 1, run_at = clock_timestamp()
            from unheld u, acting a
            where j.ctid = u.place and a.actor is not null
            "#,
            runner.id,
            runner.boot_id,
            &fences,
            seconds(settled),
            reach.since,
            &reach.known,
        )
        .execute(&self.pool)
        .await?;
        look.end();
        Ok(released.rows_affected())
    }

    /// Takes back the jobs of lost runners, fails what outlived its time to live, forgets runners long gone.
    ///
    /// # Errors
    /// When the database does not answer; the rest is left to the next sweep.
    pub async fn sweep(&self, actor: &str) -> Result<Swept, StoreError> {
        let mut swept = self.recover(actor).await?;
        swept.forgotten = sqlx::query!(
            "delete from ops_runners where last_seen_at < clock_timestamp() - interval '1 day' and drain_requested_at is null"
        )
        .execute(&self.pool)
        .await?
        .rows_affected();
        Ok(swept)
    }

    /// As [`Store::sweep`], but forgets no runner: what needs no right but to move jobs.
    ///
    /// # Errors
    /// When the database does not answer; the rest is left to the next sweep.
    pub async fn recover(&self, actor: &str) -> Result<Swept, StoreError> {
        let mut swept = Swept {
            recovered: self.take_all_back(actor, None).await?,
            ..Swept::default()
        };
        loop {
            let page = self
                .persist(Again::Always, || expire(&self.pool, actor))
                .await?;
            swept.expired += page;
            if page < PAGE.unsigned_abs() {
                break;
            }
        }
        sqlx::query!(r#"select ops_note_sweep($1)::text as "noted""#, actor)
            .fetch_one(&self.pool)
            .await?;
        Ok(swept)
    }

    /// When a sweep was last done, and by whom; `None` before the first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn last_sweep(&self) -> Result<Option<LastSweep>, StoreError> {
        let row = sqlx::query!(
            r#"
            select
              ran_at, actor,
              extract(epoch from clock_timestamp() - ran_at)::float8 as ago_seconds
            from ops_sweeps
            where name = 'sweep'
            "#
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.and_then(|row| {
            Some(LastSweep {
                at: row.ran_at?,
                actor: row.actor?,
                ago_seconds: row.ago_seconds?,
            })
        }))
    }

    /// Takes back at once what earlier starts of this runner were running, without waiting for their leases to end.
    /// For an admitted runner only: nobody else knows that they are over.
    ///
    /// # Errors
    /// When the database does not answer; the rest comes back by its leases.
    pub async fn take_over(&self, runner: &RunnerIdentity) -> Result<u64, StoreError> {
        self.take_all_back(&format!("sweep:{}", runner.id), Some(runner))
            .await
    }

    async fn take_all_back(
        &self,
        actor: &str,
        successor: Option<&RunnerIdentity>,
    ) -> Result<u64, StoreError> {
        let mut taken = 0;
        loop {
            let page = self.take_page_back(actor, successor).await?;
            taken += page;
            if page < PAGE.unsigned_abs() {
                return Ok(taken);
            }
        }
    }

    async fn take_page_back(
        &self,
        actor: &str,
        successor: Option<&RunnerIdentity>,
    ) -> Result<u64, StoreError> {
        if successor.is_some() {
            let all = Reach::default();
            let taking = || take_back(&self.pool, actor, successor, &all, false);
            return Ok(self.persist(Again::Always, taking).await?.taken);
        }
        let look = self.reaches.begin();
        let taking = || take_back(&self.pool, actor, None, &look.reach, look.tells);
        let page = self.persist(Again::Always, taking).await?;
        look.note(page.searched, page.seen);
        Ok(page.taken)
    }
}

/// What came of a page.
struct TakenBack {
    taken: u64,
    /// How long it looked.
    searched: Duration,
    seen: Option<Seen>,
}

/// A page of the jobs whose lease has run out, and of those of a runner's earlier starts where its successor is named. On demand
/// it tells what it has seen.
async fn take_back(
    pool: &Pool,
    actor: &str,
    successor: Option<&RunnerIdentity>,
    reach: &Reach,
    tell: bool,
) -> Result<TakenBack, StoreError> {
    // The condition stands in the locking select, so that a job that was finished or renewed meanwhile is left alone.
    let row = sqlx::query!(
        r#"
        with acting as materialized (
          select set_config('ops.actor', $1, true) as actor, set_config('ops.cause', 'lease_expired', true) as cause
        ),
        seen as materialized (
          select r.id, r.lease_expires_at, r.runner_id, r.boot_id
          from ops_jobs r
          where r.status = 'running' and r.started_at >= coalesce($5::timestamptz, '-infinity')
          union all
          -- A start can be wiped out by hand.
          select r.id, r.lease_expires_at, r.runner_id, r.boot_id
          from ops_jobs r
          where r.status = 'running' and r.started_at is null and $5 is null
          union all
          select r.*
          from unnest($6::uuid[]) k (id)
          -- One by one, as the planner cannot know how few they are.
          cross join lateral (
            select r.id, r.lease_expires_at, r.runner_id, r.boot_id
            from ops_jobs r
            where r.id = k.id and r.status = 'running' and r.started_at < $5::timestamptz
            limit 1
          ) r
        ),
        ended as materialized (
          select s.id
          from seen s
          where s.lease_expires_at < clock_timestamp() or (s.runner_id = $3 and s.boot_id <> $4)
          order by s.id
        ),
        lost as materialized (
          select j.*
          from ended e
          cross join lateral (
            select
              j.ctid as place,
              case
                when j.abort_requested_at is not null then 'aborted'
                when j.lost_count >= 2 then 'failed'
                when j.on_lost = 'hold' then 'waiting'
                when j.attempt < j.max_attempts then 'queued'
                else 'failed'
              end as next,
              case
                when j.lease_expires_at < clock_timestamp() then 'its lease ran out'
                else 'it was started anew'
              end as how
            from ops_jobs j
            where j.id = e.id
              and j.status = 'running'
              and (j.lease_expires_at < clock_timestamp() or (j.runner_id = $3 and j.boot_id <> $4))
            limit 1
            for update of j skip locked
          ) j
          limit $2
        ),
        taken as (
          update ops_jobs j
          set status = l.next,
            lost_count = j.lost_count + 1,
            error = format('runner %s was lost: %s in attempt %s of %s', j.runner_id, l.how, j.attempt, j.max_attempts),
            run_at = case when l.next = 'queued' then clock_timestamp() else j.run_at end,
            dead_lettered_at = case when l.next = 'failed' then clock_timestamp() end
          from lost l, acting a
          -- Held, a row stays in its place; one that was changed since the statement began is left to the next.
          where j.ctid = l.place and a.actor is not null and a.cause is not null
          returning j.id
        )
        select
          date_part('epoch', (
            select clock_timestamp() from (select count(*) as jobs from seen) s where s.jobs >= 0
          ) - statement_timestamp()) as "searched_seconds!",
          (select count(*) from taken) as "taken!",
          statement_timestamp() as "at!",
          case when $7 then array(select s.id from seen s) end as running
        "#,
        actor,
        PAGE,
        successor.map(|runner| runner.id.as_str()),
        successor.map(|runner| runner.boot_id),
        reach.since,
        &reach.known,
        tell,
    )
    .fetch_one(pool)
    .await?;
    let seen = row.running.map(|running| Seen {
        at: row.at,
        running,
    });
    Ok(TakenBack {
        taken: row.taken.unsigned_abs(),
        searched: Duration::try_from_secs_f64(row.searched_seconds).unwrap_or_default(),
        seen,
    })
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
