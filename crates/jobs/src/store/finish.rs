//! Finishing: the holder of a lease spends it to record how the attempt ended. A stale fence changes nothing.

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

/// The status that is asked for, and what goes with it.
struct Ending {
    to: &'static str,
    result: Option<Value>,
    error: Option<String>,
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
    /// Records the outcome of an attempt and gives the lease up. Asking twice for the same is harmless.
    ///
    /// # Errors
    /// [`Unfinished`] with the lease: [`StoreError::LeaseLost`] when it is another's by now (the attempt to write is noted
    /// as `stale_result_refused`), [`StoreError::Unavailable`] when the database did not answer (try again), and
    /// [`StoreError::Refused`] when the result cannot be stored (record a failure instead).
    pub async fn finish(&self, lease: Lease, outcome: Outcome) -> Result<Finished, Unfinished> {
        self.record(lease.key(), &lease.runner_id, lease.backoff, outcome)
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
        self.record(key, runner_id, Backoff::default(), outcome)
            .await
    }

    async fn record(
        &self,
        key: LeaseKey,
        runner_id: &str,
        backoff: Backoff,
        outcome: Outcome,
    ) -> Result<Finished, StoreError> {
        let ending = Ending::of(outcome);
        let recorded = async {
            let ended = self.persist(Again::Always, || self.end(key, runner_id, backoff, &ending));
            match ended.await? {
                Some(status) => Ok(status),
                None => self.after_no_row(key, runner_id, &ending).await,
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
        backoff: Backoff,
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
                  when $4 = 'released' then 'queued'
                  else $4
                end as next
              from ops_jobs j
              where j.id = $1 and j.fence = $2 and j.status = 'running'
              for update of j
            )
            update ops_jobs j
            set status = h.next,
              result = $5,
              error = coalesce($6, j.error),
              attempt = case when $4 = 'released' and h.next = 'queued' then j.attempt - 1 else j.attempt end,
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
            seconds(backoff.ceiling(key.attempt)),
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
