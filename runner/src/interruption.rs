//! Why a running attempt is to end before its handler does, and the bell that says so. Ends nothing itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jobs::Outcome;
use tokio::sync::Notify;

/// How long a handler may clean up after it was asked to end.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// What is said of work that was stopped because its lease was about to end.
pub(crate) const LEASE_ENDING: &str =
    "the runner could not renew its lease in time and stopped the work";

/// Why an attempt is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// Somebody asked for it.
    Aborted,
    /// It took longer than it may.
    TimedOut(Duration),
    /// The runner is shutting down and waits no longer.
    Draining,
    /// Its lease could not be renewed in time and is about to end.
    LeaseEnding,
    /// Its lease is another's by now.
    LeaseLost,
}

impl Interruption {
    /// How long the work may take to end by itself; without a lease it may not.
    pub(crate) fn grace(self) -> Duration {
        match self {
            Self::Aborted | Self::TimedOut(_) | Self::Draining => GRACE,
            Self::LeaseEnding | Self::LeaseLost => Duration::ZERO,
        }
    }

    /// How an attempt that was cut short has ended.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Aborted => Outcome::Aborted,
            Self::TimedOut(limit) => {
                Outcome::Retry(format!("timed out after {} s", limit.as_secs()))
            }
            Self::Draining => Outcome::Released,
            Self::LeaseEnding => Outcome::Retry(LEASE_ENDING.to_owned()),
            // Offered all the same, so that the refusal is noted with the job.
            Self::LeaseLost => {
                Outcome::Retry("the runner had lost its lease and stopped the work".to_owned())
            }
        }
    }
}

/// The bell of one attempt: rung at most once for one reason, heard by everyone who works on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bell(Arc<State>);

#[derive(Debug, Default)]
struct State {
    rung: Mutex<Option<Interruption>>,
    rings: Notify,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The first reason stays, except that a lost lease outranks whatever came before.
    pub(crate) fn ring(&self, why: Interruption) {
        let mut rung = self.state();
        if rung.is_none() || why == Interruption::LeaseLost {
            *rung = Some(why);
            self.0.rings.notify_waiters();
        }
    }

    pub(crate) fn rung(&self) -> Option<Interruption> {
        *self.state()
    }

    /// Ends when it is rung.
    pub(crate) async fn heard(&self) -> Interruption {
        loop {
            // Made first: from then on it hears, also before anybody waits for it.
            let ringing = self.0.rings.notified();
            if let Some(why) = self.rung() {
                return why;
            }
            ringing.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, Option<Interruption>> {
        self.0.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stays_unless_the_lease_is_lost() {
        let bell = Bell::new();
        assert_eq!(bell.rung(), None);
        bell.ring(Interruption::Aborted);
        bell.ring(Interruption::Draining);
        assert_eq!(bell.heard().await, Interruption::Aborted);
        bell.ring(Interruption::LeaseLost);
        assert_eq!(bell.clone().heard().await, Interruption::LeaseLost);
    }
}
