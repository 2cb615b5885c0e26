//! Owns the tasks in which jobs are claimed and run, so that neither a caller that hangs up nor a loop that ends can
//! cut one off between its claim and its finish.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

/// The tasks at work.
#[derive(Debug, Default)]
pub(crate) struct Executions {
    tasks: Mutex<JoinSet<()>>,
}

impl Executions {
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Large, and moved whole when it begins, ends and is reaped.
        let work = Box::pin(work);
        self.with(|tasks| {
            reap(tasks);
            tasks.spawn(work);
        });
    }

    /// Ends when no task is left. Looks instead of being told: it is asked only at the end.
    pub(crate) async fn all_done(&self) {
        while !self.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.with(|tasks| {
            reap(tasks);
            tasks.is_empty()
        })
    }

    /// Cuts every task off, as if the process had been killed.
    pub(crate) fn abort_all(&self) {
        self.with(JoinSet::abort_all);
    }

    fn with<T>(&self, see: impl FnOnce(&mut JoinSet<()>) -> T) -> T {
        see(&mut self.tasks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn reap(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.try_join_next() {
        if ended.is_err_and(|error| error.is_panic()) {
            tracing::error!(
                event = "execution_panicked",
                "an execution panicked; its job comes back by its lease"
            );
        }
    }
}
