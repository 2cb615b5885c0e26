//! Tasks that belong to the store and to no caller. Dropping it cuts them off.

use std::sync::{Mutex, PoisonError};

use tokio::task::JoinSet;

/// The tasks at work.
#[derive(Debug, Default)]
pub(super) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    /// Begins one on this runtime, and forgets those that have ended.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}
