//! Which fault happens when, and to whom: the same for the same seed and profile. Does nothing itself.

use std::fmt;
use std::time::Duration;

use crate::profile::{CONTROL_PLANES, NOT_YET, Profile, RUNNERS};
use crate::seed::Numbers;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `kill -9` of a runner and of everything on its host.
    Runner,
    /// `kill -9` of a runner alone: what it started must end by itself.
    RunnerAlone,
    /// `kill -9` of a control plane.
    ControlPlane,
    /// `kill -9` of the postmaster.
    Postmaster,
    /// The end of one backend, by `pg_terminate_backend` or `kill -9`.
    Backend,
    /// A runner and all that it runs stand still for two leases.
    Pause,
    /// One link loses every byte.
    BlackHole,
    /// Every link is reset, several times in a row.
    ResetStorm,
}

/// One fault of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, from the beginning of the safety half.
    pub at: Duration,
    /// What.
    pub kind: Kind,
    /// To whom; the number is taken modulo those that there are.
    pub victim: usize,
    /// How long the victim stays away, or the fault goes on.
    pub length: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8} ms {:?} {} for {} ms",
            self.at.as_millis(),
            self.kind,
            self.victim,
            self.length.as_millis()
        )
    }
}

/// The schedule of a seed, in the order of time.
pub fn schedule(seed: u64, profile: &Profile) -> Vec<Fault> {
    let mut numbers = Numbers::of(seed);
    let mut faults = Vec::new();
    for (kind, count) in &profile.faults {
        if NOT_YET.iter().any(|(left_out, _)| left_out == kind) {
            continue;
        }
        let all = u64::try_from(profile.safety.as_millis()).unwrap_or(u64::MAX);
        for _ in 0..*count {
            faults.push(Fault {
                at: Duration::from_millis(numbers.between(500, all)),
                kind: *kind,
                victim: numbers.index(RUNNERS * CONTROL_PLANES * 5),
                length: length(*kind, &mut numbers),
            });
        }
    }
    faults.sort_by_key(|fault| (fault.at, fault.kind));
    faults
}

fn length(kind: Kind, numbers: &mut Numbers) -> Duration {
    let (low, high) = match kind {
        Kind::Runner | Kind::RunnerAlone => (100, 2500),
        Kind::ControlPlane => (100, 1500),
        Kind::Postmaster => (100, 1000),
        Kind::Backend => (0, 1),
        Kind::Pause => (6000, 7000),
        Kind::BlackHole => (2000, 6000),
        Kind::ResetStorm => (200, 1000),
    };
    Duration::from_millis(numbers.between(low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_schedule_and_another_one_another() {
        let profile = Profile::full();
        assert_eq!(schedule(7, &profile), schedule(7, &profile));
        assert_ne!(schedule(7, &profile), schedule(8, &profile));
    }

    #[test]
    fn every_fault_comes_as_often_as_the_profile_says_unless_it_is_left_out_by_name() {
        for profile in [Profile::short(), Profile::full()] {
            for (kind, count) in &profile.faults {
                let left_out = NOT_YET.iter().any(|(left_out, _)| left_out == kind);
                let there = schedule(1, &profile)
                    .iter()
                    .filter(|fault| fault.kind == *kind)
                    .count();
                assert_eq!(there, if left_out { 0 } else { *count }, "{kind:?}");
            }
        }
    }
}
