//! The way of used connections back into the pool. sqlx asks each for a sign of life there, and whoever used it need not wait
//! for that round trip.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Connection;

/// A healthy connection is back sooner than a new one is open.
const NEAR: Duration = Duration::from_millis(5);

/// The connections that are under way; dropping it closes them.
#[derive(Debug, Default)]
pub(super) struct Returning {
    tasks: Mutex<JoinSet<()>>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    under_way: AtomicUsize,
    one_came: Notify,
}

/// One that is under way; dropping it tells those who wait.
struct Passage(Arc<State>);

impl Passage {
    fn begin(state: &Arc<State>) -> Self {
        state.under_way.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(state))
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        self.0.one_came.notify_waiters();
    }
}

impl Returning {
    /// Sends a connection back.
    pub(super) fn begin(&self, connection: Connection) {
        let passage = Passage::begin(&self.state);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            connection.give_back().await;
            drop(passage);
        });
    }

    /// Ends when one has come back or is late; at once where none is under way.
    pub(super) async fn one(&self) {
        let came = self.state.one_came.notified();
        if self.state.under_way.load(Ordering::SeqCst) > 0 {
            // Then another one is taken, or opened.
            let _ = timeout(NEAR, came).await;
        }
    }
}
