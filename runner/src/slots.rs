//! Slots: how many jobs may be at work at once. Whoever claims holds one first.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The right to have one job at work; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Slot {
    permit: OwnedSemaphorePermit,
}

impl Slot {
    /// Takes other places too, for a job that must have no company.
    pub(crate) fn widen(&mut self, others: impl IntoIterator<Item = Self>) {
        for other in others {
            self.permit.merge(other.permit);
        }
    }
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
            .map(|permit| Slot { permit })
    }

    /// Every slot that is free.
    pub(crate) fn take_all(&self) -> Vec<Slot> {
        std::iter::from_fn(|| self.take()).collect()
    }

    /// A slot, if one becomes free in time.
    pub(crate) async fn wait(&self, patience: Duration) -> Option<Slot> {
        let permit = tokio::time::timeout(patience, Arc::clone(&self.free).acquire_owned()).await;
        permit.ok()?.ok().map(|permit| Slot { permit })
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

    #[tokio::test]
    async fn a_widened_slot_keeps_the_others_until_it_is_dropped() {
        let slots = Slots::new(3);
        let mut alone = slots.take().expect("a free slot");
        alone.widen(slots.take_all());
        assert_eq!(slots.used(), 3);
        assert!(slots.take().is_none());
        drop(alone);
        assert_eq!(slots.used(), 0);
    }
}
