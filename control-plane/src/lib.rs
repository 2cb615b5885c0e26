#![doc = include_str!("../README.md")]

mod api;
mod app;
mod config;
mod cursor;
mod error;
mod gate_links;
mod keys;
mod live;
mod runner_client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use service::{ConnectionLimits, Flag, Listener, Stop, Stopper};
use tokio::task::JoinSet;

pub use crate::api::openapi::openapi;
use crate::app::App;
pub use crate::app::place_of;
pub use crate::config::{Config, Limits, RunnerAddress, SETTINGS};
pub use crate::error::StartError;

/// How long until a database that was away, or has another schema, is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A control plane that serves; dropping it ends it at once.
#[derive(Debug)]
pub struct ControlPlane {
    address: SocketAddr,
    /// Says that it is not ready any more.
    leaver: Stopper,
    /// Says that it takes no more connections.
    stopper: Stopper,
    drain_delay: Duration,
    serving: JoinSet<()>,
}

/// Listens and begins to serve, whether the database is there yet or not.
///
/// # Errors
/// When the address cannot be listened on, or a client cannot be prepared.
pub async fn start(config: Config) -> Result<ControlPlane, StartError> {
    let bind = config.bind;
    let mut limits = ConnectionLimits::for_concurrency(config.limits.concurrency);
    // Who watches keeps nobody else out.
    limits.connections = limits.connections.saturating_add(config.limits.streams);
    for warning in &config.shared.warnings {
        tracing::warn!(event = "setting_unknown", "{warning}");
    }
    let drain_delay = config.drain_delay;
    let (leaver, leaving) = Stop::new();
    let app = Arc::new(App::new(config, leaving)?);
    let router = api::router(Arc::clone(&app));
    let listener = Listener::bind(bind, None)
        .await
        .map_err(StartError::Listen)?;
    let address = listener.address();
    let (stopper, stop) = Stop::new();
    let mut serving = JoinSet::new();
    // One task: where either is still at work, the whole is.
    serving.spawn(async move {
        tokio::join!(
            keep_live(Arc::clone(&app), stop.clone()),
            begin_counting(Arc::clone(&app), stop.clone()),
            service::serve(listener, router, limits, stop),
        );
        app.tracing.stop().await;
    });
    tracing::info!(event = "started", %address, version = env!("CARGO_PKG_VERSION"));
    Ok(ControlPlane {
        address,
        leaver,
        stopper,
        drain_delay,
        serving,
    })
}

/// Serves the streams, and ends them when stopping is requested: their clients come back, to another copy or the next.
async fn keep_live(app: Arc<App>, stop: Stop) {
    let reading = app.live.clone().look_after(app.store.clone());
    tokio::select! {
        () = stop.requested() => {}
        () = reading => {}
    }
    app.live.end();
}

/// Has the database count what happens from now on; then whoever reads, ticks or keeps house keeps that up.
async fn begin_counting(app: Arc<App>, stop: Stop) {
    if !app.flags().is_on(Flag::Metrics) {
        return;
    }
    let mut told = false;
    while let Err(error) = app.store.count_jobs().await {
        if !told {
            tracing::warn!(event = "counts_not_kept", %error, "asking again until it works");
            told = true;
        }
        tokio::select! {
            () = stop.requested() => return,
            () = tokio::time::sleep(ASK_AGAIN) => {}
        }
    }
}

impl ControlPlane {
    /// The address that it listens on, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as a client on this machine would write it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes no more requests, finishes those at work, and ends.
    pub async fn stop(mut self) {
        self.stopper.stop();
        while self.serving.join_next().await.is_some() {}
    }

    /// Serves until stopping is requested; then it is not ready any more, goes on serving until balancers have noticed,
    /// finishes what is at work, and ends. Asked again, it ends at once.
    pub async fn run_until(mut self, stop: Stop) {
        tokio::select! {
            () = stop.requested() => self.leaver.stop(),
            _ = self.serving.join_next() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(self.drain_delay) => self.stopper.stop(),
            () = stop.at_once() => {}
            _ = self.serving.join_next() => return,
        }
        tokio::select! {
            () = stop.at_once() => self.stopper.stop_at_once(),
            _ = self.serving.join_next() => return,
        }
        while self.serving.join_next().await.is_some() {}
    }
}
