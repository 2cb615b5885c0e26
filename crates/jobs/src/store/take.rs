//! The claim's own statement for types without a limit over the fleet, and what it gives.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{Executor, Postgres};
use time::OffsetDateTime;
use uuid::Uuid;

use super::claim::ClaimRequest;
use super::drains::RUNNER_PROTOCOL;
use super::low_water::{Found, Place};
use super::{Store, seconds};
use crate::error::StoreError;
use crate::lease::{Lease, LeasedJob, TypeTerms};
use crate::name::Name;

/// Jobs a statement that are given their place.
const PAGE: i64 = 500;

pub(super) struct ClaimedRow {
    pub(super) id: Uuid,
    pub(super) job_type: String,
    pub(super) payload: Value,
    pub(super) attempt: i32,
    pub(super) max_attempts: i32,
    pub(super) timeout_seconds: Option<i32>,
    pub(super) fence: i64,
    pub(super) started_at: Option<OffsetDateTime>,
    pub(super) alone: bool,
    pub(super) stage_no: Option<i32>,
    pub(super) stage: Option<Value>,
    pub(super) queue: String,
    pub(super) waited_seconds: f64,
    pub(super) traceparent: Option<String>,
    pub(super) tracestate: Option<String>,
    pub(super) claim_order: Option<OffsetDateTime>,
    pub(super) searched_seconds: f64,
}

impl ClaimedRow {
    fn place(&self) -> Option<Place> {
        let id = self.id;
        self.claim_order
            .map(|claim_order| Place { claim_order, id })
    }
}

impl Store {
    /// Gives the jobs that have fallen due their place among the claims; before, no claim reads past them. Gives how many
    /// there were.
    pub(super) async fn order_due(&self) -> Result<u64, StoreError> {
        // Whatever is written to claim_order, the database puts the right value there.
        let ordered = sqlx::query!(
            r#"
            with fallen as materialized (
              select j.id
              from ops_jobs j
              where j.status = 'queued' and j.claim_order is null and j.run_at <= now()
              order by j.run_at
              limit $1
              for update of j skip locked
            )
            update ops_jobs j
            set claim_order = j.run_at
            from fallen f
            where j.id = f.id
            "#,
            PAGE,
        )
        .execute(&self.pool)
        .await?;
        Ok(ordered.rows_affected())
    }
}

pub(super) async fn take(
    connection: impl Executor<'_, Database = Postgres>,
    request: ClaimRequest<'_>,
    types: &[&TypeTerms],
    id: Option<Uuid>,
    limit: i64,
    beyond: Place,
) -> Result<(Vec<LeasedJob>, Option<Found>), StoreError> {
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
    // skips the rows just taken, and takes the whole queue. Each limit is a plain number: of any other the planner
    // expects a tenth of the queue, and sorts it.
    let rows = sqlx::query_as!(
        ClaimedRow,
        r#"
        with acting as materialized (
          select set_config('ops.actor', 'runner:' || $1, true) as actor, set_config('ops.stages', 'on', true) as stages
        ),
        terms as materialized (
          select t.*
          from unnest($3::text[], $4::int[], $5::int[], $9::text[]) as t (job_type, max_attempts, timeout_seconds, on_lost)
        ),
        -- One row of each; read once, and by no job.
        closed as materialized (
          select from ops_fleet f where f.paused_at is not null or $12 not between f.protocol_min and f.protocol_max
          union all
          select from ops_runners r where r.id = $1 and r.drain_requested_at is not null
        ),
        -- Between which places the jobs of these types lie: what is queued of other types before and behind is not read.
        -- And where everything before is known to be gone, it is not looked through again.
        firsts as materialized (
          select b.*
          from unnest($3::text[]) as t (job_type)
          cross join lateral (
            select
              f.claim_order as first,
              f.id as first_id,
              (
                select l.claim_order
                from ops_jobs l
                where l.status = 'queued' and l.claim_order is not null
                  and coalesce(l.stage_type, l.job_type) collate "C" = t.job_type
                order by l.claim_order desc, l.id desc
                limit 1
              ) as last
            from ops_jobs f
            where f.status = 'queued' and f.claim_order is not null
              and coalesce(f.stage_type, f.job_type) collate "C" = t.job_type
              and (f.claim_order, f.id) > ($13::timestamptz, $14::uuid)
            order by f.claim_order, f.id
            limit 1
          ) b
        ),
        span as materialized (
          select f.first, f.first_id, (select max(l.last) from firsts l) as last
          from firsts f
          order by f.first, f.first_id
          limit 1
        ),
        head as materialized (
          select j.id, j.lost_count > 0 as alone, j.run_at < now() - interval '10 seconds' as overdue
          from ops_jobs j
          where $6::uuid is null
            and not exists (select from closed)
            and j.status = 'queued'
            and j.claim_order is not null
            and (j.claim_order, j.id) >= ((select s.first from span s), (select s.first_id from span s))
            and j.claim_order <= (select s.last from span s)
            and j.run_at <= now()
            and coalesce(j.stage_type, j.job_type) = any($3)
            and (j.stage_no is null or $11)
            and (j.expires_at is null or j.expires_at > now())
          order by j.claim_order, j.id
          limit 1
          for update of j skip locked
        ),
        first as materialized (
          select j.id
          from ops_jobs j
          where $6::uuid is null
            and not exists (select from closed)
            and j.status = 'queued'
            and j.claim_order is not null
            and (j.claim_order, j.id) >= ((select s.first from span s), (select s.first_id from span s))
            and j.claim_order <= (select s.last from span s)
            and j.run_at <= now()
            and coalesce(j.stage_type, j.job_type) = any($3)
            and (j.stage_no is null or $11)
            and (j.expires_at is null or j.expires_at > now())
            and j.lost_count = 0
            and not exists (select from head h where h.alone and (h.overdue or $10))
          order by j.claim_order, j.id
          limit $7
          for update of j skip locked
        ),
        named as materialized (
          select j.id
          from ops_jobs j
          where j.id = $6
            and not exists (select from closed)
            and j.status = 'queued'
            and j.run_at <= now()
            and coalesce(j.stage_type, j.job_type) = any($3)
            and (j.stage_no is null or $11)
            and (j.expires_at is null or j.expires_at > now())
            and (j.lost_count = 0 or $10)
          for update of j skip locked
        ),
        due as materialized (
          select f.id, clock_timestamp() as at from first f
          union all
          select h.id, clock_timestamp() from head h where h.alone and $10
          union all
          select n.id, clock_timestamp() from named n
        )
        update ops_jobs j
        set status = 'running',
          runner_id = $1,
          boot_id = $2,
          lease_expires_at = due.at + make_interval(secs => $8),
          -- What the guard would set: where it finds nothing to correct, it is not called for each row.
          moved = 'running',
          event_seq = j.event_seq + 1,
          attempt = j.attempt + 1,
          fence = greatest(nextval('ops_fence'), j.fence + 1),
          updated_at = due.at,
          started_at = due.at,
          heartbeat_at = due.at,
          finished_at = null,
          progress = null,
          abort_requested_at = null,
          left_runner_id = null,
          max_attempts = case when j.max_attempts_by_type then least(1000, j.attempt + t.max_attempts) else j.max_attempts end,
          max_attempts_by_type = false,
          timeout_seconds = coalesce(j.timeout_seconds, t.timeout_seconds),
          on_lost = t.on_lost
        from due, terms t, acting a
        where j.id = due.id and t.job_type = coalesce(j.stage_type, j.job_type) and a.actor is not null and a.stages is not null
        returning
          j.id, coalesce(j.stage_type, j.job_type) as "job_type!", j.payload, j.attempt, j.max_attempts, j.timeout_seconds,
          j.fence, j.started_at, j.lost_count > 0 as "alone!", j.stage_no,
          case when j.stage_no is not null then ops_stage_at_work(j.id, j.stage_no) end as stage,
          j.queue, greatest(0, date_part('epoch', j.started_at - greatest(j.run_at, j.created_at))) as "waited_seconds!",
          j.traceparent, j.tracestate, j.claim_order,
          date_part('epoch', due.at - statement_timestamp()) as "searched_seconds!"
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
        request.at_work == 0,
        request.stages,
        RUNNER_PROTOCOL,
        beyond.claim_order,
        beyond.id,
    )
    .fetch_all(connection)
    .await?;
    let searched = rows.iter().map(|row| row.searched_seconds);
    let searched = Duration::try_from_secs_f64(searched.fold(f64::INFINITY, f64::min));
    let last = rows.iter().filter_map(ClaimedRow::place).max();
    let found = last.map(|last| Found {
        last,
        searched: searched.unwrap_or_default(),
    });
    let jobs: Result<Vec<_>, _> = rows
        .into_iter()
        .map(|row| leased(row, request, types, sent))
        .collect();
    Ok((jobs?, found))
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
    let (part, payload) = super::stages::part(row.id, row.stage_no, row.stage, row.payload)?;
    let stage_attempt = part.attempt().unwrap_or(row.attempt);
    Ok(LeasedJob {
        job_type,
        payload,
        part,
        alone: row.alone,
        queue: super::row::parsed(&row.queue, "queue", row.id)?,
        waited: Duration::try_from_secs_f64(row.waited_seconds).unwrap_or_default(),
        traceparent: row.traceparent,
        tracestate: row.tracestate,
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
            stage_attempt,
            runner_id: request.runner.id.clone(),
            deadline: sent + request.lease,
            backoff,
        },
    })
}
