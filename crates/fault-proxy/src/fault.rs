//! What can be done to a connection, in which direction, and to which ones. Does nothing itself.

use std::time::Duration;

use tokio::sync::watch;

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They arrive.
    Pass,
    /// They wait, and arrive when they pass again.
    Hold,
    /// They are read and dropped, and nobody is told, not even of an end.
    BlackHole,
    /// Each piece arrives so much later.
    Delay(Duration),
    /// So many more arrive; then both ends are reset.
    CutAfter(u64),
    /// Both ends are reset.
    Reset,
}

/// Which bytes of a connection are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
    /// All.
    Both,
}

/// Which connections are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those that are established now.
    Established,
    /// Those that come from now on.
    New,
    /// Both.
    All,
}

/// The faults of the two directions, of one connection or of those to come.
#[derive(Debug)]
pub(crate) struct Faults {
    pub(crate) up: watch::Sender<Fault>,
    pub(crate) down: watch::Sender<Fault>,
}

impl Faults {
    pub(crate) fn new(up: Fault, down: Fault) -> Self {
        Self {
            up: watch::Sender::new(up),
            down: watch::Sender::new(down),
        }
    }

    pub(crate) fn like(other: &Self) -> Self {
        Self::new(*other.up.borrow(), *other.down.borrow())
    }

    pub(crate) fn set(&self, direction: Direction, fault: Fault) {
        if direction != Direction::Down {
            self.up.send_replace(fault);
        }
        if direction != Direction::Up {
            self.down.send_replace(fault);
        }
    }
}
