//! Until when the processes of one attempt may live: the end of its lease, less what killing takes. The lease keeper
//! moves it from its own thread, and tells the shim in the same breath: the shim kills by its own clock when nobody does.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::protocol::Order;

/// A moment of this boot, in milliseconds, by the clock that also counts while the machine sleeps. The same for every
/// process, so that it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct BootTime(pub(super) u64);

impl BootTime {
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let millis = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0);
        Self(seconds.saturating_mul(1000).saturating_add(millis))
    }

    /// The moment that an instant of this process is, unless the machine sleeps before it.
    pub(crate) fn of(instant: Instant) -> Self {
        Self::now().after(instant.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn after(self, wait: Duration) -> Self {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(wait))
    }
}

/// The term of one attempt. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Term(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    kill_at: BootTime,
    shim: Option<UnixStream>,
}

impl Term {
    pub(crate) fn new(kill_at: BootTime) -> Self {
        Self(Arc::new(Mutex::new(State {
            kill_at,
            shim: None,
        })))
    }

    pub(crate) fn kill_at(&self) -> BootTime {
        self.with(|state| state.kill_at)
    }

    /// Notes a renewal. Never waits: a shim that does not listen hears the next one.
    pub(crate) fn extend(&self, kill_at: BootTime) {
        self.with(|state| {
            state.kill_at = kill_at;
            state.tell();
        });
    }

    /// From here on the shim at the other end of this socket hears of every renewal, until the answer is dropped. What it
    /// was told to begin with must have been sent.
    pub(super) fn tell(&self, shim: UnixStream) -> Told {
        self.with(|state| {
            state.shim = Some(shim);
            state.tell();
        });
        Told(self.clone())
    }

    fn with<T>(&self, see: impl FnOnce(&mut State) -> T) -> T {
        see(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn tell(&mut self) {
        if let Some(shim) = &mut self.shim {
            // The socket does not block, and takes so few bytes whole or not at all.
            let _ = shim.write(&Order::Renewed(self.kill_at).bytes());
        }
    }
}

/// A shim that is told; the line to it is kept open no longer than this.
pub(super) struct Told(Term);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.with(|state| state.shim = None);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_shim_hears_of_what_was_renewed_before_it_listened_and_of_what_comes() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("set");
        let term = Term::new(BootTime(1));
        term.extend(BootTime(2));
        let told = term.tell(ours);
        term.extend(BootTime(300));
        drop(told);
        term.extend(BootTime(4));
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).expect("the end");
        let expected = [2, 300].map(|at| Order::Renewed(BootTime(at)).bytes());
        assert_eq!(heard, expected.concat());
        assert_eq!(term.kill_at(), BootTime(4));
    }

    #[test]
    fn a_moment_is_later_by_what_is_left_until_it() {
        let before = BootTime::now();
        let soon = BootTime::of(Instant::now() + Duration::from_secs(5));
        assert!(soon >= before.after(Duration::from_millis(4990)));
        assert!(soon <= BootTime::now().after(Duration::from_secs(5)));
    }
}
