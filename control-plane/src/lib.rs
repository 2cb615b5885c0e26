#![doc = include_str!("../README.md")]

mod api;
mod app;
mod config;
mod cursor;
mod error;
mod runner_client;

use std::net::SocketAddr;
use std::sync::Arc;

use service::{ConnectionLimits, Listener, Stop, Stopper};
use tokio::task::JoinSet;

pub use crate::api::openapi::openapi;
use crate::app::App;
pub use crate::config::{Config, Limits, RunnerAddress, SETTINGS};
pub use crate::error::StartError;

/// A control plane that serves; dropping it ends it at once.
#[derive(Debug)]
pub struct ControlPlane {
    address: SocketAddr,
    stopper: Stopper,
    serving: JoinSet<()>,
}

/// Listens and begins to serve, whether the database is there yet or not.
///
/// # Errors
/// When the address cannot be listened on, or a client cannot be prepared.
pub async fn start(config: Config) -> Result<ControlPlane, StartError> {
    let bind = config.bind;
    let limits = ConnectionLimits::for_concurrency(config.limits.concurrency);
    for warning in &config.shared.warnings {
        tracing::warn!(event = "setting_unknown", "{warning}");
    }
    let router = api::router(Arc::new(App::new(config)?));
    let listener = Listener::bind(bind, None)
        .await
        .map_err(StartError::Listen)?;
    let address = listener.address();
    let (stopper, stop) = Stop::new();
    let mut serving = JoinSet::new();
    serving.spawn(service::serve(listener, router, limits, stop));
    tracing::info!(event = "started", %address, version = env!("CARGO_PKG_VERSION"));
    Ok(ControlPlane {
        address,
        stopper,
        serving,
    })
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

    /// Serves until stopping is requested, then stops; asked again, at once.
    pub async fn run_until(mut self, stop: Stop) {
        tokio::select! {
            () = stop.requested() => self.stopper.stop(),
            _ = self.serving.join_next() => return,
        }
        tokio::select! {
            () = stop.at_once() => self.stopper.stop_at_once(),
            _ = self.serving.join_next() => return,
        }
        while self.serving.join_next().await.is_some() {}
    }
}
