//! Recording jobs: one statement for one job or a thousand, all or none.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::persist::Again;
use super::row::JobRow;
use crate::error::StoreError;
use crate::job::{Job, NewJob};

/// The answer to a submit under an idempotency key.
#[derive(Clone, Debug, PartialEq)]
pub enum Submitted {
    /// The job was recorded now.
    Created(Job),
    /// The same request had been made before: this is its job.
    Replayed(Job),
}

impl Submitted {
    /// The job, either way.
    pub fn into_job(self) -> Job {
        match self {
            Self::Created(job) | Self::Replayed(job) => job,
        }
    }
}

impl Store {
    /// Records a job, with its first event, in one statement.
    ///
    /// # Errors
    /// [`StoreError::IdempotencyConflict`] when the key stands for another request.
    pub async fn submit(&self, new: NewJob, created_by: &str) -> Result<Submitted, StoreError> {
        let request = std::slice::from_ref(&new);
        if let Some(job) = self.insert(request, created_by).await?.pop() {
            return Ok(Submitted::Created(job));
        }
        let Some(key) = &new.idempotency_key else {
            return Err(StoreError::Internal(
                "an insert without a key gave no row".into(),
            ));
        };
        let found = self.persist(Again::Always, || self.find_by_key(key, &new));
        let (id, same) = found.await?;
        if same {
            self.require(id).await.map(Submitted::Replayed)
        } else {
            Err(StoreError::IdempotencyConflict(id))
        }
    }

    /// Records up to a thousand jobs, all or none, in the order given. Idempotency keys are refused here.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when one bears a key.
    pub async fn submit_batch(
        &self,
        jobs: &[NewJob],
        created_by: &str,
    ) -> Result<Vec<Job>, StoreError> {
        if jobs.iter().any(|job| job.idempotency_key.is_some()) {
            return Err(StoreError::Refused(
                "a batch takes no idempotency keys".to_owned(),
            ));
        }
        self.insert(jobs, created_by).await
    }

    async fn insert(&self, jobs: &[NewJob], created_by: &str) -> Result<Vec<Job>, StoreError> {
        // Under a key the second time finds what the first may have recorded.
        let again = if jobs.iter().all(|job| job.idempotency_key.is_some()) {
            Again::Always
        } else {
            Again::Undone
        };
        self.persist(again, || self.insert_once(jobs, created_by))
            .await
    }

    async fn insert_once(&self, jobs: &[NewJob], created_by: &str) -> Result<Vec<Job>, StoreError> {
        let job_types: Vec<String> = jobs.iter().map(|job| job.job_type.to_string()).collect();
        let payloads: Vec<Value> = jobs.iter().map(|job| job.payload.clone()).collect();
        let queues: Vec<String> = jobs.iter().map(|job| job.queue.to_string()).collect();
        let priorities: Vec<i16> = jobs.iter().map(|job| job.priority).collect();
        let run_ats: Vec<Option<OffsetDateTime>> = jobs.iter().map(|job| job.run_at).collect();
        let ttls: Vec<Option<i32>> = jobs.iter().map(|job| job.ttl_seconds).collect();
        let attempts: Vec<Option<i32>> = jobs.iter().map(|job| job.max_attempts).collect();
        let timeouts: Vec<Option<i32>> = jobs.iter().map(|job| job.timeout_seconds).collect();
        let labels: Vec<Value> = jobs.iter().map(labels_of).collect();
        let keys: Vec<Option<String>> =
            jobs.iter().map(|job| job.idempotency_key.clone()).collect();
        let rows = sqlx::query_as!(
            JobRow,
            r#"
            with asked as materialized (
              select ops_uuidv7() as id, a.*
              from unnest(
                $1::text[], $2::jsonb[], $3::text[], $4::smallint[], $5::timestamptz[],
                $6::int[], $7::int[], $8::int[], $9::jsonb[], $10::text[]
              ) with ordinality as a (
                job_type, payload, queue, priority, run_at, ttl_seconds, max_attempts, timeout_seconds, labels,
                idempotency_key, ordinal
              )
            ),
            recorded as (
              insert into ops_jobs (
                id, job_type, payload, queue, priority, run_at, expires_at, max_attempts, max_attempts_by_type,
                timeout_seconds, labels, idempotency_key, request_hash, created_by
              )
              select
                id, job_type, payload, queue, priority, coalesce(run_at, now()),
                clock_timestamp() + make_interval(secs => ttl_seconds),
                coalesce(max_attempts, 1), max_attempts is null, timeout_seconds, labels, idempotency_key,
                case when idempotency_key is not null then
                  ops_request_hash(job_type, payload, queue, priority, run_at, ttl_seconds, max_attempts, timeout_seconds, labels)
                end,
                $11
              from asked
              order by ordinal
              on conflict (idempotency_key) where idempotency_key is not null do nothing
              returning *
            )
            select
              r.id, r.job_type, r.queue, r.status, false as "stalled!", r.priority, r.payload, r.result, r.error,
              r.attempt, r.max_attempts, r.run_at, r.expires_at, r.timeout_seconds, r.idempotency_key, r.labels,
              r.runner_id, r.lease_expires_at, r.heartbeat_at, r.fence, r.progress, r.abort_requested_at,
              r.dead_lettered_at, r.created_by, r.created_at, r.started_at, r.finished_at, r.updated_at
            from asked a
            join recorded r on r.id = a.id
            order by a.ordinal
            "#,
            &job_types,
            &payloads,
            &queues,
            &priorities,
            &run_ats as &[Option<OffsetDateTime>],
            &ttls as &[Option<i32>],
            &attempts as &[Option<i32>],
            &timeouts as &[Option<i32>],
            &labels,
            &keys as &[Option<String>],
            created_by,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Job::try_from).collect()
    }

    /// The job of an idempotency key, and whether this is the request that it stands for.
    async fn find_by_key(&self, key: &str, new: &NewJob) -> Result<(Uuid, bool), StoreError> {
        let row = sqlx::query!(
            r#"
            select
              id,
              request_hash is not distinct from
                ops_request_hash($2, $3, $4, $5, $6, $7, $8, $9, $10) as "same!"
            from ops_jobs
            where idempotency_key = $1
            "#,
            key,
            new.job_type.as_str(),
            new.payload,
            new.queue.as_str(),
            i32::from(new.priority),
            new.run_at,
            new.ttl_seconds,
            new.max_attempts,
            new.timeout_seconds,
            labels_of(new),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((row.id, row.same))
    }

    async fn require(&self, id: Uuid) -> Result<Job, StoreError> {
        self.get(id).await?.ok_or(StoreError::NotFound(id))
    }
}

fn labels_of(job: &NewJob) -> Value {
    Value::Object(
        job.labels
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect(),
    )
}
