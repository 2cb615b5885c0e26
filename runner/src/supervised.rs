//! Loops that must not end: one that panics is begun anew after a pause, and three times in a minute end the runner.
//! Knows no loop.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// The pause before a loop begins anew, times how often it has had to.
const PAUSE: Duration = Duration::from_millis(250);
/// So many panics within so long are no accident.
const MOST: usize = 3;
const WITHIN: Duration = Duration::from_secs(60);

/// The loops that are down right now.
#[derive(Debug, Default)]
pub(crate) struct Loops(Mutex<BTreeSet<&'static str>>);

impl Loops {
    /// One that is down, if any is.
    pub(crate) fn down(&self) -> Option<&'static str> {
        self.with(|down| down.first().copied())
    }

    fn with<T>(&self, see: impl FnOnce(&mut BTreeSet<&'static str>) -> T) -> T {
        see(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs a loop until it ends by itself; gives `None` when it does not stop to panic.
    pub(crate) async fn keep<Loop>(
        &self,
        name: &'static str,
        begin: impl Fn() -> Loop,
    ) -> Option<Loop::Output>
    where
        Loop: Future<Output: Send + 'static> + Send + 'static,
    {
        let mut panics = Vec::new();
        loop {
            let mut running = JoinSet::new();
            running.spawn(begin());
            if let Some(Ok(ended)) = running.join_next().await {
                return Some(ended);
            }
            self.with(|down| down.insert(name));
            panics.retain(|at: &Instant| at.elapsed() < WITHIN);
            panics.push(Instant::now());
            tracing::error!(
                event = "loop_panicked",
                part = name,
                times = panics.len(),
                "it is begun anew"
            );
            if panics.len() >= MOST {
                return None;
            }
            let times = u32::try_from(panics.len()).unwrap_or(1);
            tokio::time::sleep(PAUSE * times).await;
            self.with(|down| down.remove(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A loop that panics so often before it ends; gives how it ended, and how often it was begun.
    async fn kept(loops: &Loops, panics: usize) -> (Option<usize>, usize) {
        let begun = Arc::new(AtomicUsize::new(0));
        let of_loop = Arc::clone(&begun);
        let begin = move || {
            let time = of_loop.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(time >= panics, "a mistake");
                time
            }
        };
        let ended = loops.keep("test", begin).await;
        (ended, begun.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn a_loop_that_panics_is_begun_anew() {
        let loops = Loops::default();
        assert_eq!(kept(&loops, 2).await, (Some(2), 3));
        assert_eq!(loops.down(), None);
    }

    #[tokio::test]
    async fn a_loop_that_does_not_stop_to_panic_is_given_up_and_stays_down() {
        let loops = Loops::default();
        assert_eq!(kept(&loops, 99).await, (None, 3));
        assert_eq!(loops.down(), Some("test"));
    }
}
