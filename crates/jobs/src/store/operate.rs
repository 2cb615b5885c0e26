//! What people and callers ask of a job that exists: abort, retry, resume; and the control plane's refusal on a runner's word.

use sqlx::postgres::PgDatabaseError;
use uuid::Uuid;

use super::Store;
use super::persist::Again;
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

/// What a person asks for, by a function of the schema.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Abort,
    Retry,
    RetryFromStart,
    Resume,
}

/// Where the retry of a job with stages begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetryFrom {
    /// At the stage that failed, or was aborted; those before it keep their results.
    #[default]
    FailedStage,
    /// At the first.
    Start,
}

impl Wish {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Retry => "retry",
            Self::RetryFromStart => "retry_from_start",
            Self::Resume => "resume",
        }
    }
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
        let answer = self.ask(Wish::Abort, id, actor, reason).await?;
        Ok(if answer == "aborted" {
            AbortAnswer::Aborted
        } else {
            AbortAnswer::Requested
        })
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
        self.retry_from(id, RetryFrom::default(), actor, reason)
            .await
    }

    /// As [`Store::retry`], and says where a job with stages begins.
    ///
    /// # Errors
    /// As [`Store::retry`].
    pub async fn retry_from(
        &self,
        id: Uuid,
        from: RetryFrom,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        let wish = match from {
            RetryFrom::FailedStage => Wish::Retry,
            RetryFrom::Start => Wish::RetryFromStart,
        };
        self.ask(wish, id, actor, reason).await.map(drop)
    }

    /// Lets a job go on that waits: held after its runner was lost (with one more attempt if none was left), or rejected
    /// at a gate (the stage is run again).
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::WrongStatus`] when it is neither.
    pub async fn resume(
        &self,
        id: Uuid,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        self.ask(Wish::Resume, id, actor, reason).await.map(drop)
    }

    async fn ask(
        &self,
        wish: Wish,
        id: Uuid,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<String, StoreError> {
        // Not after a connection that broke: it may have been done, and would then be refused.
        self.persist(Again::Undone, || self.ask_once(wish, id, actor, reason))
            .await
    }

    async fn ask_once(
        &self,
        wish: Wish,
        id: Uuid,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<String, StoreError> {
        let answer = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select case $4
              when 'abort' then ops_abort($2, $3)
              when 'retry' then ops_retry($2, $3)
              when 'retry_from_start' then ops_retry($2, $3, from_start => true)
              when 'resume' then ops_resume($2, $3)
            end as "answer!"
            from acting
            where actor is not null
            "#,
            actor,
            id,
            reason,
            wish.as_str(),
        )
        .fetch_one(&self.pool)
        .await;
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.explain(id, error).await),
        }
    }

    /// Fails a queued job because the runner refused it; `false` when it is not queued any more (somebody took it meanwhile).
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refuse(&self, id: Uuid, actor: &str, why: &str) -> Result<bool, StoreError> {
        self.persist(Again::Undone, || self.refuse_once(id, actor, why))
            .await
    }

    async fn refuse_once(&self, id: Uuid, actor: &str, why: &str) -> Result<bool, StoreError> {
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

    /// Fails a queued job because the runner does not take its type; `false` when it is not queued any more, or another
    /// runner that lives takes the type.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refuse_type(&self, id: Uuid, actor: &str, why: &str) -> Result<bool, StoreError> {
        self.persist(Again::Undone, || self.refuse_type_once(id, actor, why))
            .await
    }

    async fn refuse_type_once(&self, id: Uuid, actor: &str, why: &str) -> Result<bool, StoreError> {
        let refused = sqlx::query!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            update ops_jobs j
            set status = 'failed', error = $3
            from acting a
            where j.id = $2
              and j.status = 'queued'
              and a.actor is not null
              and not exists (
                select from ops_runners r
                where coalesce(j.stage_type, j.job_type) = any(r.job_types)
                  and not r.draining
                  and r.last_seen_at > clock_timestamp() - interval '1 minute'
              )
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
        // What may have been noted is not noted twice.
        self.persist(Again::Undone, || self.note_once(id, actor, kind, data))
            .await
    }

    async fn note_once(
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

pub(super) fn code_of(error: &sqlx::Error) -> Option<&str> {
    error
        .as_database_error()
        .and_then(|db| db.try_downcast_ref::<PgDatabaseError>())
        .map(PgDatabaseError::code)
}
