//! Notion's limit: three requests a second on average, with short bursts, and nothing before a `Retry-After` is over.

use std::time::{Duration, Instant};

use super::check::Refusal;

/// A second.
const RATE: f64 = 3.0;
/// So many may come at once after a pause.
const BURST: f64 = 6.0;

#[derive(Debug)]
pub(super) struct Limit {
    left: f64,
    filled: Instant,
    not_before: Option<Instant>,
    too_early: usize,
    first: Option<Instant>,
    last: Option<Instant>,
    let_through: usize,
}

impl Limit {
    pub(super) fn new() -> Self {
        Self {
            left: BURST,
            filled: Instant::now(),
            not_before: None,
            too_early: 0,
            first: None,
            last: None,
            let_through: 0,
        }
    }

    /// One more request, or 429.
    pub(super) fn take(&mut self) -> Result<(), Refusal> {
        let now = Instant::now();
        self.note_early(now);
        let gained = now.duration_since(self.filled).as_secs_f64() * RATE;
        self.left = (self.left + gained).min(BURST);
        self.filled = now;
        if self.left < 1.0 {
            self.not_before = Some(now + Duration::from_secs(1));
            return Err(Refusal::rate_limited(1));
        }
        self.left -= 1.0;
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.let_through += 1;
        Ok(())
    }

    /// Somebody was told to stay away for so many seconds.
    pub(super) fn refused_for(&mut self, retry_after: Option<u32>) {
        let now = Instant::now();
        self.note_early(now);
        if let Some(seconds) = retry_after {
            self.not_before = Some(now + Duration::from_secs(seconds.into()));
        }
    }

    fn note_early(&mut self, now: Instant) {
        if self.not_before.is_some_and(|not_before| now < not_before) {
            self.too_early += 1;
        }
    }

    pub(super) fn too_early(&self) -> usize {
        self.too_early
    }

    pub(super) fn pace(&self) -> (usize, Duration) {
        let time = match (self.first, self.last) {
            (Some(first), Some(last)) => last.duration_since(first),
            (None, _) | (_, None) => Duration::ZERO,
        };
        (self.let_through, time)
    }
}
