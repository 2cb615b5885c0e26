//! Whether due work may be waiting, and the bell that says that it is time to look. It looks for nothing itself.

use std::sync::atomic::{AtomicBool, Ordering, fence};

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::slots::Slots;

/// A look for fewer than one in so many of the slots waits for more of them …
const FEW: usize = 8;
/// … for so long.
const GATHER: Duration = Duration::from_millis(5);

/// What the last look left behind, and the bell for the next one.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// For a free slot.
    may_wait: AtomicBool,
    /// For a runner with nothing at work: a job that must run alone shows itself to no other.
    may_wait_alone: AtomicBool,
    look: Notify,
    /// The same, but not at once.
    look_soon: Notify,
}

impl Backlog {
    /// Notes whether something may be waiting for a slot.
    pub(crate) fn note(&self, may_wait: bool) {
        self.may_wait.store(may_wait, Ordering::Relaxed);
        // Whoever frees a slot after this sees it; whoever did before is seen by the look at the slots that follows.
        fence(Ordering::SeqCst);
    }

    /// Notes that a look was made while jobs were at work, so that those that must run alone were passed by.
    pub(crate) fn note_company(&self) {
        self.may_wait_alone.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether something may be waiting for a slot.
    pub(crate) fn may_wait(&self) -> bool {
        self.may_wait.load(Ordering::Relaxed)
    }

    /// Slots may be free: rings if one is, and something may be waiting for it. Where few are free and others at work, the look
    /// is made a moment later, for those that are freed meanwhile too: a claim has a price of its own, whatever it takes.
    pub(crate) fn slots_freed(&self, slots: &Slots) {
        fence(Ordering::SeqCst);
        let (used, total) = (slots.used(), slots.total());
        if used >= total {
            return;
        }
        let alone = used == 0 && self.may_wait_alone.swap(false, Ordering::Relaxed);
        if alone || self.may_wait() {
            self.ring(used, total);
        }
    }

    /// A job of a type with a limit has ended: rings, since another of the type may be waiting for that, and not for a slot.
    pub(crate) fn limit_freed(&self, slots: &Slots) {
        self.ring(slots.used(), slots.total());
    }

    fn ring(&self, used: usize, total: usize) {
        if used > 0 && total.saturating_sub(used) * FEW < total {
            self.look_soon.notify_one();
        } else {
            self.look.notify_one();
        }
    }

    /// Work has become due.
    pub(crate) fn work_arrived(&self) {
        self.look.notify_one();
    }

    /// Ends when it is time to look. Dropped before, it may forget that a look was to be made soon: whoever does so looks.
    pub(crate) async fn time_to_look(&self) {
        tokio::select! {
            biased;
            () = self.look.notified() => {}
            () = self.look_soon.notified() => {
                // Running out of time is what it is for.
                let _ = timeout(GATHER, self.look.notified()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::slots::FreeSlots;

    fn rings(backlog: &Backlog) -> bool {
        backlog.time_to_look().now_or_never().is_some()
    }

    /// Of many slots, all at work while more waits, one has been freed.
    fn one_freed() -> (Backlog, Slots, FreeSlots) {
        let (backlog, slots) = (Backlog::default(), Slots::new(32));
        let mut taken = slots.take_all();
        backlog.note(true);
        taken.pop();
        backlog.slots_freed(&slots);
        (backlog, slots, taken)
    }

    #[test]
    fn with_every_slot_taken_nothing_rings_until_one_is_freed() {
        let (backlog, slots) = (Backlog::default(), Slots::new(2));
        let mut taken = slots.take_all();
        backlog.note(true);
        backlog.slots_freed(&slots);
        assert!(!rings(&backlog), "there is no slot to look for");
        taken.pop();
        backlog.slots_freed(&slots);
        assert!(rings(&backlog));
        assert!(!rings(&backlog), "once");
    }

    #[test]
    fn nothing_rings_for_a_free_slot_when_nothing_waits() {
        let (backlog, slots) = (Backlog::default(), Slots::new(2));
        backlog.note(true);
        backlog.note(false);
        backlog.slots_freed(&slots);
        assert!(!rings(&backlog));
        backlog.work_arrived();
        assert!(rings(&backlog));
    }

    #[tokio::test]
    async fn a_look_for_few_slots_is_made_a_moment_later_or_once_there_are_more() {
        let (backlog, slots, mut taken) = one_freed();
        let mut looking = Box::pin(backlog.time_to_look());
        assert!((&mut looking).now_or_never().is_none(), "one is few");
        looking.await;

        taken.pop();
        backlog.slots_freed(&slots);
        let mut looking = Box::pin(backlog.time_to_look());
        assert!((&mut looking).now_or_never().is_none());
        for _ in 0..2 {
            taken.pop();
            backlog.slots_freed(&slots);
        }
        assert!(looking.now_or_never().is_some(), "an eighth is many");

        taken.pop();
        backlog.note(true);
        drop(taken);
        backlog.slots_freed(&slots);
        assert!(rings(&backlog), "nothing is at work any more");
    }

    #[tokio::test]
    async fn what_arrives_is_looked_for_at_once_whatever_was_to_be_looked_for_later() {
        let (backlog, _slots, _taken) = one_freed();
        backlog.work_arrived();
        assert!(rings(&backlog));
    }

    #[tokio::test]
    async fn the_end_of_a_job_whose_type_has_a_limit_rings_whatever_the_last_look_has_found() {
        let (backlog, slots) = (Backlog::default(), Slots::new(32));
        let mut taken = slots.take_all();
        backlog.note(false);
        taken.pop();
        backlog.limit_freed(&slots);
        backlog.time_to_look().await;
        drop(taken);
        backlog.limit_freed(&slots);
        assert!(rings(&backlog), "nothing else is at work");
    }

    #[test]
    fn a_look_in_company_is_made_again_once_nothing_is_at_work() {
        let (backlog, slots) = (Backlog::default(), Slots::new(2));
        let mut taken = slots.take_all();
        backlog.note(false);
        backlog.note_company();
        taken.pop();
        backlog.slots_freed(&slots);
        assert!(!rings(&backlog), "another job is at work still");
        taken.pop();
        backlog.slots_freed(&slots);
        assert!(rings(&backlog));
        backlog.slots_freed(&slots);
        assert!(!rings(&backlog), "once");
    }
}
