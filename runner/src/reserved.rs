//! A slot that was taken before it is known whether it is needed. Left unused, whoever looked meanwhile and found none
//! is told to look again. Claims nothing.

use std::sync::Arc;

use crate::app::App;
use crate::slots::{FreeSlots, Slot};

/// A slot in waiting.
#[derive(Debug)]
pub(crate) struct Reserved {
    app: Arc<App>,
    slot: Option<Slot>,
}

impl Reserved {
    pub(crate) fn new(app: &Arc<App>, slot: Slot) -> Self {
        Self {
            app: Arc::clone(app),
            slot: Some(slot),
        }
    }

    /// Takes other places too, for a job that must have no company.
    pub(crate) fn widen(&mut self, others: FreeSlots) {
        if let Some(slot) = &mut self.slot {
            slot.widen(others);
        }
    }

    /// It is needed; `None` never, since it is used once.
    pub(crate) fn used(mut self) -> Option<Slot> {
        self.slot.take()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.slot.take().is_some() {
            self.app.backlog.slots_freed(&self.app.slots);
        }
    }
}
