//! A runner from its start to its end: brings the parts together, notices when one ends, and drains. The only place
//! that knows all parts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use files::{Depot, Place, S3};
use jobs::{Pooler, RunnerIdentity, Store, StoreOptions};
use notion::Publisher;
use service::trace::Tracing;
use service::{ArtifactStore, ConnectionLimits, Flag, Guard, Listener, Stop, Stopper};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use webhooks::{Sender, SigningKeys};

use crate::api;
use crate::app::App;
use crate::backlog::Backlog;
use crate::config::{Config, HintSource};
use crate::dispatcher::dispatch;
use crate::error::StartError;
use crate::executions::Executions;
use crate::handlers::Handlers;
use crate::hints::listen;
use crate::housekeeping::keep_house;
use crate::identity::{self, NameLock};
use crate::interruption::Interruption;
use crate::late_outcomes::hand_in;
use crate::lease_keeper::{LeaseKeeper, Leases};
use crate::metrics::RunnerMetrics;
use crate::outcome_file::Outcomes;
use crate::publishing::publish;
use crate::registry::Registry;
use crate::sealing::seal;
use crate::slots::Slots;
use crate::telling::tell;
use crate::work_dir::WorkDir;

/// How long killing and handing back may take once the drain time is over.
const HANDING_BACK: Duration = Duration::from_secs(10);
/// How long the last words to the database may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A runner at work in this process. Dropping it cuts everything off, as a kill would.
#[derive(Debug)]
pub struct RunningRunner {
    address: SocketAddr,
    url: String,
    runner_id: String,
    stopper: Stopper,
    life: JoinSet<Result<(), StartError>>,
}

impl RunningRunner {
    /// Where it listens, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as the control plane's `RUNNER_URL` has it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How it calls itself.
    pub fn runner_id(&self) -> &str {
        &self.runner_id
    }

    /// Begins the drain: it takes no more, lets jobs finish within the drain time, and hands the rest back.
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// Hands everything back at once.
    pub fn stop_at_once(&self) {
        self.stopper.stop_at_once();
    }

    /// Ends when the runner has ended.
    ///
    /// # Errors
    /// When a part of it ended before its time.
    pub async fn join(mut self) -> Result<(), StartError> {
        match self.life.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(_)) | None => Err(StartError::PartEnded("runner")),
        }
    }

    /// Stops when told to, and ends when the runner has ended.
    ///
    /// # Errors
    /// When a part of it ended before its time.
    pub async fn join_with(mut self, stop: Stop) -> Result<(), StartError> {
        let stopper = self.stopper;
        let pass_on = async {
            stop.requested().await;
            stopper.stop();
            stop.at_once().await;
            stopper.stop_at_once();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = self.life.join_next() => match ended {
                Some(Ok(ended)) => ended,
                Some(Err(_)) | None => Err(StartError::PartEnded("runner")),
            },
            () = pass_on => Ok(()),
        }
    }
}

/// Starts a runner in this process; it serves when this returns. The database may still be away.
///
/// # Errors
/// When its address, its folder, its job types or its name cannot be used.
pub async fn start(mut config: Config, handlers: Handlers) -> Result<RunningRunner, StartError> {
    service::install_crypto();
    let options = StoreOptions {
        pooler: pooler(config.shared.pooler),
        ..StoreOptions::new(
            config.shared.database_url.expose().to_owned(),
            config.shared.database_max_connections,
            "runner",
        )
    };
    let store = Store::new(&options).map_err(StartError::Store)?;
    let depot = Depot::open(store.clone(), &place(&config.shared.artifact_store))
        .map_err(StartError::Files)?;
    let folders = config.folders.clone();
    let prepared = tokio::task::spawn_blocking(move || WorkDir::prepare(&folders)).await;
    let prepared = prepared.unwrap_or_else(|error| Err(io::Error::other(error)));
    let work_dir = Arc::new(prepared.map_err(StartError::WorkDir)?);
    let boot_id = service::ids::uuid_v7();
    let name_lock = name_lock(&config, boot_id)?;
    let registry = Registry::new(&mut config, handlers, &store)?;
    let webhooks = webhook_sender(&config, &store)?;
    let notion = config.notion.take();
    let notion = notion
        .map(|settings| Publisher::new(store.clone(), settings))
        .transpose()
        .map_err(StartError::NotionClient)?;
    let listener = Listener::bind(config.bind, config.tls.as_ref())
        .await
        .map_err(StartError::Serve)?;
    let metrics = config
        .shared
        .flags
        .is_on(Flag::Metrics)
        .then(RunnerMetrics::new)
        .transpose()
        .map_err(StartError::Metrics)?;
    let tracing = Tracing::start(&config.shared.traces, "runner", env!("CARGO_PKG_VERSION"))
        .map_err(StartError::Traces)?;
    let (stopper, stop) = Stop::new();
    let lease = config.limits.lease;
    let app = Arc::new(App {
        identity: RunnerIdentity {
            id: config.runner_id.clone(),
            boot_id,
        },
        slots: Slots::new(config.limits.slots),
        limits: config.limits,
        store,
        depot: Arc::new(depot),
        work_dir: Arc::clone(&work_dir),
        registry,
        leases: Arc::new(Leases::new(lease)),
        executions: Executions::default(),
        // The folder that was named, not the one of this boot: the next boot looks there.
        outcomes: Outcomes::new(config.folders.work.clone()),
        metrics,
        tracing,
        guard: Guard::runner_token_with(config.tokens, config.shared.auth_failures_per_minute),
        app_env: config.shared.app_env,
        flags: config.shared.flags,
        stop,
        claiming: Mutex::new(()),
        backlog: Backlog::default(),
        ended: tokio::sync::Notify::new(),
        loops: Arc::default(),
        webhooks,
        seal: tokio::sync::Notify::new(),
        tell: tokio::sync::Notify::new(),
        notion,
        publish: tokio::sync::Notify::new(),
        admitted: AtomicBool::new(false),
    });
    let keeper = LeaseKeeper::start(
        Arc::clone(&app.leases),
        Arc::clone(&app.loops),
        options,
        app.limits.lease,
    )
    .map_err(StartError::LeaseKeeper)?;
    announce(&app, &listener, &work_dir, &config.shared.warnings);
    let mut running = RunningRunner {
        address: listener.address(),
        url: listener.url(),
        runner_id: config.runner_id,
        stopper,
        life: JoinSet::new(),
    };
    let dead = name_lock.as_ref().and_then(|lock| lock.dead);
    identity::admit_at_once(&app, dead).await;
    let router = api::router(&app, config.shared.flags);
    running
        .life
        .spawn(live(app, listener, router, keeper, name_lock, config.hints));
    Ok(running)
}

/// A folder that was named is the same after a restart, so that a lock in it tells of the start before.
fn name_lock(config: &Config, boot_id: uuid::Uuid) -> Result<Option<NameLock>, StartError> {
    let Some(folder) = &config.folders.work else {
        return Ok(None);
    };
    NameLock::take(folder, &config.runner_id, boot_id)
        .map_err(StartError::WorkDir)?
        .map(Some)
        .ok_or_else(|| StartError::NameTaken(config.runner_id.clone()))
}

/// Without a key of its own, a runner leaves webhooks to others.
fn webhook_sender(config: &Config, store: &Store) -> Result<Option<Sender>, StartError> {
    let keys = SigningKeys::new(config.webhooks.signing_keys.clone());
    let sender = |keys| Sender::new(store.clone(), keys, config.webhooks.egress.clone());
    keys.map(sender)
        .transpose()
        .map_err(StartError::WebhookClient)
}

fn pooler(setting: service::Pooler) -> Pooler {
    match setting {
        service::Pooler::None => Pooler::None,
        service::Pooler::Transaction => Pooler::Transaction,
    }
}

/// Where files are kept, as the library of files has it.
fn place(setting: &ArtifactStore) -> Place {
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

fn announce(app: &App, listener: &Listener, work_dir: &WorkDir, warnings: &[String]) {
    for warning in warnings {
        tracing::warn!(event = "setting_unknown", "{warning}");
    }
    tracing::info!(
        event = "started",
        runner_id = app.identity.id,
        version = env!("CARGO_PKG_VERSION"),
        address = %listener.address(),
        work_dir = %work_dir.path().display(),
        job_types = app.registry.names().join(","),
        slots = app.slots.total(),
    );
}

/// Cuts off what runs when the runner is dropped instead of stopped.
struct CutOff(Arc<App>);

impl Drop for CutOff {
    fn drop(&mut self) {
        self.0.executions.abort_all();
    }
}

/// A loop of the runner's, in a task of its own, begun anew when it panics.
fn kept<Loop>(
    app: &Arc<App>,
    name: &'static str,
    part: impl Fn(Arc<App>) -> Loop + Send + Sync + 'static,
) -> JoinSet<Option<Loop::Output>>
where
    Loop: Future<Output: Send + 'static> + Send + 'static,
{
    let app = Arc::clone(app);
    let mut keeping = JoinSet::new();
    keeping.spawn(async move {
        let begin = || part(Arc::clone(&app));
        app.loops.keep(name, begin).await
    });
    keeping
}

async fn live(
    app: Arc<App>,
    listener: Listener,
    router: axum::Router,
    mut keeper: LeaseKeeper,
    name_lock: Option<NameLock>,
    hints: HintSource,
) -> Result<(), StartError> {
    let _cut_off = CutOff(Arc::clone(&app));
    // The API answers to the end, so that a trigger hears of the drain and does not find a closed door.
    let (api_stopper, api_stop) = Stop::new();
    let limits = ConnectionLimits::for_concurrency(256).with_drain(LAST_WORDS);
    let mut serving = JoinSet::new();
    serving.spawn(service::serve(listener, router, limits, api_stop));
    // Read before anything new is claimed, so that nothing of this life is among it.
    let left = app.outcomes.left();
    let mut handing_in = JoinSet::new();
    handing_in.spawn(hand_in(Arc::clone(&app), left));
    let mut dispatching = kept(&app, "dispatcher", dispatch);
    let mut listening = JoinSet::new();
    match hints {
        HintSource::None => listening.spawn(std::future::pending()),
        HintSource::Notify(direct) => listening.spawn(listen(Arc::clone(&app), direct)),
    };
    let mut housekeeping = kept(&app, "housekeeping", keep_house);
    let mut sealing = kept(&app, "seals", seal);
    let mut telling = kept(&app, "webhooks", tell);
    let mut publishing = kept(&app, "notion", publish);
    let mut admitting = JoinSet::new();
    let (of_task, dead) = (
        Arc::clone(&app),
        name_lock.as_ref().and_then(|lock| lock.dead),
    );
    admitting.spawn(async move { identity::admit(&of_task, dead).await });
    let broken = tokio::select! {
        biased;
        () = app.stop.requested() => None,
        Some(Ok(Err(error))) = admitting.join_next() => Some(error),
        _ = serving.join_next() => Some(StartError::PartEnded("api")),
        _ = listening.join_next() => Some(StartError::PartEnded("listener")),
        _ = dispatching.join_next() => Some(StartError::PartEnded("dispatcher")),
        ended = housekeeping.join_next() => Some(match ended {
            Some(Ok(Some(Err(error)))) => error,
            Some(Ok(Some(Ok(())) | None) | Err(_)) | None => StartError::PartEnded("housekeeping"),
        }),
        _ = sealing.join_next() => Some(StartError::PartEnded("seals")),
        _ = telling.join_next() => Some(StartError::PartEnded("webhooks")),
        _ = publishing.join_next() => Some(StartError::PartEnded("notion")),
        () = keeper.ended() => Some(StartError::PartEnded("lease keeper")),
    };
    admitting.shutdown().await;
    listening.shutdown().await;
    // A part that hears of the stop first may end before this does.
    let broken = broken.filter(|_| !app.stop.is_requested());
    if let Some(error) = &broken {
        tracing::error!(event = "broken", %error, "the runner hands its jobs back and ends");
        // It has not heard of the end, and would go on claiming.
        dispatching.shutdown().await;
    }
    // A claim that is under way brings its jobs in before it is asked whether any are left.
    let _ = tokio::time::timeout(HANDING_BACK, dispatching.join_next()).await;
    if broken.is_some() {
        drain(&app, Duration::ZERO).await;
    } else {
        tokio::join!(drain(&app, app.limits.drain), be_noticed(&app));
    }
    dispatching.shutdown().await;
    housekeeping.shutdown().await;
    sealing.shutdown().await;
    // What was sent is recorded if it is answered soon; else it is sent again by another.
    let last = async { tokio::join!(telling.join_next(), publishing.join_next()) };
    let _ = tokio::time::timeout(LAST_WORDS, last).await;
    telling.shutdown().await;
    publishing.shutdown().await;
    handing_in.shutdown().await;
    app.registry.watch.retire_all().await;
    api_stopper.stop();
    while serving.join_next().await.is_some() {}
    if tokio::time::timeout(LAST_WORDS, app.store.sign_off(&app.identity))
        .await
        .is_err()
    {
        tracing::warn!(event = "not_signed_off", "the database did not answer");
    }
    keeper.stop().await;
    app.tracing.stop().await;
    if let Some(lock) = name_lock {
        lock.release();
    }
    tracing::info!(event = "stopped", runner_id = app.identity.id);
    broken.map_or(Ok(()), Err)
}

/// Gives balancers, which ask `/readyz`, the time to send elsewhere before the door closes.
async fn be_noticed(app: &App) {
    tokio::select! {
        () = tokio::time::sleep(app.limits.drain_delay) => {}
        () = app.stop.at_once() => {}
    }
}

/// Lets jobs finish for so long, hands the rest back, and gives up on what cannot be handed back.
async fn drain(app: &App, patience: Duration) {
    // The control plane should see it; if it does not, nothing is lost.
    let _ = tokio::time::timeout(LAST_WORDS, app.report()).await;
    tracing::info!(
        event = "draining",
        slots_used = app.slots.used(),
        seconds = patience.as_secs()
    );
    tokio::select! {
        () = app.executions.all_done() => return,
        () = tokio::time::sleep(patience) => {}
        () = app.stop.at_once() => {}
    }
    app.leases.interrupt_all(Interruption::Draining);
    if tokio::time::timeout(HANDING_BACK, app.executions.all_done())
        .await
        .is_err()
    {
        tracing::error!(
            event = "not_handed_back",
            slots_used = app.slots.used(),
            "jobs come back by their leases"
        );
        app.executions.abort_all();
    }
}
