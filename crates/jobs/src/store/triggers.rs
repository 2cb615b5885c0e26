//! What the control plane's triggers came to. A trigger is a hint: nothing here moves a job.

use uuid::Uuid;

use super::Store;
use crate::error::StoreError;

/// So many due jobs are looked at for the one to trigger for.
const CANDIDATES: i64 = 100;

impl Store {
    /// The due job that a tick triggers for: of the first in claiming order, the one that was least recently asked for.
    /// Jobs of the types in `except` are left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn next_to_trigger(&self, except: &[&str]) -> Result<Option<Uuid>, StoreError> {
        let except: Vec<String> = except.iter().map(|&name| name.to_owned()).collect();
        let id = sqlx::query_scalar!(
            r#"
            select d.id
            from (
              select j.id, j.last_trigger_at, row_number() over () as place
              from (
                select j.id, j.last_trigger_at
                from ops_jobs j
                where j.status = 'queued'
                  and j.run_at <= now()
                  and (j.expires_at is null or j.expires_at > now())
                  and j.job_type <> all($1)
                order by j.priority desc, j.run_at, j.id
                limit $2
              ) j
            ) d
            order by d.last_trigger_at nulls first, d.place
            limit 1
            "#,
            &except,
            CANDIDATES,
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
