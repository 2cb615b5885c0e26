//! Finishing: the holder of a lease spends it to record how the attempt ended. A stale fence changes nothing.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::persist::Again;
use super::{Store, seconds};
use crate::error::StoreError;
use crate::lease::{Lease, LeaseKey};
use crate::outcome::Outcome;
use crate::retry::Backoff;
use crate::state::Status;

/// What became of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The job.
    pub job_id: Uuid,
    /// Its status now: terminal, or queued for another attempt.
    pub status: Status,
}

/// A finish that was not recorded: the lease comes back, so that the caller can try again while it holds.
#[derive(Debug)]
pub struct Unfinished {
    /// The lease, unspent.
    pub lease: Lease,
    /// Why.
    pub error: StoreError,
}

/// So often a job may be given back without losing an attempt; a job that is longer than every drain would else never end.
const FREE_RELEASES: i32 = 10;

/// The status that is asked for, and what goes with it.
pub(super) struct Ending {
    pub(super) to: &'static str,
    pub(super) result: Option<Value>,
    pub(super) error: Option<String>,
}

impl Ending {
    fn of(outcome: Outcome) -> Self {
        let (to, result, error) = match outcome.storable() {
            Outcome::Succeeded(result) => ("succeeded", Some(result), None),
            Outcome::Retry(error) => ("retry", None, Some(error)),
            Outcome::Failed(error) => ("failed", None, Some(error)),
            Outcome::Aborted => ("aborted", None, None),
            Outcome::Released => ("released", None, None),
        };
        Self { to, result, error }
    }
}

impl Store {
    /// Records the outcome of an attempt and gives the lease up. Asking twice for the same is harmless. Ends that come at
    /// the same time are committed together; it returns when its own is committed.
    ///
    /// # Errors
    /// [`Unfinished`] with the lease: [`StoreError::LeaseLost`] when it is another's by now (the attempt to write is noted
    /// as `stale_result_refused`), [`StoreError::Unavailable`] when the database did not answer (try again), and
    /// [`StoreError::Refused`] when the result cannot be stored (record a failure instead).
    pub async fn finish(&self, lease: Lease, outcome: Outcome) -> Result<Finished, Unfinished> {
        let ceiling = lease.backoff.ceiling(lease.stage_attempt);
        self.record(lease.key(), &lease.runner_id, ceiling, outcome)
            .await
            .map_err(|error| Unfinished { lease, error })
    }

    /// Records the outcome of an attempt whose lease went with an earlier life of its runner; the fence decides alone.
    ///
    /// # Errors
    /// As [`Store::finish`].
    pub async fn offer(
        &self,
        key: LeaseKey,
        runner_id: &str,
        outcome: Outcome,
    ) -> Result<Finished, StoreError> {
        let ceiling = Backoff::default().ceiling(key.attempt);
        self.record(key, runner_id, ceiling, outcome).await
    }

    async fn record(
        &self,
        key: LeaseKey,
        runner_id: &str,
        ceiling: Duration,
        outcome: Outcome,
    ) -> Result<Finished, StoreError> {
        let ending = Arc::new(Ending::of(outcome));
        let recorded = async {
            let ended = match self.end_together(key, runner_id, &ending).await? {
                Some(status) => Some(status),
                None => {
                    let alone = || self.end(key, runner_id, ceiling, &ending);
                    // Apart, as it is rare: every attempt at work would have room for it.
                    Box::pin(self.persist(Again::Always, alone)).await?
                }
            };
            match ended {
                Some(status) => Ok(status),
                None => Box::pin(self.after_no_row(key, runner_id, &ending)).await,
            }
        };
        let status = tokio::time::timeout(self.patience, recorded)
            .await
            .unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)))?;
        Ok(Finished {
            job_id: key.job_id,
            status,
        })
    }

    async fn end(
        &self,
        key: LeaseKey,
        runner_id: &str,
        ceiling: Duration,
        ending: &Ending,
    ) -> Result<Option<Status>, StoreError> {
        // What was asked for and what becomes of it differ only for a retry: with an abort asked for it is aborted,
        // without an attempt left it has failed.
        let word = sqlx::query_scalar!(
            r#"
            with acting as materialized (
              select set_config('ops.actor', 'runner:' || $3, true) as actor
            ),
            held as materialized (
              select
                j.id,
                case
                  when $4 = 'retry' and j.abort_requested_at is not null then 'aborted'
                  when $4 = 'retry' and j.attempt < j.max_attempts then 'queued'
                  when $4 = 'retry' then 'failed'
                  when $4 = 'released' and j.abort_requested_at is not null then 'aborted'
                  when $4 <> 'released' then $4
                  when j.released_count < $8 then 'queued'
                  when j.attempt < j.max_attempts then 'queued'
                  else 'failed'
                end as next,
                -- given back too often: from now on it costs an attempt
                $4 = 'released' and j.abort_requested_at is null and j.released_count >= $8 as counted
              from ops_jobs j
              where j.id = $1 and j.fence = $2 and j.status = 'running'
              for update of j
            )
            update ops_jobs j
            set status = h.next,
              result = $5,
              error = case
                when h.counted then format('stopping runners gave it back %s times; from now on that costs an attempt', j.released_count)
                else coalesce($6, j.error)
              end,
              attempt = case when $4 = 'released' and h.next = 'queued' and not h.counted then j.attempt - 1 else j.attempt end,
              run_at = case
                when h.next <> 'queued' then j.run_at
                when $4 = 'released' then clock_timestamp()
                else clock_timestamp() + random() * make_interval(secs => $7)
              end,
              dead_lettered_at = case
                when h.next = 'failed' and j.attempt >= j.max_attempts then clock_timestamp()
              end
            from held h, acting a
            where j.id = h.id and a.actor is not null
            returning j.status
            "#,
            key.job_id,
            key.fence,
            runner_id,
            ending.to,
            ending.result,
            ending.error,
            seconds(ceiling),
            FREE_RELEASES,
        )
        .fetch_optional(&self.pool)
        .await?;
        word.map(|word| super::row::parsed(&word, "status", key.job_id))
            .transpose()
    }

    /// Zero rows: either this very finish is recorded already (its answer was lost), or the lease is another's.
    async fn after_no_row(
        &self,
        lease: LeaseKey,
        runner_id: &str,
        ending: &Ending,
    ) -> Result<Status, StoreError> {
        let now = sqlx::query!(
            "select status, fence from ops_jobs where id = $1",
            lease.job_id
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(StoreError::NotFound(lease.job_id))?;
        // Whoever takes a job from its runner takes the fence too: our fence without our running is our own finish.
        if now.fence == lease.fence {
            return super::row::parsed(&now.status, "status", lease.job_id);
        }
        let data =
            json!({ "fence": lease.fence, "current_fence": now.fence, "offered": ending.to });
        sqlx::query!(
            r#"
            insert into ops_job_events (job_id, kind, attempt, runner_id, actor, data)
            values ($1, 'stale_result_refused', $2, $3, 'runner:' || $3, $4)
            "#,
            lease.job_id,
            lease.attempt,
            runner_id,
            data,
        )
        .execute(&self.pool)
        .await?;
        Err(StoreError::LeaseLost(lease.job_id))
    }
}
