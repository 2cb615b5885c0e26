//! Jobs with stages: recorded by the same function that psql has, and read back with what became of each stage.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::persist::Again;
use super::row::parsed;
use super::submit::{Submitted, give, labels_of};
use crate::error::StoreError;
use crate::file::Inputs;
use crate::job::{Job, NewJob};
use crate::stage::{Part, Stage, StageAtWork};

/// What a claim is, and the payload that goes with it.
pub(super) fn part(
    id: Uuid,
    stage_no: Option<i32>,
    stage: Option<Value>,
    payload: Value,
) -> Result<(Part, Value), StoreError> {
    let Some(no) = stage_no else {
        return Ok((Part::Whole, payload));
    };
    let Some(Value::Object(mut stage)) = stage else {
        return Ok((Part::End, payload));
    };
    let own_payload = stage.remove("payload").filter(|value| !value.is_null());
    let name = stage.get("name").and_then(Value::as_str).unwrap_or("");
    let attempt = stage.get("attempt").and_then(Value::as_i64).unwrap_or(1);
    let at_work = StageAtWork {
        no,
        name: parsed(name, "stage", id)?,
        attempt: i32::try_from(attempt).unwrap_or(i32::MAX),
        earlier: stage.remove("earlier").unwrap_or_default(),
    };
    Ok((Part::Stage(at_work), own_payload.unwrap_or(payload)))
}

fn stages_of(job: &NewJob) -> Result<Option<Value>, StoreError> {
    if job.stages.is_empty() {
        return Ok(None);
    }
    serde_json::to_value(&job.stages)
        .map(Some)
        .map_err(|error| StoreError::Internal(error.into()))
}

impl Store {
    pub(super) async fn submit_staged(
        &self,
        new: &NewJob,
        inputs: &Inputs,
        created_by: &str,
    ) -> Result<Submitted, StoreError> {
        if new.idempotency_key.is_some() && !inputs.ids.is_empty() {
            return Err(StoreError::Refused(
                "a job with stages and files takes no idempotency key".to_owned(),
            ));
        }
        let again = if new.idempotency_key.is_some() {
            Again::Always
        } else {
            Again::Undone
        };
        let recorded = self
            .persist(again, || self.submit_staged_once(new, inputs, created_by))
            .await;
        let (id, is_new) = match recorded {
            Ok(recorded) => recorded,
            Err(StoreError::Refused(why)) => {
                return Err(match self.of_key(new).await? {
                    Some(id) => StoreError::IdempotencyConflict(id),
                    None => StoreError::Refused(why),
                });
            }
            Err(error) => return Err(error),
        };
        let job = self.require(id).await?;
        Ok(if is_new {
            self.hint_at([&job]);
            Submitted::Created(job)
        } else {
            Submitted::Replayed(job)
        })
    }

    /// The job, and whether this transaction recorded it.
    async fn submit_staged_once(
        &self,
        new: &NewJob,
        inputs: &Inputs,
        created_by: &str,
    ) -> Result<(Uuid, bool), StoreError> {
        let stages = stages_of(new)?;
        let mut transaction = self.pool.begin().await?;
        let id = sqlx::query_scalar!(
            r#"
            with acting as materialized (
              select
                set_config('ops.actor', $1, true) as actor,
                set_config('ops.traceparent', coalesce($13, ''), true) as traceparent,
                set_config('ops.tracestate', coalesce($14, ''), true) as tracestate
            )
            select ops_enqueue(
              $2, $3, queue => $4, priority => $5, run_at => $6, ttl_seconds => $7, max_attempts => $8,
              timeout_seconds => $9, labels => $10, idempotency_key => $11, stages => $12
            ) as "id!"
            from acting
            where actor is not null and traceparent is not null and tracestate is not null
            "#,
            created_by,
            new.job_type.as_str(),
            new.payload,
            new.queue.as_str(),
            i32::from(new.priority),
            new.run_at,
            new.ttl_seconds,
            new.max_attempts,
            new.timeout_seconds,
            labels_of(new),
            new.idempotency_key,
            stages,
            new.traceparent.as_deref() as Option<&str>,
            new.tracestate.as_deref() as Option<&str>,
        )
        .fetch_one(&mut *transaction)
        .await?;
        if !inputs.ids.is_empty() {
            give(&mut *transaction, id, &inputs.ids).await?;
        }
        let is_new = sqlx::query_scalar!(
            r#"select xmin::text = pg_current_xact_id()::xid::text as "is_new!" from ops_jobs where id = $1"#,
            id,
        )
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok((id, is_new))
    }

    async fn of_key(&self, new: &NewJob) -> Result<Option<Uuid>, StoreError> {
        let Some(key) = &new.idempotency_key else {
            return Ok(None);
        };
        Ok(
            sqlx::query_scalar!("select id from ops_jobs where idempotency_key = $1", key)
                .fetch_optional(&self.pool)
                .await?,
        )
    }

    /// One statement, so that a batch is recorded whole or not at all.
    pub(super) async fn submit_staged_batch(
        &self,
        jobs: &[NewJob],
        created_by: &str,
    ) -> Result<Vec<Job>, StoreError> {
        let ids = self
            .persist(Again::Undone, || {
                self.submit_staged_batch_once(jobs, created_by)
            })
            .await?;
        let filter = super::JobFilter {
            limit: i64::try_from(ids.len()).unwrap_or(i64::MAX),
            ids: Some(ids.clone()),
            ..super::JobFilter::default()
        };
        let mut found = Vec::with_capacity(ids.len());
        let mut before = None;
        // A page is bounded by bytes too.
        loop {
            let page = self
                .list(&super::JobFilter {
                    before,
                    ..filter.clone()
                })
                .await?;
            found.extend(page.jobs);
            match page.next {
                Some(last) => before = Some(last),
                None => break,
            }
        }
        found.sort_by_key(|job| ids.iter().position(|id| *id == job.id));
        self.hint_at(&found);
        Ok(found)
    }

    async fn submit_staged_batch_once(
        &self,
        jobs: &[NewJob],
        created_by: &str,
    ) -> Result<Vec<Uuid>, StoreError> {
        let job_types: Vec<String> = jobs.iter().map(|job| job.job_type.to_string()).collect();
        let payloads: Vec<Value> = jobs.iter().map(|job| job.payload.clone()).collect();
        let queues: Vec<String> = jobs.iter().map(|job| job.queue.to_string()).collect();
        let priorities: Vec<i32> = jobs.iter().map(|job| i32::from(job.priority)).collect();
        let run_ats: Vec<Option<OffsetDateTime>> = jobs.iter().map(|job| job.run_at).collect();
        let ttls: Vec<Option<i32>> = jobs.iter().map(|job| job.ttl_seconds).collect();
        let attempts: Vec<Option<i32>> = jobs.iter().map(|job| job.max_attempts).collect();
        let timeouts: Vec<Option<i32>> = jobs.iter().map(|job| job.timeout_seconds).collect();
        let labels: Vec<Value> = jobs.iter().map(labels_of).collect();
        let stages = jobs
            .iter()
            .map(stages_of)
            .collect::<Result<Vec<Option<Value>>, _>>()?;
        let rows = sqlx::query_scalar!(
            r#"
            with acting as materialized (
              select
                set_config('ops.actor', $1, true) as actor,
                set_config('ops.traceparent', coalesce($12, ''), true) as traceparent,
                set_config('ops.tracestate', coalesce($13, ''), true) as tracestate
            )
            select ops_enqueue(
              a.job_type, a.payload, queue => a.queue, priority => a.priority, run_at => a.run_at,
              ttl_seconds => a.ttl_seconds, max_attempts => a.max_attempts, timeout_seconds => a.timeout_seconds,
              labels => a.labels, stages => a.stages
            ) as "id!"
            from acting, unnest(
              $2::text[], $3::jsonb[], $4::text[], $5::int[], $6::timestamptz[], $7::int[], $8::int[], $9::int[],
              $10::jsonb[], $11::jsonb[]
            ) as a (
              job_type, payload, queue, priority, run_at, ttl_seconds, max_attempts, timeout_seconds, labels, stages
            )
            where acting.actor is not null and acting.traceparent is not null and acting.tracestate is not null
            "#,
            created_by,
            &job_types,
            &payloads,
            &queues,
            &priorities,
            &run_ats as &[Option<OffsetDateTime>],
            &ttls as &[Option<i32>],
            &attempts as &[Option<i32>],
            &timeouts as &[Option<i32>],
            &labels,
            &stages as &[Option<Value>],
            // One request has one cause.
            jobs.first().and_then(|job| job.traceparent.as_deref()) as Option<&str>,
            jobs.first().and_then(|job| job.tracestate.as_deref()) as Option<&str>,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }

    /// The stages of a job, in order; none for a job without.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn stages(&self, id: Uuid) -> Result<Vec<Stage>, StoreError> {
        self.persist(Again::Always, || self.stages_once(id)).await
    }

    async fn stages_once(&self, id: Uuid) -> Result<Vec<Stage>, StoreError> {
        let rows = sqlx::query_as!(
            Stage,
            r#"
            select
              s.stage_no as no, s.name, s.job_type, coalesce(s.payload, j.payload) as "payload!", s.gate, s.status, s.result,
              s.error, s.attempts, s.first_fence, s.last_fence, s.started_at, s.finished_at
            from ops_job_stages s
            join ops_jobs j on j.id = s.job_id
            where s.job_id = $1
            order by s.stage_no
            "#,
            id,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }
}
