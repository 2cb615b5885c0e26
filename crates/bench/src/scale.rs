//! How much of each workload: the sizes that figures are published for, and the small ones that tests try.

use std::time::Duration;

/// Sizes of a run.
#[derive(Clone, Debug)]
pub struct Scale {
    /// How often everything is measured, by turns.
    pub rounds: usize,
    /// Queued jobs of a drain, each size by itself.
    pub drains: Vec<u64>,
    /// Finished jobs that lie there while the first of them is drained.
    pub retained: u64,
    /// Jobs queued behind those that are measured.
    pub behind: u64,
    /// Jobs recorded one by one.
    pub singles: u64,
    /// Jobs recorded in bulk.
    pub bulk: u64,
    /// How long a snapshot is held.
    pub held: Duration,
    /// Rates under it are taken over so long.
    pub window: Duration,
    /// Jobs whose latency is taken.
    pub probes: usize,
    /// How long HTTP load lasts.
    pub load: Duration,
    /// Processes started.
    pub spawns: u64,
    /// Jobs that a runner drains while its memory is watched.
    pub memory: u64,
}

impl Scale {
    /// What published figures are made with.
    pub fn full() -> Self {
        Self {
            rounds: 5,
            drains: vec![20_000, 100_000],
            retained: 300_000,
            behind: 1_000_000,
            singles: 2_000,
            bulk: 100_000,
            held: Duration::from_secs(120),
            window: Duration::from_secs(10),
            probes: 500,
            load: Duration::from_secs(5),
            spawns: 1_000,
            memory: 1_000_000,
        }
    }

    /// For trying: a few minutes in all, and figures that say little.
    pub fn small() -> Self {
        Self {
            rounds: 3,
            drains: vec![20_000],
            retained: 50_000,
            behind: 100_000,
            singles: 500,
            bulk: 20_000,
            held: Duration::from_secs(20),
            window: Duration::from_secs(2),
            probes: 100,
            load: Duration::from_secs(2),
            spawns: 200,
            memory: 50_000,
        }
    }

    /// For tests, which look at counts and not at times.
    pub fn tiny() -> Self {
        Self {
            rounds: 1,
            drains: vec![200],
            retained: 100,
            behind: 300,
            singles: 16,
            bulk: 100,
            held: Duration::from_secs(1),
            window: Duration::from_millis(500),
            probes: 3,
            load: Duration::from_millis(200),
            spawns: 3,
            memory: 100,
        }
    }
}
