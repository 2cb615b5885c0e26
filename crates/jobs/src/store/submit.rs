//! Recording jobs: one statement for one job or a thousand. A batch is recorded all or none; jobs that different callers
//! ask for at the same time share a statement and nothing else.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{Executor, Postgres};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::persist::Again;
use super::row::JobRow;
use crate::error::StoreError;
use crate::file::Inputs;
use crate::job::{Job, NewJob};
use crate::storable::weight;

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

/// A request to record a job, and who makes it.
pub(super) type Asked = (NewJob, String);
type Lent<'a> = (&'a NewJob, &'a str);
/// `None`: its key is taken.
pub(super) type Recorded = Result<Option<Job>, StoreError>;

impl Store {
    /// Records a job, with its first event, and hints to the runners that it is there. Jobs that are recorded at the same
    /// time are committed together; each has its own answer.
    ///
    /// # Errors
    /// [`StoreError::IdempotencyConflict`] when the key stands for another request.
    pub async fn submit(&self, new: NewJob, created_by: &str) -> Result<Submitted, StoreError> {
        let submitted = self.submit_quietly(new, created_by).await?;
        if let Submitted::Created(job) = &submitted {
            self.hint_at([job]);
        }
        Ok(submitted)
    }

    /// The same without a hint: for whoever tells a runner in another way.
    ///
    /// # Errors
    /// As [`Store::submit`].
    pub async fn submit_quietly(
        &self,
        new: NewJob,
        created_by: &str,
    ) -> Result<Submitted, StoreError> {
        self.submit_with(new, &Inputs::default(), created_by).await
    }

    /// As [`Store::submit_quietly`], and gives the job the files that were uploaded for it, in the same transaction, which it
    /// then shares with no other job.
    ///
    /// # Errors
    /// As [`Store::submit`]; files that no job was recorded for are left to [`Store::discard_files`] or the sweep.
    pub async fn submit_with(
        &self,
        new: NewJob,
        inputs: &Inputs,
        created_by: &str,
    ) -> Result<Submitted, StoreError> {
        if !new.stages.is_empty() {
            return self.submit_staged(&new, inputs, created_by).await;
        }
        // Only a key can be found taken, and then the request is compared.
        let kept = new.idempotency_key.clone().map(|key| (key, new.clone()));
        let recorded = if *inputs == Inputs::default() {
            self.insert_together((new, created_by.to_owned())).await?
        } else {
            self.insert(&[(&new, created_by)], inputs).await?.pop()
        };
        if let Some(job) = recorded {
            return Ok(Submitted::Created(job));
        }
        let Some((key, new)) = kept else {
            return Err(StoreError::Internal(
                "an insert without a key gave no row".into(),
            ));
        };
        let found = self.persist(Again::Always, || self.find_by_key(&key, &new, inputs));
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
        if jobs.iter().any(|job| !job.stages.is_empty()) {
            return self.submit_staged_batch(jobs, created_by).await;
        }
        let asked: Vec<Lent<'_>> = jobs.iter().map(|job| (job, created_by)).collect();
        let recorded = self.insert(&asked, &Inputs::default()).await?;
        self.hint_at(&recorded);
        Ok(recorded)
    }

    async fn insert_together(&self, asked: Asked) -> Recorded {
        let weight = weight(&asked.0.payload);
        let settle = self.serving(|store, asked| async move { store.insert_group(asked).await });
        let recorded = self.submitting.ask(asked, weight, settle).await;
        recorded.unwrap_or_else(|| Err(StoreError::Internal("a group broke down".into())))
    }

    /// Records what is asked for together, but for this: what bears a key may be asked again after any failure, the rest may
    /// not, so they go apart.
    async fn insert_group(&self, asked: Vec<Asked>) -> Vec<Recorded> {
        let asked = asked.iter().map(|(job, by)| (job, by.as_str()));
        let places: Vec<bool> = asked.clone().map(|one| has_key(&one)).collect();
        let (keyed, others): (Vec<Lent<'_>>, Vec<Lent<'_>>) = asked.partition(has_key);
        let (keyed, others) = tokio::join!(self.insert_alike(&keyed), self.insert_alike(&others));
        let (mut keyed, mut others) = (keyed.into_iter(), others.into_iter());
        let next = |has_key| if has_key { keyed.next() } else { others.next() };
        places.into_iter().filter_map(next).collect()
    }

    /// Where they are refused together each is asked for alone, so that one cannot fail the others.
    async fn insert_alike(&self, asked: &[Lent<'_>]) -> Vec<Recorded> {
        if asked.is_empty() {
            return Vec::new();
        }
        match self.insert(asked, &Inputs::default()).await {
            Ok(jobs) => in_their_places(asked, jobs),
            Err(StoreError::Unavailable(cause)) if asked.len() > 1 && !is_contended(&cause) => {
                // Nothing is known of the group, so nothing of it may be asked again here.
                let text = cause.to_string();
                let unavailable = || StoreError::Unavailable(sqlx::Error::Protocol(text.clone()));
                asked.iter().map(|_| Err(unavailable())).collect()
            }
            Err(error) if asked.len() == 1 => vec![Err(error)],
            Err(_) => {
                let alone = asked.chunks(1).map(async |one| {
                    let recorded = self.insert(one, &Inputs::default()).await;
                    recorded.map(|jobs| jobs.into_iter().next())
                });
                join_all(alone).await
            }
        }
    }

    async fn insert(&self, asked: &[Lent<'_>], inputs: &Inputs) -> Result<Vec<Job>, StoreError> {
        // Under a key the second time finds what the first may have recorded.
        let again = if asked.iter().all(has_key) {
            Again::Always
        } else {
            Again::Undone
        };
        self.persist(again, || self.insert_once(asked, inputs))
            .await
    }

    /// With files a job and what it is given are committed together; without, which is nearly always, it is one statement.
    async fn insert_once(
        &self,
        asked: &[Lent<'_>],
        inputs: &Inputs,
    ) -> Result<Vec<Job>, StoreError> {
        if *inputs == Inputs::default() {
            return record(&self.pool, asked, None).await;
        }
        let digest = inputs.digest.as_ref().map(|digest| digest.as_slice());
        let mut transaction = self.pool.begin().await?;
        let jobs = record(&mut *transaction, asked, digest).await?;
        for job in &jobs {
            give(&mut *transaction, job.id, &inputs.ids).await?;
        }
        transaction.commit().await?;
        Ok(jobs)
    }

    /// The job of an idempotency key, and whether this is the request that it stands for.
    async fn find_by_key(
        &self,
        key: &str,
        new: &NewJob,
        inputs: &Inputs,
    ) -> Result<(Uuid, bool), StoreError> {
        let row = sqlx::query!(
            r#"
            select
              id,
              request_hash is not distinct from case
                when $11::bytea is null then ops_request_hash($2, $3, $4, $5, $6, $7, $8, $9, $10)
                else sha256(ops_request_hash($2, $3, $4, $5, $6, $7, $8, $9, $10) || $11)
              end as "same!"
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
            inputs.digest.as_ref().map(|digest| digest.as_slice()) as Option<&[u8]>,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok((row.id, row.same))
    }

    pub(super) async fn require(&self, id: Uuid) -> Result<Job, StoreError> {
        self.get(id).await?.ok_or(StoreError::NotFound(id))
    }
}

/// The jobs that were recorded, in the order in which they were asked for; those whose key is taken are missing.
async fn record(
    connection: impl Executor<'_, Database = Postgres>,
    asked: &[Lent<'_>],
    digest: Option<&[u8]>,
) -> Result<Vec<Job>, StoreError> {
    let jobs = || asked.iter().map(|(job, _)| *job);
    let job_types: Vec<&str> = jobs().map(|job| job.job_type.as_str()).collect();
    let payloads: Vec<Json<&Value>> = jobs().map(|job| Json(&job.payload)).collect();
    let queues: Vec<&str> = jobs().map(|job| job.queue.as_str()).collect();
    let priorities: Vec<i16> = jobs().map(|job| job.priority).collect();
    let run_ats: Vec<Option<OffsetDateTime>> = jobs().map(|job| job.run_at).collect();
    let ttls: Vec<Option<i32>> = jobs().map(|job| job.ttl_seconds).collect();
    let attempts: Vec<Option<i32>> = jobs().map(|job| job.max_attempts).collect();
    let timeouts: Vec<Option<i32>> = jobs().map(|job| job.timeout_seconds).collect();
    let labels: Vec<Json<&BTreeMap<String, String>>> =
        jobs().map(|job| Json(&job.labels)).collect();
    let keys: Vec<Option<&str>> = jobs().map(|job| job.idempotency_key.as_deref()).collect();
    let traceparents: Vec<Option<&str>> = jobs().map(|job| job.traceparent.as_deref()).collect();
    let tracestates: Vec<Option<&str>> = jobs().map(|job| job.tracestate.as_deref()).collect();
    let created_by: Vec<&str> = asked.iter().map(|(_, by)| *by).collect();
    let rows = sqlx::query_as!(
        JobRow,
        r#"
        insert into ops_jobs as r (
          id, job_type, payload, queue, priority, run_at, expires_at, max_attempts, max_attempts_by_type,
          timeout_seconds, labels, idempotency_key, request_hash, created_by, traceparent, tracestate
        )
        select
          ops_uuidv7(), job_type, payload, queue, priority, coalesce(run_at, now()),
          clock_timestamp() + make_interval(secs => ttl_seconds),
          coalesce(max_attempts, 1), max_attempts is null, timeout_seconds, labels, idempotency_key,
          case
            when idempotency_key is null then null
            when $12::bytea is null then
              ops_request_hash(job_type, payload, queue, priority, run_at, ttl_seconds, max_attempts, timeout_seconds, labels)
            else sha256(
              ops_request_hash(job_type, payload, queue, priority, run_at, ttl_seconds, max_attempts, timeout_seconds, labels)
              || $12
            )
          end,
          created_by, traceparent, tracestate
        from unnest(
          $1::text[], $2::jsonb[], $3::text[], $4::smallint[], $5::timestamptz[],
          $6::int[], $7::int[], $8::int[], $9::jsonb[], $10::text[], $11::text[], $13::text[], $14::text[]
        ) with ordinality as a (
          job_type, payload, queue, priority, run_at, ttl_seconds, max_attempts, timeout_seconds, labels,
          idempotency_key, created_by, traceparent, tracestate, ordinal
        )
        order by ordinal
        on conflict (idempotency_key) where idempotency_key is not null do nothing
        -- Rows are given as they are inserted, so in the order of their ordinals.
        returning
          r.id, r.job_type, r.queue, r.status, false as "stalled!", r.priority, r.payload, r.result, r.error,
          r.attempt, r.max_attempts, r.run_at, r.expires_at, r.timeout_seconds, r.idempotency_key, r.labels,
          r.runner_id, r.lease_expires_at, r.heartbeat_at, r.fence, r.progress, r.abort_requested_at,
          r.dead_lettered_at, r.created_by, r.created_at, r.started_at, r.finished_at, r.updated_at, r.stage_no, r.stage_type,
          false as "beyond!"
        "#,
        &job_types as &[&str],
        &payloads as &[Json<&Value>],
        &queues as &[&str],
        &priorities,
        &run_ats as &[Option<OffsetDateTime>],
        &ttls as &[Option<i32>],
        &attempts as &[Option<i32>],
        &timeouts as &[Option<i32>],
        &labels as &[Json<&BTreeMap<String, String>>],
        &keys as &[Option<&str>],
        &created_by as &[&str],
        digest as Option<&[u8]>,
        &traceparents as &[Option<&str>],
        &tracestates as &[Option<&str>],
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Job::try_from).collect()
}

/// Makes files that were uploaded the input of a job.
pub(super) async fn give(
    connection: impl Executor<'_, Database = Postgres>,
    job: Uuid,
    files: &[Uuid],
) -> Result<(), StoreError> {
    sqlx::query!(
        "update ops_files f set job_id = $1 where f.id = any($2) and f.kind = 'input' and f.job_id is null",
        job,
        files,
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn has_key((job, _): &Lent<'_>) -> bool {
    job.idempotency_key.is_some()
}

/// A key that another transaction holds, or a lock: the statement was taken back, and is worth another try without the others.
pub(super) fn is_contended(cause: &sqlx::Error) -> bool {
    matches!(cause, sqlx::Error::Database(refused) if refused.code().as_deref() == Some("55P03"))
}

/// The recorded jobs come in the order in which they were asked for; those whose key is taken are missing.
fn in_their_places(asked: &[Lent<'_>], jobs: Vec<Job>) -> Vec<Recorded> {
    let mut jobs = jobs.into_iter().peekable();
    let recorded =
        |(new, _): &Lent<'_>| Ok(jobs.next_if(|job| job.idempotency_key == new.idempotency_key));
    asked.iter().map(recorded).collect()
}

pub(super) fn labels_of(job: &NewJob) -> Value {
    Value::Object(
        job.labels
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect(),
    )
}
