//! Hints that work has arrived, by NOTIFY: after the commit, in a statement of their own, and many as one. A hint that is
//! lost costs a poll interval and nothing else.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::time::timeout;

use super::Store;
use crate::error::StoreError;
use crate::job::Job;
use crate::state::Status;

/// Also what a person types: `notify ops_jobs`.
const CHANNEL: &str = "ops_jobs";
/// After a hint the next one waits so long: a busy system needs few.
const PAUSE: Duration = Duration::from_millis(2);
/// A hint is worth no longer wait.
const PATIENCE: Duration = Duration::from_secs(1);
/// A connection that is silent for so long is asked whether it lives.
const SILENCE: Duration = Duration::from_secs(30);

impl Store {
    /// Tells runners that these are there, if any is due. Nobody waits for it.
    pub(super) fn hint_at<'job>(&self, jobs: impl IntoIterator<Item = &'job Job>) {
        let is_due = |job: &Job| job.status == Status::Queued && job.run_at <= job.created_at;
        if !jobs.into_iter().any(is_due) {
            return;
        }
        let settle = self.serving(|store, asked| async move {
            store.notify().await;
            tokio::time::sleep(PAUSE).await;
            asked
        });
        self.hinting.tell((), settle);
    }

    async fn notify(&self) {
        // It writes nothing, so its commit need not be on disk; who listens hears of it all the same.
        let said = sqlx::query!(
            "select set_config('synchronous_commit', 'off', true), pg_notify($1, '') is null as told",
            CHANNEL,
        )
        .fetch_one(&self.pool);
        match timeout(PATIENCE, said).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(event = "hint_lost", %error),
            Err(_) => tracing::debug!(event = "hint_lost", "no answer in time"),
        }
    }

    /// Listens for hints, on a connection of its own; `None` where there is only a pooler that lends no session, and no
    /// `direct` address was given.
    ///
    /// # Errors
    /// When the database does not answer, or the address is none.
    pub async fn listen(&self, direct: Option<&str>) -> Result<Option<Hints>, StoreError> {
        let connect = match direct {
            Some(url) => Some(url.parse::<PgConnectOptions>().map_err(|_| {
                StoreError::Refused("the direct address is not one of PostgreSQL".to_owned())
            })?),
            None => self.direct.clone(),
        };
        let Some(connect) = connect else {
            return Ok(None);
        };
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE * 2)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(connect.application_name("ops-jobs hints"));
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(Some(Hints { listener }))
    }
}

/// Hints as they come.
#[derive(Debug)]
pub struct Hints {
    listener: PgListener,
}

impl Hints {
    /// Ends with the next hint, or with several that have come meanwhile.
    ///
    /// # Errors
    /// When the connection is gone: listen anew, and look once, because hints may have been missed.
    pub async fn heard(&mut self) -> Result<(), StoreError> {
        loop {
            match timeout(SILENCE, self.listener.try_recv()).await {
                Ok(Ok(Some(_))) => break,
                Ok(Ok(None)) => return Err(StoreError::Unavailable(sqlx::Error::PoolClosed)),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => self.is_alive().await?,
            }
        }
        while let Some(_more) = self.listener.next_buffered() {}
        Ok(())
    }

    /// A connection may have died without a word.
    async fn is_alive(&mut self) -> Result<(), StoreError> {
        let asked = sqlx::query!("select 1 as one").fetch_one(&mut self.listener);
        match timeout(PATIENCE, asked).await {
            Ok(answer) => Ok(answer.map(drop)?),
            Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }
}
