//! How big a run is: jobs, time, and how often each fault happens at least. Decides nothing while it runs.

use std::time::Duration;

use crate::schedule::Kind;

/// A lease, in seconds.
pub const LEASE: u64 = 3;
/// A runner looks for work, and for lost jobs, so often, in seconds.
pub const POLL: u64 = 1;
/// Runners of a run.
pub const RUNNERS: usize = 3;
/// Control planes of a run.
pub const CONTROL_PLANES: usize = 2;
/// Jobs that a runner runs at once.
pub const SLOTS: usize = 6;

/// Faults that the schedule leaves out until the product can take them, each with the reason. The checks stand already.
pub const NOT_YET: &[(Kind, &str)] = &[];

/// The size of a run.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Jobs to record while faults happen.
    pub jobs: usize,
    /// How long faults happen.
    pub safety: Duration,
    /// How long the system has, with one fault left, before it must settle.
    pub liveness: Duration,
    /// Everything has ended so long after the last fault.
    pub settle: Duration,
    /// The longest that the recovery of a killed runner's job may take.
    pub recovery: Duration,
    /// How often each fault happens.
    pub faults: Vec<(Kind, usize)>,
    /// What happens after them, one thing at a time.
    pub directed: Directed,
    /// After the grace everything of a job must be gone in so long.
    pub slack: Duration,
    /// Whether the figures must be within their bounds, as they are on a machine that does nothing else.
    pub judged: bool,
}

/// What is done to the system one thing at a time, so that its figures are of that thing alone.
#[derive(Clone, Copy, Debug)]
pub struct Directed {
    /// Runners that are killed in the middle of their work and stay away.
    pub deaths: usize,
    /// Those that begin anew at once.
    pub restarts: usize,
    /// Times that every program is replaced under load.
    pub deploys: usize,
    /// Requests a second meanwhile.
    pub load: u32,
    /// Kills and restarts of PostgreSQL.
    pub database_restarts: usize,
    /// How long every byte between everybody and PostgreSQL is lost.
    pub black_hole: Duration,
    /// Jobs of each kind that do not end by themselves.
    pub endless: usize,
}

impl Profile {
    /// About a minute, for `cargo test`.
    pub fn short() -> Self {
        Self {
            jobs: 250,
            safety: Duration::from_secs(14),
            liveness: Duration::from_secs(5),
            settle: Duration::from_secs(90),
            // Other tests and builds may have the processors; the full run is measured without them.
            recovery: Duration::from_secs(20),
            faults: vec![
                (Kind::Runner, 6),
                (Kind::RunnerAlone, 2),
                (Kind::ControlPlane, 3),
                (Kind::Postmaster, 1),
                (Kind::Backend, 3),
                (Kind::Pause, 2),
                (Kind::BlackHole, 2),
                (Kind::ResetStorm, 3),
            ],
            directed: Directed {
                // One dies for good at the end anyway.
                deaths: 0,
                restarts: 1,
                deploys: 1,
                load: 5,
                database_restarts: 1,
                black_hole: Duration::from_secs(4),
                endless: 1,
            },
            slack: Duration::from_secs(20),
            judged: false,
        }
    }

    /// A quarter of an hour of faults and what follows, with the numbers that are promised.
    pub fn full() -> Self {
        Self {
            jobs: 20_500,
            safety: Duration::from_secs(900),
            liveness: Duration::from_secs(20),
            settle: Duration::from_secs(180),
            recovery: Duration::from_secs(LEASE + 2 * POLL + 2),
            faults: vec![
                (Kind::Runner, 200),
                (Kind::RunnerAlone, 20),
                (Kind::ControlPlane, 50),
                (Kind::Postmaster, 10),
                (Kind::Backend, 40),
                (Kind::Pause, 20),
                (Kind::BlackHole, 20),
                (Kind::ResetStorm, 20),
            ],
            directed: Directed {
                deaths: 9,
                restarts: 9,
                deploys: 3,
                load: 20,
                database_restarts: 5,
                black_hole: Duration::from_secs(60),
                endless: 10,
            },
            slack: Duration::from_secs(1),
            judged: true,
        }
    }

    /// The full run at a fraction of its size, the same faults a minute.
    #[must_use]
    pub fn scaled(mut self, percent: usize) -> Self {
        let part = |count: usize| (count * percent).div_ceil(100);
        self.jobs = part(self.jobs);
        self.safety = self.safety * u32::try_from(percent).unwrap_or(100) / 100;
        self.faults
            .iter_mut()
            .for_each(|(_, count)| *count = part(*count));
        let plan = &mut self.directed;
        for count in [
            &mut plan.deaths,
            &mut plan.restarts,
            &mut plan.deploys,
            &mut plan.database_restarts,
            &mut plan.endless,
        ] {
            *count = part(*count);
        }
        self
    }
}
