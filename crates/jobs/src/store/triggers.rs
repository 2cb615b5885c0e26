//! What the control plane's triggers came to. A trigger is a hint: nothing here moves a job.

use uuid::Uuid;

use super::Store;
use crate::error::StoreError;

/// So many due jobs are looked at for the one to trigger for.
const CANDIDATES: i64 = 100;

impl Store {
    /// The due job that a tick triggers for: of the first in claiming order, the one that was least recently asked for.
    /// Jobs of the types in `except` are left out, and those with stages unless `stages`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn next_to_trigger(
        &self,
        except: &[&str],
        stages: bool,
    ) -> Result<Option<Uuid>, StoreError> {
        let except: Vec<String> = except.iter().map(|&name| name.to_owned()).collect();
        let id = sqlx::query_scalar!(
            r#"
            with placed as (
              select j.id, j.last_trigger_at, j.claim_order
              from ops_jobs j
              where j.status = 'queued'
                and j.claim_order is not null
                and j.run_at <= now()
                and (j.expires_at is null or j.expires_at > now())
                and coalesce(j.stage_type, j.job_type) <> all($1)
                and (j.stage_no is null or $3)
              order by j.claim_order, j.id
              limit $2
            ),
            -- Those that have just fallen due: runners give them their place at the next claim.
            fallen as (
              select j.id, j.last_trigger_at, j.run_at - j.priority * interval '5 minutes' as claim_order
              from ops_jobs j
              where j.status = 'queued'
                and j.claim_order is null
                and j.run_at <= now()
                and (j.expires_at is null or j.expires_at > now())
                and coalesce(j.stage_type, j.job_type) <> all($1)
                and (j.stage_no is null or $3)
              order by j.run_at, j.id
              limit $2
            ),
            first as (
              select c.* from (select * from placed union all select * from fallen) c
              order by c.claim_order, c.id
              limit $2
            )
            select f.id as "id!"
            from first f
            order by f.last_trigger_at nulls first, f.claim_order, f.id
            limit 1
            "#,
            &except,
            CANDIDATES,
            stages,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(id)
    }

    /// Notes with the job that a runner was asked to take it, and what came of that.
    ///
    /// # Errors
    /// When the database does not answer; the trigger is then not on record.
    pub async fn note_trigger(&self, id: Uuid, outcome: &str) -> Result<(), StoreError> {
        sqlx::query!(
            "update ops_jobs set last_trigger_at = clock_timestamp(), last_trigger_outcome = $2 where id = $1",
            id,
            outcome,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
