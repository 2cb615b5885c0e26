//! Claims of job types with a limit over the fleet: each job takes a slot, a row of its type, in the claim's own statement.
//! The database frees it in the transaction in which the job stops running, so that the two cannot part.

use std::time::Instant;

use uuid::Uuid;

use super::claim::{ClaimRequest, ClaimedRow, leased};
use super::{Store, seconds};
use crate::error::StoreError;
use crate::lease::{LeasedJob, TypeTerms};

impl Store {
    pub(super) async fn claim_with_slots(
        &self,
        request: ClaimRequest<'_>,
        terms: &TypeTerms,
        concurrency: i32,
        id: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<LeasedJob>, StoreError> {
        let taken = self
            .claim_limited(request, terms, concurrency, id, limit)
            .await?;
        let all = i64::try_from(taken.len()).is_ok_and(|taken| taken >= limit);
        if all || !self.add_missing_slots(terms, concurrency).await? {
            return Ok(taken);
        }
        // The type was never claimed before, or its limit has been raised.
        let mut taken = taken;
        let rest = limit - i64::try_from(taken.len()).unwrap_or(limit);
        taken.extend(
            self.claim_limited(request, terms, concurrency, id, rest)
                .await?,
        );
        Ok(taken)
    }

    async fn claim_limited(
        &self,
        request: ClaimRequest<'_>,
        terms: &TypeTerms,
        concurrency: i32,
        id: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<LeasedJob>, StoreError> {
        let sent = Instant::now();
        // Slots before jobs, so that a full type locks no job; and no slot is locked while nothing is due.
        let rows = sqlx::query_as!(
            ClaimedRow,
            r#"
            with acting as materialized (
              select set_config('ops.actor', 'runner:' || $1, true) as actor
            ),
            free as materialized (
              select s.slot_no
              from ops_slots s
              where s.job_type = $3
                and s.slot_no <= $10
                and s.job_id is null
                and exists (
                  select from ops_jobs j
                  where j.status = 'queued' and j.run_at <= now() and j.job_type = $3
                    and (j.expires_at is null or j.expires_at > now())
                    and ($6::uuid is null or j.id = $6)
                )
              order by s.slot_no
              limit $7
              for update of s skip locked
            ),
            due as materialized (
              select j.id
              from ops_jobs j
              where j.status = 'queued'
                and j.run_at <= now()
                and j.job_type = $3
                and (j.expires_at is null or j.expires_at > now())
                and ($6::uuid is null or j.id = $6)
              order by j.priority desc, j.run_at, j.id
              limit (select count(*) from free)
              for update of j skip locked
            ),
            placed as materialized (
              select d.id, f.slot_no
              from (select due.id, row_number() over () as place from due) d
              join (select free.slot_no, row_number() over () as place from free) f on f.place = d.place
            )
            update ops_jobs j
            set status = 'running',
              runner_id = $1,
              boot_id = $2,
              slot_no = p.slot_no,
              lease_expires_at = clock_timestamp() + make_interval(secs => $8),
              max_attempts = case when j.max_attempts_by_type then $4 else j.max_attempts end,
              max_attempts_by_type = false,
              timeout_seconds = coalesce(j.timeout_seconds, $5),
              on_lost = $9
            from placed p, acting a
            where j.id = p.id and a.actor is not null
            returning
              j.id, j.job_type, j.payload, j.attempt, j.max_attempts, j.timeout_seconds, j.fence, j.started_at
            "#,
            request.runner.id,
            request.runner.boot_id,
            terms.job_type.as_str(),
            terms.max_attempts,
            terms.timeout_seconds,
            id,
            limit,
            seconds(request.lease),
            terms.on_lost.as_str(),
            concurrency,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| leased(row, request, &[terms], sent))
            .collect()
    }

    /// Whether there were any: a type's slots are made when they are first needed.
    async fn add_missing_slots(
        &self,
        terms: &TypeTerms,
        concurrency: i32,
    ) -> Result<bool, StoreError> {
        let added = sqlx::query!(
            r#"
            insert into ops_slots (job_type, slot_no)
            select $1, n
            from generate_series(1, $2) n
            where (select count(*) from ops_slots s where s.job_type = $1 and s.slot_no <= $2) < $2
            on conflict do nothing
            "#,
            terms.job_type.as_str(),
            concurrency,
        )
        .execute(&self.pool)
        .await?;
        Ok(added.rows_affected() > 0)
    }
}
