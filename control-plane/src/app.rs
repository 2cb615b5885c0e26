//! What every handler may reach: the store, the runner, the flags, and what was read at the start. Holds no state of jobs.

use std::time::Duration;

use axum::body::Bytes;
use jobs::{Job, Name, Pooler, Store, StoreError, StoreOptions};
use service::{Flag, Flags, Problem};
use uuid::Uuid;

use crate::api::openapi;
use crate::config::Config;
use crate::cursor::Cursors;
use crate::error::{self, StartError};
use crate::runner_client::{RunnerClient, TriggerAnswer};

/// Longer than this, nobody waits for the database: a 503 must be there within 3 s.
pub(crate) const DATABASE_DEADLINE: Duration = Duration::from_millis(2800);

/// What handlers share; only read after the start.
pub(crate) struct App {
    /// The jobs.
    pub(crate) store: Store,
    /// Where triggers go; there whenever `RUNNER_ENABLED` is on.
    pub(crate) runner: Option<RunnerClient>,
    /// Signs where a list goes on.
    pub(crate) cursors: Cursors,
    /// The API's description, without what is behind flags that are off.
    pub(crate) openapi: Bytes,
    /// What the program was told.
    pub(crate) config: Config,
}

impl App {
    /// Prepares everything; connects to nothing.
    pub(crate) fn new(config: Config) -> Result<Self, StartError> {
        let url = config.shared.database_url.expose().to_owned();
        let options = StoreOptions {
            pooler: match config.shared.pooler {
                service::Pooler::None => Pooler::None,
                service::Pooler::Transaction => Pooler::Transaction,
            },
            ..StoreOptions::new(url, config.shared.database_max_connections, "control-plane")
        };
        Ok(Self {
            store: Store::new(&options).map_err(StartError::Store)?,
            runner: config
                .runner
                .as_ref()
                .map(RunnerClient::new)
                .transpose()
                .map_err(StartError::RunnerClient)?,
            cursors: Cursors::new(&config.secret_key),
            openapi: Bytes::from(openapi::served(&config).to_string()),
            config,
        })
    }

    /// Which features are on.
    pub(crate) fn flags(&self) -> Flags {
        self.config.shared.flags
    }

    /// Refuses a job type whose flag is off.
    pub(crate) fn check_flag_of(&self, job_type: &Name) -> Result<(), Problem> {
        match Flag::of_job_type(job_type.as_str()) {
            Some(flag) if !self.flags().is_on(flag) => Err(Problem::forbidden(format!(
                "The job type {job_type} is behind the flag {}, which is off.",
                flag.name()
            ))
            .with_member("flag", flag.name())),
            Some(_) | None => Ok(()),
        }
    }

    /// Puts what a trigger came to on record; where that fails, the job is none the worse for it.
    pub(crate) async fn note_trigger(&self, id: Uuid, answer: &TriggerAnswer) {
        // Whatever goes wrong is in the log by then.
        let _ = ask(self.store.note_trigger(id, &answer.to_string())).await;
    }

    /// The job, or 404.
    pub(crate) async fn job(&self, id: Uuid) -> Result<Job, Problem> {
        let job = ask(self.store.get_with(id, self.config.stall_after)).await?;
        job.ok_or_else(error::no_such_job)
    }
}

/// Waits for the store, but not for ever, and turns what it says into what the client hears.
pub(crate) async fn ask<T>(
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(DATABASE_DEADLINE, call).await {
        Ok(answer) => answer.map_err(error::problem_of),
        Err(_) => {
            tracing::warn!(
                event = "database_unavailable",
                cause = "no answer within the deadline"
            );
            Err(error::unavailable())
        }
    }
}
