//! What the proxy has done so far. Counts only.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the proxy has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections taken.
    pub accepted: u64,
    /// Connections that are there now.
    pub open: u64,
    /// Connections for which the server could not be reached.
    pub unreachable: u64,
    /// Connections that were reset on command.
    pub reset: u64,
    /// Connections that were cut after so many bytes.
    pub cut: u64,
    /// Connections that lost bytes in a black hole.
    pub swallowed: u64,
    /// Bytes that arrived at the server.
    pub bytes_up: u64,
    /// Bytes that arrived at the client.
    pub bytes_down: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) unreachable: AtomicU64,
    pub(crate) reset: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) swallowed: AtomicU64,
    pub(crate) bytes_up: AtomicU64,
    pub(crate) bytes_down: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn read(&self) -> Counts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            accepted: value(&self.accepted),
            open: value(&self.open),
            unreachable: value(&self.unreachable),
            reset: value(&self.reset),
            cut: value(&self.cut),
            swallowed: value(&self.swallowed),
            bytes_up: value(&self.bytes_up),
            bytes_down: value(&self.bytes_down),
        }
    }
}
