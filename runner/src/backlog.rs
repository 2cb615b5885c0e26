//! Whether due work may be waiting, and the bell that says that it is time to look. It looks for nothing itself.

use std::sync::atomic::{AtomicBool, Ordering, fence};

use tokio::sync::Notify;

use crate::slots::Slots;

/// What the last look left behind, and the bell for the next one.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// For a free slot.
    may_wait: AtomicBool,
    /// For a runner with nothing at work: a job that must run alone shows itself to no other.
    may_wait_alone: AtomicBool,
    look: Notify,
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

    /// Slots may be free: rings if one is, and something may be waiting for it.
    pub(crate) fn slots_freed(&self, slots: &Slots) {
        fence(Ordering::SeqCst);
        let used = slots.used();
        if used >= slots.total() {
            return;
        }
        let alone = used == 0 && self.may_wait_alone.swap(false, Ordering::Relaxed);
        if alone || self.may_wait.load(Ordering::Relaxed) {
            self.look.notify_one();
        }
    }

    /// Work has become due.
    pub(crate) fn work_arrived(&self) {
        self.look.notify_one();
    }

    /// Ends when it is time to look.
    pub(crate) async fn time_to_look(&self) {
        self.look.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn rings(backlog: &Backlog) -> bool {
        backlog.time_to_look().now_or_never().is_some()
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
