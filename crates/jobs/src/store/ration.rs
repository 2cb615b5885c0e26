//! How often a look may pass by rows that nobody needs any more. They are there until they are vacuumed, which an old snapshot
//! can put off for hours; while passing them by costs much, a look goes all the way but now and then.

use std::time::{Duration, Instant};

/// One may be dear by chance, because the machine was busy; so many in a row are not.
const BY_CHANCE: u32 = 2;
/// The next look comes after so many times as long as the last one took: looking takes a twentieth of the time.
const SHARE: u32 = 20;
/// Where a look did not come to its end, the next one comes after so long.
const AFTER_A_FAILURE: Duration = Duration::from_secs(60);

/// Looks that were dear, in a row, and when the next one may be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ration {
    in_a_row: u32,
    until: Instant,
}

impl Ration {
    /// After one more dear look that took so long.
    pub(super) fn after(before: Option<Self>, took: Duration) -> Self {
        Self {
            in_a_row: before.map_or(0, |before| before.in_a_row).saturating_add(1),
            until: Instant::now() + took * SHARE,
        }
    }

    /// Notes a look that came to no end: it may have taken longer than a statement may, and the next one would do no better.
    pub(super) fn note_failure(&mut self) {
        self.until = Instant::now() + AFTER_A_FAILURE;
    }

    /// Whether looks are dear, and not by chance.
    pub(super) fn is_dear(self) -> bool {
        self.in_a_row > BY_CHANCE
    }

    /// Whether they are, and the next one is still to wait.
    pub(super) fn is_used_up(self) -> bool {
        self.is_dear() && Instant::now() < self.until
    }

    /// Whether one more would show that they are dear.
    pub(super) fn is_nearly_dear(self) -> bool {
        self.in_a_row >= BY_CHANCE
    }
}
