//! The connections that were used just now. sqlx lends its idle ones in turn, which is the coldest first, and asks each for a
//! sign of life on its way back; so they stay at hand here for a moment, and whoever comes next takes the warmest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, PgConnection, Postgres};
use tokio::time::timeout;

use super::{FRESH, SIGN_OF_LIFE};
use crate::store::tasks::Tasks;

/// After so long one goes back into the pool between two uses, which closes those that are old.
const TURN: Duration = Duration::from_secs(60);

/// A connection out of sqlx's pool. Dropped, it is closed without waiting for anything: what it was doing may be half done, and a
/// connection that died without a word would never say so.
#[derive(Debug)]
pub(super) struct Session {
    raw: Option<PoolConnection<Postgres>>,
    taken: Instant,
}

impl Session {
    pub(super) fn new(raw: PoolConnection<Postgres>) -> Self {
        Self {
            raw: Some(raw),
            taken: Instant::now(),
        }
    }

    pub(super) fn raw(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.raw.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Whether it has been out of the pool for so long that the pool should look at it.
    pub(super) fn is_due(&self) -> bool {
        self.taken.elapsed() >= TURN
    }

    /// Puts it back into the pool, after it has shown once more that it lives and is clean.
    pub(super) async fn give_back(mut self) {
        if let Some(mut raw) = self.raw.take() {
            // What is not back in time is dropped, with its place in the pool free again.
            let _ = timeout(SIGN_OF_LIFE, raw.return_to_pool()).await;
        }
    }

    async fn answers(&mut self) -> bool {
        match self.raw() {
            Ok(raw) => matches!(timeout(SIGN_OF_LIFE, raw.ping()).await, Ok(Ok(()))),
            Err(_) => false,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.take() {
            // Left to itself, sqlx would wait for a sign of life from it, for ever, and keep its place for as long.
            drop(raw.detach());
        }
    }
}

#[derive(Debug)]
struct Warm {
    session: Session,
    used: Instant,
    /// Its last statement went well.
    is_sound: bool,
}

impl Warm {
    fn is_fresh(&self) -> bool {
        self.used.elapsed() < FRESH
    }
}

/// Those at hand, the one used last on top. Dropping it closes them.
#[derive(Debug, Default)]
pub(super) struct AtHand {
    tasks: Tasks,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    warm: Vec<Warm>,
    /// Whether somebody gives back those that nobody uses.
    is_kept: bool,
}

impl AtHand {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        lock(&self.state).warm.len()
    }

    /// Keeps one at hand, unless `is_closed` by then; then it is given back.
    pub(super) fn keep(
        &self,
        session: Session,
        is_sound: bool,
        is_closed: impl FnOnce() -> bool,
    ) -> Result<(), Session> {
        let mut state = lock(&self.state);
        if is_closed() {
            return Err(session);
        }
        state.warm.push(Warm {
            session,
            used: Instant::now(),
            is_sound,
        });
        let is_alone = !std::mem::replace(&mut state.is_kept, true);
        drop(state);
        if is_alone {
            let keeper = Keeper {
                state: Arc::clone(&self.state),
                has_ended: false,
            };
            self.tasks.spawn(keeper.keep());
        }
        Ok(())
    }

    /// Does what is left to do for one that is not kept, with nobody waiting for it.
    pub(super) fn see_off(&self, farewell: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(farewell);
    }

    /// The one used last that lives.
    pub(super) async fn warmest(&self) -> Option<Session> {
        loop {
            let mut warm = lock(&self.state).warm.pop()?;
            if (warm.is_sound && warm.is_fresh()) || warm.session.answers().await {
                return Some(warm.session);
            }
            // Asked one after the other, the dead would keep whoever waits from a living one.
            lock(&self.state).warm.retain(Warm::is_fresh);
        }
    }

    /// All of them.
    pub(super) fn take_all(&self) -> Vec<Session> {
        let warm = std::mem::take(&mut lock(&self.state).warm);
        warm.into_iter().map(|warm| warm.session).collect()
    }
}

/// Who gives back to the pool what nobody uses; ends when there is none left.
struct Keeper {
    state: Arc<Mutex<State>>,
    has_ended: bool,
}

impl Keeper {
    async fn keep(mut self) {
        loop {
            tokio::time::sleep(FRESH).await;
            let stale: Vec<Warm> = {
                let mut state = lock(&self.state);
                let stale = state.warm.partition_point(|warm| !warm.is_fresh());
                state.warm.drain(..stale).collect()
            };
            join_all(stale.into_iter().map(|warm| warm.session.give_back())).await;
            let mut state = lock(&self.state);
            if state.warm.is_empty() {
                state.is_kept = false;
                self.has_ended = true;
                return;
            }
        }
    }
}

impl Drop for Keeper {
    /// Cut off with its runtime: whoever comes next on another begins one again.
    fn drop(&mut self) {
        if !self.has_ended {
            lock(&self.state).is_kept = false;
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
