//! When to try again: exponential backoff with full jitter. Pure; the database draws the jitter and adds it to its own clock.

use std::time::Duration;

/// How long a job type waits before it tries again.
///
/// The wait itself is drawn evenly from zero up to the ceiling (full jitter), so that jobs that failed together come back apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The most that is waited after the first attempt; doubled after each further one.
    pub base: Duration,
    /// The most that is ever waited.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(2),
            cap: Duration::from_secs(600),
        }
    }
}

impl Backoff {
    /// The most that the retry after a failed `attempt` (1, 2, 3 …) waits: by default 2, 4, 8 … seconds, ten minutes at the most.
    pub fn ceiling(self, attempt: i32) -> Duration {
        let doublings = u32::try_from(attempt.saturating_sub(1).clamp(0, 31)).unwrap_or(0);
        self.base.saturating_mul(1 << doublings).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(backoff: Backoff) -> Vec<u64> {
        (1..=11)
            .map(|attempt| backoff.ceiling(attempt).as_secs())
            .collect()
    }

    #[test]
    fn the_ceiling_doubles_up_to_ten_minutes() {
        let usual = Backoff::default();
        assert_eq!(
            series(usual),
            [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]
        );
        assert_eq!(usual.ceiling(i32::MAX), usual.cap);
        assert_eq!(usual.ceiling(i32::MIN), usual.base);
    }

    #[test]
    fn a_type_may_be_more_or_less_patient() {
        let impatient = Backoff {
            base: Duration::from_secs(5),
            cap: Duration::from_secs(12),
        };
        assert_eq!(series(impatient)[..4], [5, 10, 12, 12]);
        let at_once = Backoff {
            base: Duration::ZERO,
            cap: Duration::ZERO,
        };
        assert_eq!(at_once.ceiling(30), Duration::ZERO);
    }
}
