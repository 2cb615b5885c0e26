//! Slots: how many jobs may be at work at once. Whoever claims holds one first.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The right to have one job at work; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// All places of the runner.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    total: usize,
}

impl Slots {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(total)),
            total,
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn used(&self) -> usize {
        self.total.saturating_sub(self.free.available_permits())
    }

    /// A slot, if one is free.
    pub(crate) fn take(&self) -> Option<Slot> {
        Arc::clone(&self.free)
            .try_acquire_owned()
            .ok()
            .map(|permit| Slot { _permit: permit })
    }

    /// Every slot that is free.
    pub(crate) fn take_all(&self) -> Vec<Slot> {
        std::iter::from_fn(|| self.take()).collect()
    }

    /// A slot, if one becomes free in time.
    pub(crate) async fn wait(&self, patience: Duration) -> Option<Slot> {
        let permit = tokio::time::timeout(patience, Arc::clone(&self.free).acquire_owned()).await;
        permit.ok()?.ok().map(|permit| Slot { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slot_is_free_again_when_it_is_dropped() {
        let slots = Slots::new(2);
        let taken = slots.take_all();
        assert_eq!((taken.len(), slots.used()), (2, 2));
        assert!(slots.take().is_none());
        assert!(slots.wait(Duration::from_millis(1)).await.is_none());
        drop(taken);
        assert_eq!(slots.used(), 0);
        assert!(slots.take().is_some());
    }
}
