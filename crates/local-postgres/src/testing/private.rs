//! A cluster for one test that stops or kills PostgreSQL. Shared with nobody.

use std::ops::Deref;

use rustix::process::Signal;

use crate::blocking::blocking;
use crate::testing::Settings;
use crate::{Cluster, Error, Mode, Options};

/// An ephemeral cluster that can be hurt; gone with all its data when stopped or dropped.
#[derive(Debug)]
pub struct PrivateCluster {
    cluster: Cluster,
}

/// Starts a cluster of its own for one test, with the surroundings of `Settings::from_environment`.
pub async fn private_cluster(mode: Mode) -> Result<PrivateCluster, Error> {
    let options = Options {
        mode,
        ..Settings::from_environment().options
    };
    Ok(PrivateCluster {
        cluster: Cluster::start(options).await?,
    })
}

impl PrivateCluster {
    /// Ends the server without warning (SIGKILL) and waits until it is gone.
    pub async fn kill9(self) -> Result<Self, Error> {
        self.end_by(Signal::KILL).await
    }

    /// Ends the server in order (SIGINT, a fast shutdown) and waits until it is gone.
    pub async fn shut_down(self) -> Result<Self, Error> {
        self.end_by(Signal::INT).await
    }

    /// Starts the server again on the same data and at the same address, shutting it down first if it runs.
    pub async fn restart(self) -> Result<Self, Error> {
        let mut gone = self.end_by(Signal::INT).await?;
        blocking(move || gone.cluster.relaunch().map(|()| gone)).await
    }

    /// Stops the server and removes its data.
    pub async fn stop(self) -> Result<(), Error> {
        self.cluster.stop().await
    }

    async fn end_by(mut self, signal: Signal) -> Result<Self, Error> {
        blocking(move || {
            self.cluster.end_by(signal);
            Ok(self)
        })
        .await
    }
}

impl Deref for PrivateCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}
