//! What every handler may reach: the store, the runner, the flags, and what was read at the start. Holds no state of jobs.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use files::{Depot, Place, S3};
use jobs::{Job, Name, NewJob, Pooler, Store, StoreError, StoreOptions};
use notion::Publisher;
use service::metrics::Metrics;
use service::trace::{Carried, Role, Span, Tracing};
use service::{ArtifactStore, Flag, Flags, Guard, Keeper, Problem, Stop};
use uuid::Uuid;
use webhooks::{Sender, SigningKeys, derived_signing_key};

use crate::api::openapi;
use crate::config::Config;
use crate::cursor::Cursors;
use crate::error::{self, StartError};
use crate::gate_links::Links;
use crate::keys::Keys;
use crate::live::Live;
use crate::runner_client::{RunnerClient, TriggerAnswer};

/// Longer than this, nobody waits for the database: a 503 must be there within 3 s.
pub(crate) const DATABASE_DEADLINE: Duration = Duration::from_millis(2500);

/// What handlers share; only read after the start.
pub(crate) struct App {
    /// The jobs.
    pub(crate) store: Store,
    /// What is watched of them.
    pub(crate) live: Live,
    /// Their files.
    pub(crate) depot: Depot,
    /// Where triggers go; there whenever `RUNNER_ENABLED` is on.
    pub(crate) runner: Option<RunnerClient>,
    /// Signs where a list goes on.
    pub(crate) cursors: Cursors,
    /// Signs links that decide one gate.
    pub(crate) links: Links,
    /// Sends webhooks at each tick.
    pub(crate) webhooks: Sender,
    /// Publishes outcomes to Notion at each tick; there whenever `NOTION_ENABLED` is on.
    pub(crate) notion: Option<Publisher>,
    /// The API's description, without what is behind flags that are off.
    pub(crate) openapi: Bytes,
    /// What it counts of itself; there whenever `FEATURE_METRICS` is on.
    pub(crate) metrics: Option<Metrics>,
    /// Makes its spans.
    pub(crate) tracing: Tracing,
    /// Requested once the program is about to leave: it still serves, but is not ready any more.
    pub(crate) leaving: Stop,
    /// The keys that the database keeps.
    pub(crate) keys: Arc<Keys>,
    /// Lets in who bears one of those, or one of the settings.
    pub(crate) guard: Guard,
    /// What the program was told.
    pub(crate) config: Config,
}

impl App {
    /// Prepares everything; connects to nothing.
    pub(crate) fn new(config: Config, leaving: Stop) -> Result<Self, StartError> {
        let url = config.shared.database_url.expose().to_owned();
        let options = StoreOptions {
            pooler: match config.shared.pooler {
                service::Pooler::None => Pooler::None,
                service::Pooler::Transaction => Pooler::Transaction,
            },
            ..StoreOptions::new(url, config.shared.database_max_connections, "control-plane")
        };
        let store = Store::new(&options).map_err(StartError::Store)?;
        let place = place_of(&config.shared.artifact_store);
        let signing = signing_keys(&config);
        let sender = Sender::new(store.clone(), signing, config.webhooks.egress.clone());
        let keys = Keys::new(store.clone());
        let keeper: Arc<dyn Keeper> = Arc::clone(&keys) as _;
        let guard = Guard::ops_key_with(
            config.ops_keys.clone(),
            Some(keeper),
            config.shared.auth_failures_per_minute,
        );
        Ok(Self {
            webhooks: sender.map_err(StartError::WebhookClient)?,
            notion: config
                .notion
                .clone()
                .map(|settings| Publisher::new(store.clone(), settings))
                .transpose()
                .map_err(StartError::NotionClient)?,
            depot: Depot::open(store.clone(), &place).map_err(StartError::Files)?,
            store,
            live: Live::new(config.limits.streams),
            runner: config
                .runner
                .as_ref()
                .map(RunnerClient::new)
                .transpose()
                .map_err(StartError::RunnerClient)?,
            cursors: Cursors::new(&config.secret_key),
            links: Links::new(&config.secret_key),
            metrics: config
                .shared
                .flags
                .is_on(Flag::Metrics)
                .then(|| Metrics::new("control-plane", env!("CARGO_PKG_VERSION")))
                .transpose()
                .map_err(StartError::Metrics)?,
            tracing: Tracing::start(
                &config.shared.traces,
                "control-plane",
                env!("CARGO_PKG_VERSION"),
            )
            .map_err(StartError::Traces)?,
            openapi: Bytes::from(openapi::served(&config).to_string()),
            leaving,
            keys,
            guard,
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

    /// Refuses a job of which any part is switched off.
    pub(crate) fn check_flags_of(&self, new: &NewJob) -> Result<(), Problem> {
        self.check_flag_of(&new.job_type)?;
        if !new.stages.is_empty() && !self.flags().is_on(Flag::Gates) {
            let name = Flag::Gates.name();
            return Err(Problem::forbidden(format!(
                "Jobs with stages are behind the flag {name}, which is off."
            ))
            .with_member("flag", name));
        }
        new.stages
            .iter()
            .filter_map(|stage| stage.job_type.as_ref())
            .try_for_each(|job_type| self.check_flag_of(job_type))
    }

    /// Begins the span of recording jobs, and has each of them bear it, so that its attempts are children of it.
    pub(crate) fn causing(&self, cause: Option<&Carried>, new: &mut [NewJob]) -> Span {
        let mut span = self.tracing.begin(Role::Producer, cause, || {
            let queue = new.first().map_or("", |job| job.queue.as_str()).to_owned();
            let name = format!("send {queue}");
            let attributes = [
                ("messaging.system", "ops_jobs".into()),
                ("messaging.operation.type", "send".into()),
                ("messaging.operation.name", "send".into()),
                ("messaging.destination.name", queue.into()),
            ];
            (name, attributes)
        });
        if let [_, _, ..] = new {
            let count = i64::try_from(new.len()).unwrap_or(i64::MAX);
            span.set("messaging.batch.message_count", count);
        }
        if let Some(carried) = span.carried() {
            for job in new {
                job.traceparent = Some(carried.traceparent.clone());
                job.tracestate.clone_from(&carried.tracestate);
            }
        }
        span
    }

    /// Puts what a trigger came to on record; where that fails, the job is none the worse for it.
    pub(crate) async fn note_trigger(&self, id: Uuid, answer: &TriggerAnswer) {
        // Whatever goes wrong is in the log by then.
        let _ = ask(self.store.note_trigger(id, &answer.to_string())).await;
        self.live.changed(id);
    }

    /// The job, or 404.
    pub(crate) async fn job(&self, id: Uuid) -> Result<Job, Problem> {
        let job = ask(self.store.get_with(id, self.config.stall_after)).await?;
        job.ok_or_else(error::no_such_job)
    }
}

/// What webhooks are signed with: what was set for it, else what follows from `SECRET_KEY`.
fn signing_keys(config: &Config) -> SigningKeys {
    let set = SigningKeys::new(config.webhooks.signing_keys.clone());
    set.unwrap_or_else(|| SigningKeys::one(derived_signing_key(&config.secret_key)))
}

/// Where files are kept, as the library of files has it.
pub fn place_of(setting: &ArtifactStore) -> Place {
    match setting {
        ArtifactStore::Postgres => Place::Postgres,
        ArtifactStore::Folder(folder) => Place::Folder(folder.clone()),
        ArtifactStore::Bucket(bucket) => {
            let keys = bucket.keys.as_ref();
            Place::S3(S3 {
                bucket: bucket.name.clone(),
                prefix: bucket.prefix.clone(),
                region: bucket.region.clone(),
                endpoint: bucket.endpoint.as_ref().map(ToString::to_string),
                access_key_id: keys.map(|(id, _)| id.expose().to_owned()),
                secret_access_key: keys.map(|(_, key)| key.expose().to_owned()),
                session_token: bucket
                    .session
                    .as_ref()
                    .map(|token| token.expose().to_owned()),
            })
        }
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
