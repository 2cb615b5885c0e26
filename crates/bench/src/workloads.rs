//! The workloads, one file each. Every one measures the product and its base by turns, and peers beside them.

pub mod bloat;
pub mod counts;
pub mod depth;
pub mod drain;
pub mod enqueue;
pub mod http;
pub mod latency;
pub mod load;
pub mod memory;
pub mod runners;
pub mod spawn;

use std::time::Duration;

use crate::Result;
use crate::cluster::Bench;
use crate::peer::Peer;
use crate::report::Report;
use crate::scale::Scale;

/// Nothing that is measured takes longer.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// What a workload is given.
#[derive(Debug)]
pub struct Run<'a> {
    /// The cluster.
    pub bench: &'a Bench,
    /// How much.
    pub scale: &'a Scale,
    /// Who else.
    pub peers: &'a [Peer],
    /// The program that serves; `None`: this one.
    pub program: Option<&'a str>,
    /// Where values go.
    pub report: &'a mut Report,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// Recording jobs: SQL one by one, 16 at once, in bulk.
    Enqueue,
    /// Running what is queued.
    Drain,
    /// The same with jobs counted, beside not.
    Counts,
    /// The same by several runners at once, beside one.
    Runners,
    /// The same among many finished jobs.
    Retained,
    /// The same with many more jobs queued behind.
    Depth,
    /// The same while an old snapshot keeps dead rows alive.
    Bloat,
    /// From the enqueue to the handler.
    Latency,
    /// The same beside a load.
    Load,
    /// Creates over HTTP.
    Http,
    /// Commands, one process a job.
    Spawn,
    /// Memory of both services.
    Memory,
}

impl Workload {
    /// Runs it.
    ///
    /// # Errors
    /// When anything of it fails.
    pub async fn run(self, run: &mut Run<'_>) -> Result<()> {
        match self {
            Self::Enqueue => enqueue::run(run).await,
            Self::Drain => drain::run(run).await,
            Self::Counts => counts::run(run).await,
            Self::Runners => runners::run(run).await,
            Self::Retained => drain::run_retained(run).await,
            Self::Depth => depth::run(run).await,
            Self::Bloat => bloat::run(run).await,
            Self::Latency => latency::run(run).await,
            Self::Load => load::run(run).await,
            Self::Http => http::run(run).await,
            Self::Spawn => spawn::run(run).await,
            Self::Memory => memory::run(run).await,
        }
    }
}
