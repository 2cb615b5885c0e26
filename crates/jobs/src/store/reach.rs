//! How far back a look through the running jobs goes. Jobs that have ended leave entries behind in the index of those that run,
//! which each look passes by until they are vacuumed. While that costs much, a look goes back to the look before, and knows by
//! their ids those that ran then; all the way it goes but now and then.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::ration::Ration;

/// What began so long before a look may have become visible after it: its claim was still to be committed. What took even
/// longer is found by the next look that goes all the way.
const COMMITTED_WITHIN: Duration = Duration::from_secs(1);

/// Which of the running jobs are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Those that began since; `None`: all.
    pub(super) since: Option<OffsetDateTime>,
    /// Those that began before, by their ids; some of them may have ended.
    pub(super) known: Vec<Uuid>,
}

/// What a look has seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// When it began, by the database's clock.
    pub(super) at: OffsetDateTime,
    /// All jobs that ran then.
    pub(super) running: Vec<Uuid>,
}

#[derive(Debug, Default)]
struct State {
    ration: Option<Ration>,
    seen: Option<Seen>,
}

/// How far back the looks of a process go.
#[derive(Debug)]
pub(super) struct Reaches {
    /// A look that goes all the way and takes longer is dear.
    dear: Duration,
    state: Mutex<State>,
}

/// A look that is under way. One that is dropped has come to no end.
#[derive(Debug)]
pub(super) struct Look<'a> {
    reaches: &'a Reaches,
    pub(super) reach: Reach,
    /// Whether it is to tell what it has seen.
    pub(super) tells: bool,
    has_ended: bool,
}

impl Reaches {
    /// As nothing was looked at yet.
    pub(super) fn new(dear: Duration) -> Self {
        Self {
            dear,
            state: Mutex::default(),
        }
    }

    /// Begins the next look.
    pub(super) fn begin(&self) -> Look<'_> {
        let state = self.state();
        let reach = match (state.ration, &state.seen) {
            (Some(ration), Some(seen)) if ration.is_used_up() => seen.reach(),
            _ => Reach::default(),
        };
        Look {
            reaches: self,
            tells: reach.since.is_some() || state.ration.is_some_and(Ration::is_nearly_dear),
            reach,
            has_ended: false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Look<'_> {
    /// Notes how long it took, and what it has seen where it tells.
    pub(super) fn note(mut self, took: Duration, seen: Option<Seen>) {
        self.has_ended = true;
        let mut state = self.reaches.state();
        if self.reach.since.is_some() {
            // Another may have gone all the way meanwhile, and found that looks need not be cut short.
            if state.seen.is_some() && seen.is_some() {
                state.seen = seen;
            }
        } else if took < self.reaches.dear {
            *state = State::default();
        } else {
            let ration = Ration::after(state.ration, took);
            state.ration = Some(ration);
            state.seen = seen.filter(|_| ration.is_dear());
        }
    }

    /// Ends one that looked for something else, and says nothing of what looking costs.
    pub(super) fn end(mut self) {
        self.has_ended = true;
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        if !self.has_ended
            && self.reach.since.is_none()
            && let Some(ration) = &mut self.reaches.state().ration
        {
            ration.note_failure();
        }
    }
}

impl Seen {
    fn reach(&self) -> Reach {
        Reach {
            since: Some(self.at - COMMITTED_WITHIN),
            known: self.running.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAR: Duration = Duration::from_millis(10);
    const SLOW: Duration = Duration::from_secs(60);

    fn seen(second: u64) -> Seen {
        Seen {
            at: OffsetDateTime::UNIX_EPOCH + Duration::from_secs(second),
            running: vec![Uuid::from_u128(second.into())],
        }
    }

    /// Looks as the product does; gives how far.
    fn look(reaches: &Reaches, second: u64, took: Duration) -> Reach {
        let look = reaches.begin();
        let (reach, seen) = (look.reach.clone(), look.tells.then(|| seen(second)));
        look.note(took, seen);
        reach
    }

    fn next(reaches: &Reaches) -> Reach {
        let look = reaches.begin();
        let reach = look.reach.clone();
        look.end();
        reach
    }

    /// After three dear looks, once the time of the next one that goes all the way has come.
    fn dear_and_due() -> Reaches {
        let reaches = Reaches::new(Duration::ZERO);
        for second in 1..=3 {
            look(&reaches, second, Duration::from_nanos(1));
        }
        while next(&reaches) != Reach::default() {
            std::thread::yield_now();
        }
        reaches
    }

    #[test]
    fn looks_that_are_dear_every_time_go_back_to_the_look_before() {
        let reaches = Reaches::new(DEAR);
        for second in 1..=3 {
            assert_eq!(look(&reaches, second, SLOW), Reach::default(), "{second}");
        }
        assert_eq!(look(&reaches, 4, SLOW), seen(3).reach());
        assert_eq!(look(&reaches, 5, Duration::ZERO), seen(4).reach());
        assert_eq!(next(&reaches), seen(5).reach());
    }

    #[test]
    fn a_look_that_is_dear_by_chance_changes_nothing() {
        let reaches = Reaches::new(DEAR);
        for took in [SLOW, SLOW, Duration::ZERO, SLOW, SLOW] {
            assert_eq!(look(&reaches, 1, took), Reach::default());
        }
    }

    #[test]
    fn after_its_time_a_look_goes_all_the_way_again_and_says_how_it_is_now() {
        let reaches = dear_and_due();
        look(&reaches, 4, SLOW);
        assert_eq!(next(&reaches), seen(4).reach(), "it is dear still");
    }

    #[test]
    fn a_look_that_goes_all_the_way_and_is_cheap_ends_it() {
        let reaches = Reaches::new(DEAR);
        for second in 1..=2 {
            look(&reaches, second, SLOW);
        }
        let whole = reaches.begin();
        look(&reaches, 3, SLOW);
        let short = reaches.begin();
        assert_ne!(short.reach, Reach::default());
        whole.note(Duration::ZERO, None);
        short.note(Duration::ZERO, Some(seen(4)));
        assert_eq!(next(&reaches), Reach::default());
    }

    #[test]
    fn a_look_that_is_cut_off_on_its_way_is_not_tried_over_and_over() {
        let reaches = dear_and_due();
        drop(reaches.begin());
        assert_eq!(next(&reaches), seen(3).reach());
    }
}
