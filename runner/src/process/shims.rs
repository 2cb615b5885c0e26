//! The shims of a runner: those without a run rest until the next one of the same limits, since starting a program costs
//! more than most quick commands. Knows no command.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::process::Child;

use super::cgroup::Cgroup;
use super::limits::Limits;
use super::{handover, start_shim};

/// Who has rested for so long is not needed.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// What a shim takes to end once its line is cut.
const LAST_STEPS: Duration = Duration::from_secs(1);

/// A program whose `main` calls [`serve_as_shim`](super::serve_as_shim), started as often as it is needed at once.
#[derive(Debug)]
pub(crate) struct Shims {
    program: PathBuf,
    pub(super) cgroup: Option<Cgroup>,
    resting: Mutex<Vec<Resting>>,
}

/// One shim; when this is dropped it ends what it watches, and itself.
#[derive(Debug)]
pub(super) struct Shim {
    pub(super) child: Child,
    pub(super) line: UnixStream,
    /// What it has bound itself to, for good.
    limits: Limits,
}

#[derive(Debug)]
struct Resting {
    shim: Shim,
    since: Instant,
}

impl Shims {
    pub(super) fn new(program: PathBuf, cgroup: Option<Cgroup>) -> Self {
        Self {
            program,
            cgroup,
            resting: Mutex::default(),
        }
    }

    /// A shim that was given the ends of the next command's output, and waits for its task.
    pub(super) fn begin(&self, limits: Limits, outlets: [BorrowedFd<'_>; 2]) -> io::Result<Shim> {
        while let Some(shim) = self.rested(limits) {
            // One that has died meanwhile has taken nothing with it.
            if handover::send(&shim.line, outlets).is_ok() {
                return Ok(shim);
            }
        }
        let shim = self.start(limits)?;
        handover::send(&shim.line, outlets)?;
        Ok(shim)
    }

    fn start(&self, limits: Limits) -> io::Result<Shim> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok(Shim {
            child: start_shim(&self.program, OwnedFd::from(theirs))?,
            line: UnixStream::from_std(ours)?,
            limits,
        })
    }

    /// The one that has rested least, so that those who are too many rest on.
    fn rested(&self, limits: Limits) -> Option<Shim> {
        self.with(|resting| {
            let place = resting
                .iter()
                .rposition(|resting| resting.shim.limits == limits)?;
            Some(resting.remove(place).shim)
        })
    }

    /// Takes a shim back of whose last run nobody is left.
    pub(super) fn rest(&self, shim: Shim) {
        let since = Instant::now();
        self.with(|resting| resting.push(Resting { shim, since }));
    }

    /// Ends those who have rested long.
    pub(crate) async fn retire_idle(&self) {
        self.retire(LONGEST_REST).await;
    }

    /// Ends all who rest.
    pub(crate) async fn retire_all(&self) {
        self.retire(Duration::ZERO).await;
    }

    async fn retire(&self, rest: Duration) {
        let retired: Vec<Resting> = self.with(|resting| {
            resting
                .extract_if(.., |resting| resting.since.elapsed() >= rest)
                .collect()
        });
        let children: Vec<Child> = retired
            .into_iter()
            .map(|Resting { shim, .. }| shim.child)
            .collect();
        for mut child in children {
            // Collected, so that nobody dead is left; one that does not end is frozen, and sees its end later.
            let _ = tokio::time::timeout(LAST_STEPS, child.wait()).await;
        }
    }

    fn with<T>(&self, see: impl FnOnce(&mut Vec<Resting>) -> T) -> T {
        see(&mut self.resting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shim_rests_for_runs_of_its_own_limits_and_not_for_ever() {
        let shims = Shims::new("/bin/true".into(), None);
        let (none, one) = (
            Limits::default(),
            Limits {
                processes: Some(1),
                ..Limits::default()
            },
        );
        for limits in [none, one] {
            shims.rest(shims.start(limits).expect("started"));
        }
        let taken = shims.rested(one).expect("one of these limits");
        assert_eq!(taken.limits, one);
        assert!(shims.rested(one).is_none(), "the other has other limits");
        shims.rest(taken);
        shims.retire(Duration::from_secs(600)).await;
        assert_eq!(shims.with(|resting| resting.len()), 2);
        shims.retire(Duration::ZERO).await;
        assert!(shims.rested(none).is_none() && shims.rested(one).is_none());
    }
}
