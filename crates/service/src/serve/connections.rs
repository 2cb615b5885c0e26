//! The open connections: how many there may be, and which makes room for the next.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{AbortHandle, JoinSet};

/// Whether a connection has asked for anything yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<AtomicBool>);

impl Heard {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The tasks of all open connections; dropping it ends them.
pub(super) struct Connections {
    tasks: JoinSet<()>,
    /// Those that may not have asked for anything yet, oldest first.
    silent: VecDeque<(AbortHandle, Heard)>,
    most: usize,
}

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        Self {
            tasks: JoinSet::new(),
            silent: VecDeque::new(),
            most: most.max(1),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn start(
        &mut self,
        connection: impl Future<Output = ()> + Send + 'static,
        heard: Heard,
    ) {
        let task = self.tasks.spawn(connection);
        self.silent.push_back((task, heard));
        // Without this, the queue would remember every connection there ever was.
        if self.silent.len() > self.most {
            self.silent
                .retain(|(task, heard)| !heard.is_set() && !task.is_finished());
        }
    }

    /// Ends when one more connection may be opened. Who connects without asking for anything loses
    /// its place to the next, oldest first, so that silent crowds keep nobody out.
    pub(super) async fn make_room(&mut self) {
        while self.tasks.len() >= self.most {
            while let Some((task, heard)) = self.silent.pop_front() {
                if !heard.is_set() && !task.is_finished() {
                    task.abort();
                    break;
                }
            }
            self.reap().await;
        }
    }

    /// Ends when a connection has ended.
    pub(super) async fn reap(&mut self) {
        if let Some(Err(error)) = self.tasks.join_next().await
            && error.is_panic()
        {
            tracing::error!(
                event = "connection_panicked",
                "a connection ended by a panic"
            );
        }
    }

    pub(super) async fn all_done(&mut self) {
        while !self.tasks.is_empty() {
            self.reap().await;
        }
    }

    pub(super) async fn abort_all(&mut self) {
        self.tasks.shutdown().await;
    }
}
