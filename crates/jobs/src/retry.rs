//! When to try again: exponential backoff with full jitter. Pure; the database draws the jitter and adds it to its own clock.

use std::time::Duration;

/// The longest wait before a retry.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(600);

/// The most that the retry after a failed `attempt` (1, 2, 3 …) waits: 2, 4, 8 … seconds, ten minutes at the most.
///
/// The wait itself is drawn evenly from zero up to this (full jitter), so that jobs that failed together come back apart.
pub fn backoff_ceiling(attempt: i32) -> Duration {
    let doublings = u32::try_from(attempt.clamp(0, 16)).unwrap_or(0);
    Duration::from_secs(1_u64 << doublings).min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_ten_minutes() {
        let series: Vec<u64> = (1..=11)
            .map(|attempt| backoff_ceiling(attempt).as_secs())
            .collect();
        assert_eq!(series, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        assert_eq!(backoff_ceiling(i32::MAX), LONGEST_BACKOFF);
        assert_eq!(backoff_ceiling(i32::MIN), Duration::from_secs(1));
    }
}
