//! What an attempt reports of itself, on its way into the job's events: a few at once as they come, then the latest each
//! second, and always the last. Validates nothing.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jobs::{LeaseKey, ProgressKind, Store, StoreError};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// So many reports of progress are stored as fast as they come …
const AT_ONCE: u32 = 20;
/// … and after that, one in this time; after many, one in a longer time.
const THEN_EACH: Duration = Duration::from_secs(1);
const MANY: u32 = 1000;
const AFTER_MANY_EACH: Duration = Duration::from_secs(10);
/// So many refused lines become events; the others are counted.
const MOST_REFUSED: u32 = 20;
/// Reports wait so long for others, to be stored with them.
const GROUPED_FOR: Duration = Duration::from_millis(50);
/// A database that is away is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The reports of one attempt.
#[derive(Debug)]
pub(crate) struct Reports {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// What is stored next, in this order.
    waiting: VecDeque<(ProgressKind, Value)>,
    /// The latest progress, which is stored when its time has come, unless a later one comes before.
    latest: Option<Value>,
    allowed: u32,
    allowed_at: Instant,
    stored: u32,
    refused: u32,
    closed: bool,
}

impl Reports {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                latest: None,
                allowed: AT_ONCE,
                allowed_at: Instant::now(),
                stored: 0,
                refused: 0,
                closed: false,
            }),
            changed: Notify::new(),
        }
    }

    /// Takes a report; waits for nothing.
    pub(crate) fn add(&self, kind: ProgressKind, data: Value) {
        self.state().add(kind, data);
        self.changed.notify_one();
    }

    /// Nothing comes any more: what waits is stored now.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    /// Stores what comes until it is closed and everything is stored, or the lease is lost.
    pub(crate) async fn store_as_they_come(&self, store: &Store, key: LeaseKey) {
        loop {
            let due = self.state().due(Instant::now());
            match due {
                Due::Now => {}
                Due::Never => return,
                Due::Later(None) => {
                    self.changed.notified().await;
                    continue;
                }
                Due::Later(Some(wait)) => {
                    // What comes meanwhile may be due earlier.
                    let _ = tokio::time::timeout(wait, self.changed.notified()).await;
                    continue;
                }
            }
            if !self.state().closed {
                tokio::time::sleep(GROUPED_FOR).await;
            }
            let group = self.state().take();
            if !Box::pin(store_group(store, key, group)).await {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores some reports, again and again while the database is away; `false` when there is no point in going on.
async fn store_group(store: &Store, key: LeaseKey, group: Vec<(ProgressKind, Value)>) -> bool {
    loop {
        match store.report(key, group.clone()).await {
            Ok(()) => return true,
            // Where only the answer was lost they are stored twice, which is better than not at all.
            Err(StoreError::Unavailable(error)) => {
                tracing::warn!(event = "progress_not_stored", job_id = %key.job_id, %error, "trying again");
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Err(StoreError::LeaseLost(_)) => return false,
            Err(error) => {
                tracing::warn!(event = "progress_not_stored", job_id = %key.job_id, %error);
                return true;
            }
        }
    }
}

/// When something is to be stored.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Now,
    Later(Option<Duration>),
    Never,
}

impl State {
    fn add(&mut self, kind: ProgressKind, data: Value) {
        match kind {
            ProgressKind::Progress => {
                self.allow(Instant::now());
                // An earlier one that still waits is overtaken.
                self.latest = Some(data);
                if self.allowed > 0 {
                    self.release();
                }
            }
            ProgressKind::Refused => {
                self.refused += 1;
                if self.refused <= MOST_REFUSED {
                    self.waiting.push_back((kind, data));
                }
            }
            ProgressKind::Warning => self.waiting.push_back((kind, data)),
        }
    }

    /// Lets the latest progress be stored.
    fn release(&mut self) {
        if let Some(data) = self.latest.take() {
            self.allowed = self.allowed.saturating_sub(1);
            self.stored += 1;
            self.waiting.push_back((ProgressKind::Progress, data));
        }
    }

    fn each(&self) -> Duration {
        if self.stored < MANY {
            THEN_EACH
        } else {
            AFTER_MANY_EACH
        }
    }

    fn allow(&mut self, now: Instant) {
        let each = self.each();
        while self.allowed < AT_ONCE && now.saturating_duration_since(self.allowed_at) >= each {
            self.allowed += 1;
            self.allowed_at += each;
        }
        if self.allowed >= AT_ONCE {
            self.allowed_at = now;
        }
    }

    fn due(&mut self, now: Instant) -> Due {
        self.allow(now);
        if self.latest.is_some() && (self.allowed > 0 || self.closed) {
            self.release();
        }
        if self.closed && self.refused > MOST_REFUSED {
            let more = self.refused - MOST_REFUSED;
            self.refused = 0;
            let remark = json!({ "message": "further lines of the events file were refused", "lines": more });
            self.waiting.push_back((ProgressKind::Warning, remark));
        }
        match (self.waiting.is_empty(), self.closed) {
            (false, _) => Due::Now,
            (true, true) => Due::Never,
            (true, false) => {
                let next = self.allowed_at + self.each();
                let wait = self
                    .latest
                    .is_some()
                    .then(|| next.saturating_duration_since(now));
                Due::Later(wait)
            }
        }
    }

    fn take(&mut self) -> Vec<(ProgressKind, Value)> {
        self.waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(state: &mut State, numbers: impl IntoIterator<Item = u32>) {
        for number in numbers {
            state.add(ProgressKind::Progress, json!(number));
        }
    }

    fn stored(state: &mut State, now: Instant) -> Vec<Value> {
        state.due(now);
        state.take().into_iter().map(|(_, data)| data).collect()
    }

    #[test]
    fn a_few_are_stored_as_they_come_then_the_latest_in_its_time_and_always_the_last() {
        let reports = Reports::new();
        let mut state = reports.state();
        let begun = Instant::now();
        progress(&mut state, 0..100);
        let first = stored(&mut state, begun);
        assert_eq!(first, (0..AT_ONCE).map(Value::from).collect::<Vec<_>>());
        assert!(matches!(state.due(begun), Due::Later(Some(_))));
        assert_eq!(stored(&mut state, begun + 2 * THEN_EACH), [json!(99)]);
        progress(&mut state, 100..200);
        let _ = stored(&mut state, begun + 2 * THEN_EACH);
        progress(&mut state, 200..300);
        state.closed = true;
        assert_eq!(stored(&mut state, begun + 2 * THEN_EACH), [json!(299)]);
        assert_eq!(state.due(begun + 2 * THEN_EACH), Due::Never);
    }

    #[test]
    fn refused_lines_are_few_events_and_the_others_are_counted() {
        let reports = Reports::new();
        let mut state = reports.state();
        for line in 1..=1000 {
            state.add(ProgressKind::Refused, json!({ "line": line }));
        }
        let now = Instant::now();
        assert_eq!(stored(&mut state, now).len(), MOST_REFUSED as usize);
        assert_eq!(state.due(now), Due::Later(None));
        state.closed = true;
        assert_eq!(stored(&mut state, now)[0]["lines"], 980);
    }
}
