//! Claims: queued → running, under a new fence, in one statement that cannot take more than it was asked for.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{Executor, Postgres};
use time::OffsetDateTime;
use uuid::Uuid;

use super::persist::Again;
use super::{Store, seconds};
use crate::error::StoreError;
use crate::lease::{Lease, LeaseKey, LeasedJob, RunnerIdentity, TypeTerms};
use crate::name::Name;
use crate::state::Status;

/// A claim by id is tried so often while other claims are at its slot.
const RIVALS: usize = 4;

/// What a runner is ready to take.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRequest<'a> {
    /// Who claims.
    pub runner: &'a RunnerIdentity,
    /// The job types that it takes, with what holds where the caller left it open.
    pub types: &'a [TypeTerms],
    /// How long the claim holds unless it is renewed.
    pub lease: Duration,
}

pub(super) struct ClaimedRow {
    pub(super) id: Uuid,
    pub(super) job_type: String,
    pub(super) payload: Value,
    pub(super) attempt: i32,
    pub(super) max_attempts: i32,
    pub(super) timeout_seconds: Option<i32>,
    pub(super) fence: i64,
    pub(super) started_at: Option<OffsetDateTime>,
}

impl Store {
    /// Takes up to `limit` due jobs, by priority, then by `run_at`.
    ///
    /// # Errors
    /// When the database does not answer before anything was taken; then nothing is known of the claim, and what it took
    /// comes back by its lease or by [`Store::release_unheld`].
    pub async fn claim_due(
        &self,
        request: ClaimRequest<'_>,
        limit: i64,
    ) -> Result<Vec<LeasedJob>, StoreError> {
        let mut taken = Vec::new();
        for turn in self.turns(request, limit).await? {
            let free = limit - i64::try_from(taken.len()).unwrap_or(i64::MAX);
            let most = turn.most.min(free);
            if most <= 0 || turn.types.is_empty() {
                continue;
            }
            let claimed = match turn.limited {
                Some((terms, concurrency)) => {
                    self.claim_with_slots(request, terms, concurrency, None, most)
                        .await
                }
                None => claim(&self.pool, request, &turn.types, None, most).await,
            };
            match claimed {
                Ok(more) => taken.extend(more),
                // What was taken before is the caller's: it must be run.
                Err(error) if taken.is_empty() => return Err(error),
                Err(error) => {
                    tracing::warn!(event = "claim_failed", %error);
                    break;
                }
            }
        }
        Ok(taken)
    }

    /// Takes this one job.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::WrongType`], [`StoreError::WrongStatus`], [`StoreError::NotDue`] or
    /// [`StoreError::ConcurrencyReached`]; the row is then unchanged.
    pub async fn claim_by_id(
        &self,
        request: ClaimRequest<'_>,
        id: Uuid,
    ) -> Result<LeasedJob, StoreError> {
        let job = self.get(id).await?.ok_or(StoreError::NotFound(id))?;
        let Some(terms) = request
            .types
            .iter()
            .find(|terms| terms.job_type == job.job_type)
        else {
            return Err(StoreError::WrongType(id));
        };
        for _ in 1..RIVALS {
            match self.claim_once(request, terms, id).await {
                // Another claim may have held the free slot only to find that it has no use for it.
                Err(StoreError::Contended(_)) if terms.concurrency.is_some() => {}
                settled => return settled,
            }
        }
        self.claim_once(request, terms, id).await
    }

    async fn claim_once(
        &self,
        request: ClaimRequest<'_>,
        terms: &TypeTerms,
        id: Uuid,
    ) -> Result<LeasedJob, StoreError> {
        let taken = match terms.concurrency {
            Some(concurrency) => {
                self.claim_with_slots(request, terms, concurrency, Some(id), 1)
                    .await?
            }
            None => claim(&self.pool, request, &[terms], Some(id), 1).await?,
        };
        match taken.into_iter().next() {
            Some(leased) => Ok(leased),
            None => Err(self.why_not_claimed(id, terms).await?),
        }
    }

    /// After a claim that took nothing: reads again and names the reason.
    async fn why_not_claimed(&self, id: Uuid, terms: &TypeTerms) -> Result<StoreError, StoreError> {
        let row = sqlx::query!(
            r#"
            select
              status,
              run_at > clock_timestamp() as "not_due!",
              coalesce(expires_at <= clock_timestamp(), false) as "outlived!",
              $2::int is not null and not exists (
                select from ops_slots s where s.job_type = j.job_type and s.slot_no <= $2 and s.job_id is null
              ) as "full!"
            from ops_jobs j
            where id = $1
            "#,
            id,
            terms.concurrency,
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else {
            return Ok(StoreError::NotFound(id));
        };
        Ok(match super::row::parsed(&row.status, "status", id)? {
            Status::Queued if row.not_due => StoreError::NotDue(id),
            Status::Queued if row.outlived => StoreError::Outlived(id),
            Status::Queued if row.full => StoreError::ConcurrencyReached(id),
            Status::Queued => StoreError::Contended(id),
            status => StoreError::WrongStatus { job_id: id, status },
        })
    }

    /// Renews leases, all in one statement. Gives those that still hold, each with whether its abort was asked for;
    /// one that is missing from the answer is lost.
    ///
    /// # Errors
    /// When the database does not answer; the leases then run on until their deadline.
    pub async fn renew(
        &self,
        leases: &[LeaseKey],
        lease: Duration,
    ) -> Result<Vec<(LeaseKey, bool)>, StoreError> {
        self.persist(Again::Always, || self.renew_once(leases, lease))
            .await
    }

    async fn renew_once(
        &self,
        leases: &[LeaseKey],
        lease: Duration,
    ) -> Result<Vec<(LeaseKey, bool)>, StoreError> {
        let ids: Vec<Uuid> = leases.iter().map(|key| key.job_id).collect();
        let fences: Vec<i64> = leases.iter().map(|key| key.fence).collect();
        let rows = sqlx::query!(
            r#"
            update ops_jobs j
            set lease_expires_at = clock_timestamp() + make_interval(secs => $3), heartbeat_at = clock_timestamp()
            from unnest($1::uuid[], $2::bigint[]) as held (id, fence)
            where j.id = held.id and j.fence = held.fence and j.status = 'running'
            returning j.id, j.fence, j.attempt, j.abort_requested_at is not null as "abort_requested!"
            "#,
            &ids,
            &fences,
            seconds(lease),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| {
                (
                    LeaseKey {
                        job_id: row.id,
                        fence: row.fence,
                        attempt: row.attempt,
                    },
                    row.abort_requested,
                )
            })
            .collect())
    }
}

async fn claim(
    connection: impl Executor<'_, Database = Postgres>,
    request: ClaimRequest<'_>,
    types: &[&TypeTerms],
    id: Option<Uuid>,
    limit: i64,
) -> Result<Vec<LeasedJob>, StoreError> {
    let job_types: Vec<String> = types
        .iter()
        .map(|terms| terms.job_type.to_string())
        .collect();
    let attempts: Vec<i32> = types.iter().map(|terms| terms.max_attempts).collect();
    let timeouts: Vec<Option<i32>> = types.iter().map(|terms| terms.timeout_seconds).collect();
    let on_lost: Vec<String> = types
        .iter()
        .map(|terms| terms.on_lost.as_str().to_owned())
        .collect();
    let sent = Instant::now();
    // The choice is materialized: under a nested loop a plain sub-select with LIMIT is run again for each row,
    // skips the rows just taken, and takes the whole queue.
    let rows = sqlx::query_as!(
        ClaimedRow,
        r#"
        with acting as materialized (
          select set_config('ops.actor', 'runner:' || $1, true) as actor
        ),
        terms as materialized (
          select t.*
          from unnest($3::text[], $4::int[], $5::int[], $9::text[]) as t (job_type, max_attempts, timeout_seconds, on_lost)
        ),
        due as materialized (
          select j.id
          from ops_jobs j
          where j.status = 'queued'
            and j.run_at <= now()
            and j.job_type = any($3)
            and (j.expires_at is null or j.expires_at > now())
            and ($6::uuid is null or j.id = $6)
          order by j.priority desc, j.run_at, j.id
          limit $7
          for update of j skip locked
        )
        update ops_jobs j
        set status = 'running',
          runner_id = $1,
          boot_id = $2,
          lease_expires_at = clock_timestamp() + make_interval(secs => $8),
          max_attempts = case when j.max_attempts_by_type then t.max_attempts else j.max_attempts end,
          max_attempts_by_type = false,
          timeout_seconds = coalesce(j.timeout_seconds, t.timeout_seconds),
          on_lost = t.on_lost
        from due, terms t, acting a
        where j.id = due.id and t.job_type = j.job_type and a.actor is not null
        returning
          j.id, j.job_type, j.payload, j.attempt, j.max_attempts, j.timeout_seconds, j.fence, j.started_at
        "#,
        request.runner.id,
        request.runner.boot_id,
        &job_types,
        &attempts,
        &timeouts as &[Option<i32>],
        id,
        limit,
        seconds(request.lease),
        &on_lost,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| leased(row, request, types, sent))
        .collect()
}

pub(super) fn leased(
    row: ClaimedRow,
    request: ClaimRequest<'_>,
    terms: &[&TypeTerms],
    sent: Instant,
) -> Result<LeasedJob, StoreError> {
    let job_type: Name = super::row::parsed(&row.job_type, "job_type", row.id)?;
    let backoff = terms
        .iter()
        .find(|terms| terms.job_type == job_type)
        .map(|terms| terms.backoff)
        .unwrap_or_default();
    Ok(LeasedJob {
        job_type,
        payload: row.payload,
        max_attempts: row.max_attempts,
        timeout: row
            .timeout_seconds
            .and_then(|s| u64::try_from(s).ok())
            .map(Duration::from_secs),
        started_at: row
            .started_at
            .ok_or_else(|| StoreError::Internal("a claimed job has no started_at".into()))?,
        lease: Lease {
            job_id: row.id,
            fence: row.fence,
            attempt: row.attempt,
            runner_id: request.runner.id.clone(),
            deadline: sent + request.lease,
            backoff,
        },
    })
}
