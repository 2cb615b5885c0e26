//! The ceiling: the same rows and events as the product writes, by raw SQL, with nothing that guards, leases or renews.
//! Claims and finishes are batched, and the claim has a moving lower bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Result;

/// So many jobs a claim, and at most so many a finish.
const BATCH: usize = 500;
/// The member of a payload that marks a job whose latency is taken.
pub const PROBE: &str = "probe";
/// A look at the whole queue, for what came late.
const LOOK_AT_ALL: Duration = Duration::from_secs(5);

const ENQUEUE: &str = "
with recorded as (
  insert into ops_jobs (id, job_type, payload, max_attempts_by_type, created_by)
  select ops_uuidv7(), 'noop', p, true, 'bench' from unnest($1::jsonb[]) p
  returning id, job_type, queue, priority, max_attempts, run_at, created_by
)
insert into ops_job_events (job_id, seq, kind, attempt, actor, data)
select
  id, 1, 'queued', 0, created_by,
  jsonb_build_object('job_type', job_type, 'queue', queue, 'priority', priority, 'max_attempts', max_attempts, 'run_at', run_at)
from recorded";

const CLAIM: &str = "
with due as materialized (
  select id from ops_jobs
  where status = 'queued' and claim_order is not null and run_at <= now() and (claim_order, id) > ($2, $3)
  order by claim_order, id limit $1 for update skip locked
),
taken as (
  update ops_jobs j
  set status = 'running', runner_id = 'raw', boot_id = $3, attempt = attempt + 1, fence = nextval('ops_fence'),
    lease_expires_at = clock_timestamp() + interval '30 s', heartbeat_at = clock_timestamp(), started_at = clock_timestamp(),
    updated_at = clock_timestamp(), event_seq = event_seq + 1, max_attempts_by_type = false
  from due where j.id = due.id
  returning j.id, j.claim_order, j.payload, j.fence, j.attempt, j.max_attempts, j.job_type, j.queue, j.started_at, j.created_at
),
noted as (
  insert into ops_job_events (job_id, seq, kind, attempt, runner_id, actor, data)
  select id, 2, 'running', attempt, 'raw', 'runner:raw',
    ('{\"job_type\": \"' || job_type || '\", \"queue\": \"' || queue || '\", \"attempt\": ' || attempt || ', \"max_attempts\": ' || max_attempts
      || ', \"fence\": ' || fence || ', \"waited_ms\": ' || (date_part('epoch', started_at - created_at) * 1000)::bigint || '}')::jsonb
  from taken
)
select id, fence, claim_order, payload from taken";

const FINISH: &str = "
with done as (
  update ops_jobs j
  set status = 'succeeded', result = 'null', lease_expires_at = null, finished_at = clock_timestamp(),
    updated_at = clock_timestamp(), event_seq = event_seq + 1
  from unnest($1::uuid[], $2::bigint[]) as held (id, fence)
  where j.id = held.id and j.fence = held.fence
  returning j.id, j.attempt, j.max_attempts, j.job_type, j.queue, j.started_at, j.finished_at
)
insert into ops_job_events (job_id, seq, kind, attempt, runner_id, actor, data)
select id, 3, 'succeeded', attempt, 'raw', 'runner:raw',
  ('{\"job_type\": \"' || job_type || '\", \"queue\": \"' || queue || '\", \"attempt\": ' || attempt || ', \"max_attempts\": ' || max_attempts
    || ', \"ran_ms\": ' || (date_part('epoch', finished_at - started_at) * 1000)::bigint || '}')::jsonb
from done";

/// Records jobs with their first events.
///
/// # Errors
/// When the database refuses.
pub async fn enqueue(pool: &PgPool, payloads: &[Value]) -> std::result::Result<(), sqlx::Error> {
    sqlx::query(ENQUEUE)
        .bind(payloads)
        .execute(pool)
        .await
        .map(drop)
}

type Claimed = (Uuid, i64, sqlx::types::time::OffsetDateTime, Value);

/// Works until `target` jobs are finished, or until it is dropped; counts what was finished.
///
/// # Errors
/// When the database fails.
pub async fn work(pool: &PgPool, target: u64, count: Arc<AtomicU64>) -> Result<()> {
    work_and_tell(pool, target, count, None).await
}

/// The same, and tells when a job whose payload has the member [`PROBE`] begins.
///
/// # Errors
/// When the database fails.
pub async fn work_and_tell(
    pool: &PgPool,
    target: u64,
    count: Arc<AtomicU64>,
    begun: Option<mpsc::UnboundedSender<Instant>>,
) -> Result<()> {
    let (give, take) = mpsc::channel(BATCH * 2);
    let mut finishing = JoinSet::new();
    finishing.spawn(finish(pool.clone(), take, target, count));
    let mut claiming = JoinSet::new();
    claiming.spawn(claim(pool.clone(), give, begun));
    tokio::select! {
        Some(ended) = finishing.join_next() => ended?,
        Some(ended) = claiming.join_next() => ended?,
    }
}

async fn claim(
    pool: PgPool,
    give: mpsc::Sender<(Uuid, i64)>,
    begun: Option<mpsc::UnboundedSender<Instant>>,
) -> Result<()> {
    let none = (sqlx::types::time::OffsetDateTime::UNIX_EPOCH, Uuid::nil());
    let (mut low, mut looked) = (none, Instant::now());
    loop {
        if looked.elapsed() > LOOK_AT_ALL {
            (low, looked) = (none, Instant::now());
        }
        let rows: Vec<Claimed> = sqlx::query_as(CLAIM)
            .bind(i64::try_from(BATCH)?)
            .bind(low.0)
            .bind(low.1)
            .fetch_all(&pool)
            .await?;
        if rows.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for (id, fence, claim_order, payload) in rows {
            low = low.max((claim_order, id));
            if let Some(begun) = &begun
                && payload.get(PROBE).is_some()
            {
                // Whoever waits for it may have gone.
                let _ = begun.send(Instant::now());
            }
            give.send((id, fence)).await?;
        }
    }
}

async fn finish(
    pool: PgPool,
    mut take: mpsc::Receiver<(Uuid, i64)>,
    target: u64,
    count: Arc<AtomicU64>,
) -> Result<()> {
    let mut group = Vec::new();
    while count.load(Ordering::Relaxed) < target {
        group.clear();
        take.recv_many(&mut group, BATCH).await;
        let (ids, fences): (Vec<Uuid>, Vec<i64>) = group.iter().copied().unzip();
        sqlx::query(FINISH)
            .bind(&ids)
            .bind(&fences)
            .execute(&pool)
            .await?;
        count.fetch_add(group.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}
