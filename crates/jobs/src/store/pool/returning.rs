//! The way of used connections back into the pool. sqlx asks each for a sign of life there, and whoever used it need not wait
//! for that round trip.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Connection;
use crate::store::tasks::Tasks;

/// What a healthy connection needs to come back at the most; to open a new one takes several times as long.
const NEAR: Duration = Duration::from_millis(100);

/// The connections that are under way; dropping it closes them.
#[derive(Debug, Default)]
pub(super) struct Returning {
    tasks: Tasks,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    under_way: AtomicUsize,
    /// How many idle ones somebody is about to take.
    spoken_for: AtomicUsize,
    changed: Notify,
}

/// The right to one idle connection, until it is taken.
pub(super) struct Promise(Arc<State>);

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.spoken_for.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
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
        self.0.changed.notify_waiters();
    }
}

impl Returning {
    /// Sends a connection back.
    pub(super) fn begin(&self, connection: Connection) {
        let passage = Passage::begin(&self.state);
        self.tasks.spawn(async move {
            connection.give_back().await;
            drop(passage);
        });
    }

    /// Waits while no connection is idle and one is under way, as long as such a one may need: so nobody opens one for want of
    /// one that is about to come. Gives the right to an idle one, or `None` where there is none to be had so.
    pub(super) async fn idle_one(&self, pool: &PgPool) -> Option<Promise> {
        let promised = async {
            loop {
                let changed = self.state.changed.notified();
                let promise = self.promise(pool);
                // With all of them open sqlx opens none, and lets whoever asks wait its turn.
                let is_full = pool.size() >= pool.options().get_max_connections();
                let none_comes = self.state.under_way.load(Ordering::SeqCst) == 0;
                if promise.is_some() || is_full || none_comes {
                    return promise;
                }
                changed.await;
            }
        };
        // Late, another one is taken or opened.
        timeout(NEAR, promised).await.ok().flatten()
    }

    fn promise(&self, pool: &PgPool) -> Option<Promise> {
        let spoken_for = &self.state.spoken_for;
        let mut count = spoken_for.load(Ordering::SeqCst);
        while pool.num_idle() > count {
            match spoken_for.compare_exchange(count, count + 1, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => return Some(Promise(Arc::clone(&self.state))),
                Err(now) => count = now,
            }
        }
        None
    }
}
