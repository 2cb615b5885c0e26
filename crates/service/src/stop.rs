//! Stopping: one word that reaches every loop. First gracefully, then, asked again, at once.

use std::future::Future;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stage {
    Running,
    Gracefully,
    AtOnce,
}

/// What every loop waits for beside its own work.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Stage>);

/// What makes every [`Stop`] of its pair come true; dropping it does too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<Stage>);

impl Stop {
    /// A stop that is not requested yet, and what requests it.
    pub fn new() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(Stage::Running);
        (Stopper(sender), Self(receiver))
    }

    /// Ends when stopping is requested: take nothing new, finish or hand back, leave.
    pub async fn requested(&self) {
        self.reached(Stage::Gracefully).await;
    }

    /// Ends when waiting is over too: leave now.
    pub async fn at_once(&self) {
        self.reached(Stage::AtOnce).await;
    }

    /// Whether stopping has been requested.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() >= Stage::Gracefully || self.0.has_changed().is_err()
    }

    async fn reached(&self, stage: Stage) {
        // An error means that nobody is left who could ask, which counts as asked.
        let _ = self.0.clone().wait_for(|now| *now >= stage).await;
    }
}

impl Stopper {
    /// Requests stopping, gracefully.
    pub fn stop(&self) {
        self.raise(Stage::Gracefully);
    }

    /// Requests stopping without waiting for anything.
    pub fn stop_at_once(&self) {
        self.raise(Stage::AtOnce);
    }

    fn raise(&self, to: Stage) {
        self.0.send_if_modified(|now| {
            let raised = *now < to;
            if raised {
                *now = to;
            }
            raised
        });
    }
}

/// Runs a program's work until it ends, requesting its stop at the first SIGTERM or SIGINT and
/// its end at once at the second.
///
/// # Errors
///
/// When the signals cannot be listened for.
pub async fn until_signals<W: Future>(work: impl FnOnce(Stop) -> W) -> io::Result<W::Output> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stopper, stop) = Stop::new();
    let work = work(stop);
    tokio::pin!(work);
    loop {
        tokio::select! {
            output = &mut work => return Ok(output),
            () = next(&mut terminate, &mut interrupt) => {
                if *stopper.0.borrow() == Stage::Running {
                    tracing::info!(event = "stopping", "stopping; a second signal stops at once");
                    stopper.stop();
                } else {
                    tracing::warn!(event = "stopping_at_once", "stopping at once");
                    stopper.stop_at_once();
                }
            }
        }
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_reaches_every_copy_and_stays() {
        let (stopper, stop) = Stop::new();
        let copy = stop.clone();
        assert!(!stop.is_requested());
        stopper.stop();
        copy.requested().await;
        stop.requested().await;
        assert!(copy.is_requested());
    }

    #[tokio::test]
    async fn at_once_is_a_request_too_and_is_not_taken_back() {
        let (stopper, stop) = Stop::new();
        stopper.stop_at_once();
        stopper.stop();
        stop.requested().await;
        stop.at_once().await;
    }

    #[tokio::test]
    async fn a_dropped_stopper_counts_as_a_request() {
        let (stopper, stop) = Stop::new();
        drop(stopper);
        stop.requested().await;
        assert!(stop.is_requested());
    }
}
