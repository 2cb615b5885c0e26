//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// No condition is waited for longer.
pub const LIMIT: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until there is something to see; fails, naming what it waited for, after [`LIMIT`].
pub async fn wait_until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(begun.elapsed() < LIMIT, "waited {LIMIT:?} in vain: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
