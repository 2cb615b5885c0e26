//! What people and callers ask of a job that exists: abort, retry, resume; and the control plane's refusal on a runner's word.

use sqlx::postgres::PgDatabaseError;
use uuid::Uuid;

use super::Store;
use crate::error::StoreError;
use crate::state::Status;

/// The answer to an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortAnswer {
    /// It had not begun: it is aborted.
    Aborted,
    /// It runs: its runner was asked to stop it.
    Requested,
}

impl Store {
    /// Stops a job: at once where it is not running, else by its runner at the next renewal.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::WrongStatus`] when it has ended.
    pub async fn abort(
        &self,
        id: Uuid,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<AbortAnswer, StoreError> {
        let answer = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_abort($2, $3) as "answer!" from acting where actor is not null
            "#,
            actor,
            id,
            reason,
        )
        .fetch_one(&self.pool)
        .await;
        match answer {
            Ok(answer) if answer == "aborted" => Ok(AbortAnswer::Aborted),
            Ok(_) => Ok(AbortAnswer::Requested),
            Err(error) => Err(self.explain(id, error).await),
        }
    }

    /// Queues a failed or aborted job again with a fresh attempt budget.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::WrongStatus`] when it has not failed or been aborted.
    pub async fn retry(
        &self,
        id: Uuid,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let answer = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_retry($2, $3) as "answer!" from acting where actor is not null
            "#,
            actor,
            id,
            reason,
        )
        .fetch_one(&self.pool)
        .await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(id, error).await),
        }
    }

    /// Lets a held job go on: queued again, with one more attempt if none was left.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::WrongStatus`] when it is not held.
    pub async fn resume(
        &self,
        id: Uuid,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let answer = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_resume($2, $3) as "answer!" from acting where actor is not null
            "#,
            actor,
            id,
            reason,
        )
        .fetch_one(&self.pool)
        .await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(id, error).await),
        }
    }

    /// Fails a queued job because the runner refused it; `false` when it is not queued any more (somebody took it meanwhile).
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refuse(&self, id: Uuid, actor: &str, why: &str) -> Result<bool, StoreError> {
        let refused = sqlx::query!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            update ops_jobs j
            set status = 'failed', error = $3
            from acting a
            where j.id = $2 and j.status = 'queued' and a.actor is not null
            "#,
            actor,
            id,
            why,
        )
        .execute(&self.pool)
        .await?;
        Ok(refused.rows_affected() == 1)
    }

    /// Notes something about a job that is no transition; `kind` is a word of ours.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] for a kind that only a transition writes.
    pub async fn note(
        &self,
        id: Uuid,
        actor: &str,
        kind: &str,
        data: &serde_json::Value,
    ) -> Result<(), StoreError> {
        let noted = sqlx::query!(
            "insert into ops_job_events (job_id, kind, actor, data) values ($1, $2, $3, $4)",
            id,
            kind,
            actor,
            data,
        )
        .execute(&self.pool)
        .await;
        match noted {
            Ok(_) => Ok(()),
            Err(error) if code_of(&error) == Some("P0002") => Err(StoreError::NotFound(id)),
            Err(error) => Err(error.into()),
        }
    }

    /// Names the reason for which ops_abort, ops_retry or ops_resume said no.
    async fn explain(&self, id: Uuid, error: sqlx::Error) -> StoreError {
        match code_of(&error) {
            Some("P0002") => StoreError::NotFound(id),
            Some("23514") => match self.status_of(id).await {
                Ok(Some(status)) => StoreError::WrongStatus { job_id: id, status },
                Ok(None) => StoreError::NotFound(id),
                Err(error) => error,
            },
            _ => error.into(),
        }
    }

    pub(super) async fn status_of(&self, id: Uuid) -> Result<Option<Status>, StoreError> {
        let word = sqlx::query_scalar!("select status from ops_jobs where id = $1", id)
            .fetch_optional(&self.pool)
            .await?;
        word.map(|word| super::row::parsed(&word, "status", id))
            .transpose()
    }
}

fn code_of(error: &sqlx::Error) -> Option<&str> {
    error
        .as_database_error()
        .and_then(|db| db.try_downcast_ref::<PgDatabaseError>())
        .map(PgDatabaseError::code)
}
