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
    pub(crate) fn widen(&mut self, others: FreeSlots) {
        if let Some(others) = others.permits {
            self.permit.merge(others);
        }
    }
}

/// Any number of places, held until it is known what for; dropping them frees them.
#[derive(Debug, Default)]
pub(crate) struct FreeSlots {
    permits: Option<OwnedSemaphorePermit>,
}

impl FreeSlots {
    pub(crate) fn count(&self) -> usize {
        self.permits
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// One of them.
    pub(crate) fn pop(&mut self) -> Option<Slot> {
        let permits = self.permits.as_mut()?;
        let permit = permits.split(1)?;
        Some(Slot { permit })
    }

    /// Takes these too.
    pub(crate) fn add(&mut self, more: Self) {
        match (&mut self.permits, more.permits) {
            (Some(permits), Some(more)) => permits.merge(more),
            (None, more) => self.permits = more,
            (Some(_), None) => {}
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
    pub(crate) fn take_all(&self) -> FreeSlots {
        loop {
            let Ok(free @ 1..) = u32::try_from(self.free.available_permits()) else {
                return FreeSlots::default();
            };
            // Somebody may have been faster with one of them.
            if let Ok(permits) = Arc::clone(&self.free).try_acquire_many_owned(free) {
                let permits = Some(permits);
                return FreeSlots { permits };
            }
        }
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
        assert_eq!((taken.count(), slots.used()), (2, 2));
        assert!(slots.take().is_none());
        assert!(slots.wait(Duration::from_millis(1)).await.is_none());
        drop(taken);
        assert_eq!(slots.used(), 0);
        assert!(slots.take().is_some());
    }

    #[test]
    fn slots_that_are_held_together_are_used_one_by_one() {
        let slots = Slots::new(3);
        let mut held = slots.take_all();
        let one = held.pop().expect("a slot");
        assert_eq!((held.count(), slots.used()), (2, 3));
        drop(one);
        held.add(slots.take_all());
        held.add(slots.take_all());
        assert_eq!((held.count(), slots.used()), (3, 3));
        while let Some(slot) = held.pop() {
            drop(slot);
        }
        assert_eq!((held.count(), slots.used()), (0, 0));
    }

    #[tokio::test]
    async fn a_widened_slot_keeps_the_others_until_it_is_dropped() {
        let slots = Slots::new(3);
        let mut alone = slots.take().expect("a free slot");
        alone.widen(slots.take_all());
        alone.widen(slots.take_all());
        assert_eq!(slots.used(), 3);
        assert!(slots.take().is_none());
        drop(alone);
        assert_eq!(slots.used(), 0);
    }
}
