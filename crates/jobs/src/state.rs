//! The state machine: statuses and the legal transitions between them. Pure; the migrations say the same in SQL,
//! and a test compares the two pair by pair.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Recorded, and claimed by a runner once it is due. Left by a claim, a refusal, its time to live, or an abort.
    Queued,
    /// A runner holds a lease on it. Left by a finish, a release, an abort, or the end of the lease.
    Running,
    /// It waits for a person. Left by a decision or an abort.
    Waiting,
    /// The handler finished. Final.
    Succeeded,
    /// It failed for good. Left only by a person's retry.
    Failed,
    /// Somebody stopped it. Left only by a person's retry.
    Aborted,
}

impl Status {
    /// All statuses, in the order of a life.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Waiting,
        Self::Succeeded,
        Self::Failed,
        Self::Aborted,
    ];

    /// Its word, in SQL, JSON, logs and the console alike.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }

    /// Whether a job ends here unless a person starts it again.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Aborted => true,
            Self::Queued | Self::Running | Self::Waiting => false,
        }
    }

    /// The event that the change from this status to another writes, or `None` where there is no such transition.
    pub const fn transition_to(self, to: Self) -> Option<&'static str> {
        match (self, to) {
            (Self::Queued, Self::Running) => Some("running"),
            (Self::Running, Self::Succeeded) => Some("succeeded"),
            (Self::Running, Self::Queued) => Some("retry_scheduled"),
            (Self::Queued | Self::Running, Self::Failed) => Some("failed"),
            (Self::Running, Self::Waiting) => Some("gate_opened"),
            (Self::Waiting, Self::Queued) => Some("resumed"),
            (Self::Queued | Self::Running | Self::Waiting, Self::Aborted) => Some("aborted"),
            (Self::Failed | Self::Aborted, Self::Queued) => Some("replayed"),
            (Self::Queued, Self::Queued | Self::Waiting | Self::Succeeded)
            | (Self::Running, Self::Running)
            | (Self::Waiting, Self::Running | Self::Waiting | Self::Succeeded | Self::Failed)
            | (Self::Succeeded, _)
            | (
                Self::Failed | Self::Aborted,
                Self::Running | Self::Waiting | Self::Succeeded | Self::Failed | Self::Aborted,
            ) => None,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownStatus;

impl fmt::Display for UnknownStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be queued, running, waiting, succeeded, failed or aborted")
    }
}

impl std::error::Error for UnknownStatus {}

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(UnknownStatus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn twelve_of_the_36_pairs_are_legal() {
        let legal = Status::ALL
            .into_iter()
            .flat_map(|from| {
                Status::ALL
                    .into_iter()
                    .filter(move |to| from.transition_to(*to).is_some())
            })
            .count();
        assert_eq!(legal, 12);
    }

    #[test]
    fn a_succeeded_job_never_moves_again() {
        assert!(
            Status::ALL
                .into_iter()
                .all(|to| Status::Succeeded.transition_to(to).is_none())
        );
    }

    proptest! {
        #[test]
        fn a_job_runs_only_from_the_queue_and_ends_only_once(path in prop::collection::vec(0..6usize, 1..40)) {
            let mut status = Status::Queued;
            let mut lives = 1;
            let mut ends = 0;
            for step in path {
                let to = Status::ALL[step];
                let Some(kind) = status.transition_to(to) else { continue };
                prop_assert!(to != Status::Running || status == Status::Queued);
                lives += usize::from(kind == "replayed");
                ends += usize::from(to.is_terminal());
                status = to;
            }
            prop_assert!(ends <= lives);
            prop_assert_eq!(ends == lives, status.is_terminal());
        }

        #[test]
        fn every_status_reads_back_from_its_word(index in 0..6usize) {
            let status = Status::ALL[index];
            prop_assert_eq!(status.as_str().parse::<Status>(), Ok(status));
        }
    }
}
