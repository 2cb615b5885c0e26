//! The two clocks of this host: one that only goes forward, for what the ledger compares, and the one that PostgreSQL on
//! this host reads too. Compares nothing itself.

use rustix::time::{ClockId, clock_gettime};
use time::{Duration, OffsetDateTime};

/// Nanoseconds since the host started; the same for all its processes.
pub fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The wall clock, which the database of this host shares.
pub fn wall() -> OffsetDateTime {
    let now = clock_gettime(ClockId::Realtime);
    OffsetDateTime::UNIX_EPOCH + Duration::new(now.tv_sec, i32::try_from(now.tv_nsec).unwrap_or(0))
}
