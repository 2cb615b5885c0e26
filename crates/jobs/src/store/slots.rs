//! Claims of job types with a limit over the fleet: each job takes a slot, a row of its type, in the claim's own statement.
//! The database frees it in the transaction in which the job stops running, so that the two cannot part.

use std::time::Instant;

use uuid::Uuid;

use super::claim::ClaimRequest;
use super::drains::RUNNER_PROTOCOL;
use super::take::{ClaimedRow, leased};
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
        let alone = taken.iter().any(|leased| leased.alone);
        if all || alone || !self.add_missing_slots(terms, concurrency).await? {
            return Ok(taken);
        }
        // The type was never claimed before, or its limit has been raised.
        let mut taken = taken;
        let request = ClaimRequest {
            at_work: request.at_work + taken.len(),
            ..request
        };
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
        // Slots before jobs, so that a full type locks no job; and no slot is locked while nothing is due,
        // while the fleet is paused or this runner is given nothing: without a slot nothing is taken.
        let rows = sqlx::query_as!(
            ClaimedRow,
            r#"
            with acting as materialized (
              select set_config('ops.actor', 'runner:' || $1, true) as actor, set_config('ops.stages', 'on', true) as stages
            ),
            free as materialized (
              select s.slot_no
              from ops_slots s
              where s.job_type = $3
                and not exists (
                  select from ops_fleet f where f.paused_at is not null or $13 not between f.protocol_min and f.protocol_max
                )
                and not exists (select from ops_runners r where r.id = $1 and r.drain_requested_at is not null)
                and s.slot_no <= $10
                and s.job_id is null
                and case
                  when $6::uuid is null then exists (
                    select from ops_jobs j
                    where j.status = 'queued' and j.claim_order is not null and j.run_at <= now()
                      and coalesce(j.stage_type, j.job_type) collate "C" = $3 and (j.stage_no is null or $12)
                      and (j.expires_at is null or j.expires_at > now())
                  )
                  else exists (
                    select from ops_jobs j
                    where j.id = $6 and j.status = 'queued' and j.run_at <= now()
                      and coalesce(j.stage_type, j.job_type) = $3 and (j.stage_no is null or $12)
                      and (j.expires_at is null or j.expires_at > now())
                  )
                end
              order by s.slot_no
              limit $7
              for update of s skip locked
            ),
            head as materialized (
              select j.id, j.lost_count > 0 as alone, j.run_at < now() - interval '10 seconds' as overdue
              from ops_jobs j
              where $6::uuid is null
                and j.status = 'queued'
                and j.claim_order is not null
                and j.run_at <= now()
                and coalesce(j.stage_type, j.job_type) collate "C" = $3
                and (j.stage_no is null or $12)
                and (j.expires_at is null or j.expires_at > now())
                and exists (select from free)
              order by j.claim_order, j.id
              limit 1
              for update of j skip locked
            ),
            first as materialized (
              select j.id
              from ops_jobs j
              where $6::uuid is null
                and j.status = 'queued'
                and j.claim_order is not null
                and j.run_at <= now()
                and coalesce(j.stage_type, j.job_type) collate "C" = $3
                and (j.stage_no is null or $12)
                and (j.expires_at is null or j.expires_at > now())
                and j.lost_count = 0
                and not exists (select from head h where h.alone and (h.overdue or $11))
              order by j.claim_order, j.id
              limit (select count(*) from free)
              for update of j skip locked
            ),
            named as materialized (
              select j.id
              from ops_jobs j
              where j.id = $6
                and j.status = 'queued'
                and j.run_at <= now()
                and coalesce(j.stage_type, j.job_type) = $3
                and (j.stage_no is null or $12)
                and (j.expires_at is null or j.expires_at > now())
                and (j.lost_count = 0 or $11)
                and exists (select from free)
              for update of j skip locked
            ),
            due as materialized (
              select f.id from first f
              union all
              select h.id from head h where h.alone and $11
              union all
              select n.id from named n
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
              max_attempts = case when j.max_attempts_by_type then least(1000, j.attempt + $4) else j.max_attempts end,
              max_attempts_by_type = false,
              timeout_seconds = coalesce(j.timeout_seconds, $5),
              on_lost = $9
            from placed p, acting a
            where j.id = p.id and a.actor is not null and a.stages is not null
            returning
              j.id, coalesce(j.stage_type, j.job_type) as "job_type!", j.payload, j.attempt, j.max_attempts, j.timeout_seconds,
              j.fence, j.started_at, j.lost_count > 0 as "alone!", j.stage_no,
              case when j.stage_no is not null then ops_stage_at_work(j.id, j.stage_no) end as stage,
              j.queue, greatest(0, extract(epoch from j.started_at - greatest(j.run_at, j.created_at)))::float8 as "waited_seconds!",
              j.traceparent, j.tracestate, j.claim_order, 0::float8 as "searched_seconds!"
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
            request.at_work == 0,
            request.stages,
            RUNNER_PROTOCOL,
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
