//! One watched job: the newest of what it has to tell, and where that begins. Reads nothing itself.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use jobs::LogPiece;
use tokio::sync::watch;
use uuid::Uuid;

use super::Kind;

/// So much of each watched job is kept for those who are a little late; older things they read for themselves.
const MOST_BYTES: usize = 128 * 1024;

/// What one reading of the database found.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// An event, as it is sent.
    Event { seq: i64, frame: Bytes },
    /// Some lines, which everybody puts into words for himself: as sent, they are many times as long.
    Lines(Arc<LogPiece>),
}

impl Item {
    pub(crate) fn last_seq(&self) -> i64 {
        match self {
            Self::Event { seq, .. } => *seq,
            Self::Lines(piece) => piece.last_seq(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Event { frame, .. } => frame.len(),
            Self::Lines(piece) => piece.body.len(),
        }
    }
}

/// What is known of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody has looked yet.
    Unknown,
    /// There is no such job.
    Missing,
    /// There is.
    Known,
    /// No more is read here: the process stops.
    Closed,
}

/// What there is for somebody who has everything up to a number.
pub(crate) enum Taken {
    /// These come next.
    Items(Vec<Item>),
    /// It is further behind than the shared memory reaches.
    Behind,
    /// Nothing yet.
    Nothing,
    /// Nothing, and there will be nothing more.
    Ended,
}

/// A watched job.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) kind: Kind,
    pub(crate) id: Uuid,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    /// Everything after this number, and up to `last`, is in `items`.
    begins_after: i64,
    last: i64,
    items: VecDeque<Item>,
    bytes: usize,
    /// Whether nothing comes after `last` any more.
    ended: bool,
}

impl Topic {
    pub(super) fn new(kind: Kind, id: Uuid) -> Self {
        Self {
            kind,
            id,
            state: Mutex::new(State {
                standing: Standing::Unknown,
                begins_after: 0,
                last: 0,
                items: VecDeque::new(),
                bytes: 0,
                ended: false,
            }),
            changed: watch::Sender::new(()),
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        self.state().standing
    }

    /// Hears of every change from now on.
    pub(crate) fn listen(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What comes after a number, up to so many bytes and the item that reaches them.
    pub(crate) fn take(&self, after: i64, most_bytes: usize) -> Taken {
        let state = self.state();
        if state.standing == Standing::Closed {
            return Taken::Ended;
        }
        if after < state.begins_after {
            return Taken::Behind;
        }
        let mut bytes = 0;
        let from = state.items.partition_point(|item| item.last_seq() <= after);
        let items: Vec<Item> = state
            .items
            .range(from..)
            .take_while(|item| {
                let fits = bytes < most_bytes;
                bytes += item.bytes();
                fits
            })
            .cloned()
            .collect();
        match items.is_empty() {
            false => Taken::Items(items),
            true if state.ended => Taken::Ended,
            true => Taken::Nothing,
        }
    }

    /// How far it was read; `None` before the first look.
    pub(super) fn read_up_to(&self) -> Option<i64> {
        let state = self.state();
        (state.standing == Standing::Known).then_some(state.last)
    }

    /// Whether nothing comes any more, as far as is known here.
    pub(super) fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// Whether there is nothing to look for any more.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.state();
        state.ended || matches!(state.standing, Standing::Missing | Standing::Closed)
    }

    pub(super) fn is_missing(&self) {
        self.change(|state| state.standing = Standing::Missing);
    }

    /// The first look: what is told from here on begins after this number.
    pub(super) fn begins_after(&self, seq: i64) {
        self.change(|state| {
            state.standing = Standing::Known;
            (state.begins_after, state.last) = (seq, seq);
        });
    }

    /// Takes what was found next; what is known already is left out.
    pub(super) fn add(&self, items: impl IntoIterator<Item = Item>) {
        self.change(|state| {
            for item in items {
                if item.last_seq() > state.last {
                    state.last = item.last_seq();
                    state.bytes += item.bytes();
                    state.items.push_back(item);
                }
            }
            while state.bytes > MOST_BYTES && state.items.len() > 1 {
                if let Some(oldest) = state.items.pop_front() {
                    state.bytes -= oldest.bytes();
                    state.begins_after = oldest.last_seq();
                }
            }
        });
    }

    /// Nothing comes after what was read, if that was everything up to this number.
    pub(super) fn ends_at(&self, seq: i64) {
        self.change(|state| state.ended = state.last >= seq);
    }

    pub(super) fn close(&self) {
        self.change(|state| state.standing = Standing::Closed);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: i64, bytes: usize) -> Item {
        Item::Event {
            seq,
            frame: vec![b'x'; bytes].into(),
        }
    }

    fn numbers(topic: &Topic, after: i64) -> Result<Vec<i64>, &'static str> {
        match topic.take(after, usize::MAX) {
            Taken::Items(items) => Ok(items.iter().map(Item::last_seq).collect()),
            Taken::Behind => Err("behind"),
            Taken::Nothing => Err("nothing"),
            Taken::Ended => Err("ended"),
        }
    }

    #[test]
    fn everybody_is_given_what_comes_after_his_own_number() {
        let topic = Topic::new(Kind::Events, Uuid::nil());
        topic.begins_after(2);
        topic.add([event(3, 1), event(4, 1)]);
        topic.add([event(4, 1), event(5, 1)]);
        assert_eq!(numbers(&topic, 1), Err("behind"));
        assert_eq!(numbers(&topic, 2), Ok(vec![3, 4, 5]));
        assert_eq!(numbers(&topic, 4), Ok(vec![5]));
        assert_eq!(numbers(&topic, 5), Err("nothing"));
        topic.ends_at(6);
        assert_eq!(numbers(&topic, 5), Err("nothing"), "6 is still to come");
        topic.ends_at(5);
        assert_eq!(numbers(&topic, 5), Err("ended"));
        assert_eq!(numbers(&topic, 3), Ok(vec![4, 5]), "the end is no loss");
    }

    #[test]
    fn what_is_kept_is_bounded_and_who_is_late_is_told() {
        let topic = Topic::new(Kind::Events, Uuid::nil());
        topic.begins_after(0);
        topic.add((1..=100).map(|seq| event(seq, MOST_BYTES / 10)));
        assert_eq!(numbers(&topic, 0), Err("behind"));
        assert_eq!(numbers(&topic, 90).map(|kept| kept.len()), Ok(10));
    }

    #[test]
    fn an_item_larger_than_what_is_kept_is_kept_until_the_next() {
        let topic = Topic::new(Kind::Events, Uuid::nil());
        topic.begins_after(0);
        topic.add([event(1, 2 * MOST_BYTES)]);
        assert_eq!(numbers(&topic, 0), Ok(vec![1]));
    }
}
