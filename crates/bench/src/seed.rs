//! Jobs put there before a measurement: queued as the product would, or finished long ago.

use sqlx::{Connection as _, PgPool};
use uuid::Uuid;

use crate::Result;
use crate::raw;

/// The job type of everything that is measured.
pub const NOOP: &str = "noop";
/// So many rows a statement.
const AT_ONCE: u64 = 50_000;

const QUEUED: &str = "
insert into ops_jobs (job_type, payload, max_attempts_by_type, created_by)
select 'noop', jsonb_build_object('id', g), true, 'bench' from generate_series(1, $1) g";

const FINISHED: &str = "
with done as (
  insert into ops_jobs (
    id, job_type, payload, status, result, attempt, fence, event_seq, runner_id, created_by,
    created_at, run_at, started_at, finished_at, updated_at
  )
  select
    ops_uuidv7(), 'noop', jsonb_build_object('id', g), 'succeeded', 'null', 1, nextval('ops_fence'), 3, 'earlier', 'bench',
    now() - interval '1 hour', now() - interval '1 hour', now() - interval '59 minutes', now() - interval '58 minutes',
    now() - interval '58 minutes'
  from generate_series(1, $1) g
  returning id, created_by, max_attempts
),
noted as (
  insert into ops_job_events (job_id, seq, kind, attempt, runner_id, actor, data, at)
  select
    d.id, k.seq, k.kind, k.attempt, 'earlier', d.created_by,
    jsonb_build_object('job_type', 'noop', 'queue', 'default', 'max_attempts', d.max_attempts),
    now() - interval '1 hour' + k.seq * interval '1 second'
  from done d
  cross join (values (1, 'queued', 0), (2, 'running', 1), (3, 'succeeded', 1)) as k (seq, kind, attempt)
)
select id from done";

const SEALED: &str = "
insert into ops_seals (job_id, seq, hashes)
select id, 3, ops_event_hashes(id, 0, 3, null) from unnest($1::uuid[]) id";

/// Queues jobs through the database's own guard, in bulk.
///
/// # Errors
/// When the database refuses.
pub async fn queue(pool: &PgPool, jobs: u64) -> Result<()> {
    for step in steps(jobs) {
        sqlx::query(QUEUED)
            .bind(i64::try_from(step)?)
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// Queues the same rows and events where there is no guard.
///
/// # Errors
/// When the database refuses.
pub async fn queue_raw(pool: &PgPool, jobs: u64) -> Result<()> {
    for step in steps(jobs) {
        let payloads: Vec<_> = (0..step).map(|id| serde_json::json!({"id": id})).collect();
        raw::enqueue(pool, &payloads).await?;
    }
    Ok(())
}

fn steps(jobs: u64) -> impl Iterator<Item = u64> + Send {
    (0..jobs)
        .step_by(usize::try_from(AT_ONCE).unwrap_or(usize::MAX))
        .map(move |begun| (jobs - begun).min(AT_ONCE))
}

/// Puts there what other days have left, with three events each, and a seal on them where the product would have made it.
///
/// # Errors
/// When the database refuses.
pub async fn retain(pool: &PgPool, jobs: u64, is_sealed: bool) -> Result<()> {
    let mut connection = pool.acquire().await?.detach();
    sqlx::raw_sql("set session_replication_role = replica")
        .execute(&mut connection)
        .await?;
    for step in steps(jobs) {
        let ids: Vec<Uuid> = sqlx::query_scalar(FINISHED)
            .bind(i64::try_from(step)?)
            .fetch_all(&mut connection)
            .await?;
        if is_sealed {
            sqlx::query(SEALED)
                .bind(ids)
                .execute(&mut connection)
                .await?;
        }
    }
    Ok(connection.close().await?)
}

/// Whether anything is queued or running.
///
/// # Errors
/// When the database does not answer.
pub async fn is_anything_left(pool: &PgPool) -> Result<bool> {
    let left = "select exists (select from ops_jobs where status = 'queued') or exists (select from ops_jobs where status = 'running')";
    Ok(sqlx::query_scalar(left).fetch_one(pool).await?)
}

/// How many jobs stand there as succeeded, and how many events.
///
/// # Errors
/// When the database does not answer.
pub async fn counts(pool: &PgPool) -> Result<(i64, i64)> {
    let counts = "select (select count(*) from ops_jobs where status = 'succeeded'), (select count(*) from ops_job_events)";
    Ok(sqlx::query_as(counts).fetch_one(pool).await?)
}
