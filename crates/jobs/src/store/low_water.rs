//! Where claims begin to look. Jobs that have been claimed leave entries behind that cost each claim a look until they are
//! vacuumed, which an old snapshot can put off for hours. While that costs much, claims look only behind what they took last,
//! and from the start but now and then: a job of higher priority or of a late commit is then found a little later.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::ration::Ration;
use crate::lease::TypeTerms;
use crate::name::Name;

/// A place in the order of claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) claim_order: OffsetDateTime,
    pub(super) id: Uuid,
}

impl Place {
    /// Before every job.
    pub(super) const START: Self = Self {
        claim_order: OffsetDateTime::UNIX_EPOCH,
        id: Uuid::nil(),
    };
}

/// What a claim has found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The last of what it took.
    pub(super) last: Place,
    /// How long it looked for the first.
    pub(super) searched: Duration,
}

#[derive(Debug)]
struct Dear {
    types: Vec<Name>,
    ration: Ration,
    place: Place,
}

/// Where the claims of a process begin to look.
#[derive(Debug)]
pub(super) struct LowWater {
    /// A look from the start that takes longer is dear.
    dear: Duration,
    state: Mutex<Option<Dear>>,
}

impl LowWater {
    /// As nothing was looked at yet.
    pub(super) fn new(dear: Duration) -> Self {
        Self {
            dear,
            state: Mutex::default(),
        }
    }

    /// Where a claim of these types begins.
    pub(super) fn place(&self, types: &[&TypeTerms]) -> Place {
        match &*self.dear() {
            Some(dear) if dear.ration.is_used_up() && dear.is_of(types) => dear.place,
            Some(_) | None => Place::START,
        }
    }

    /// Notes what a claim found that began there.
    pub(super) fn note(&self, types: &[&TypeTerms], from: Place, found: Option<Found>) {
        let mut dear = self.dear();
        let known = dear.take().filter(|dear| dear.is_of(types));
        *dear = match (known, found) {
            // From the start: is it dear still?
            (known, Some(found)) if from == Place::START && found.searched >= self.dear => {
                Some(Dear {
                    types: types.iter().map(|terms| terms.job_type.clone()).collect(),
                    ration: Ration::after(known.map(|dear| dear.ration), found.searched),
                    place: found.last,
                })
            }
            _ if from == Place::START => None,
            (Some(known), Some(found)) => Some(Dear {
                place: known.place.max(found.last),
                ..known
            }),
            (known, _) => known,
        };
    }

    /// Notes that a claim that began there came to no end: it may have looked for longer than a statement may, and the next
    /// one would do no better.
    pub(super) fn note_failure(&self, types: &[&TypeTerms], from: Place) {
        if let Some(dear) = &mut *self.dear()
            && from == Place::START
            && dear.is_of(types)
        {
            dear.ration.note_failure();
        }
    }

    fn dear(&self) -> MutexGuard<'_, Option<Dear>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dear {
    fn is_of(&self, types: &[&TypeTerms]) -> bool {
        self.types
            .iter()
            .eq(types.iter().map(|terms| &terms.job_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAR: Duration = Duration::from_millis(10);
    const SLOW: Duration = Duration::from_secs(60);

    fn terms(name: &str) -> TypeTerms {
        TypeTerms::new(name.parse().expect("a name"))
    }

    fn found(second: i64, searched: Duration) -> Option<Found> {
        let claim_order = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(second.unsigned_abs());
        let id = Uuid::nil();
        let last = Place { claim_order, id };
        Some(Found { last, searched })
    }

    #[test]
    fn looks_begin_behind_what_was_taken_once_looking_from_the_start_is_dear_every_time() {
        let (water, terms) = (LowWater::new(DEAR), terms("a"));
        let types = [&terms];
        for second in 1..=3 {
            assert_eq!(water.place(&types), Place::START, "{second}");
            water.note(&types, Place::START, found(second, SLOW));
        }
        let place = water.place(&types);
        assert_eq!(Some(place), found(3, SLOW).map(|found| found.last));
        water.note(&types, place, found(9, Duration::ZERO));
        let place = water.place(&types);
        assert_eq!(Some(place), found(9, SLOW).map(|found| found.last));
        water.note(&types, place, None);
        assert_eq!(water.place(&types), place, "nothing behind it: as before");
    }

    #[test]
    fn a_look_that_is_dear_by_chance_changes_nothing() {
        let (water, terms) = (LowWater::new(DEAR), terms("a"));
        let types = [&terms];
        for searched in [SLOW, SLOW, Duration::ZERO, SLOW, SLOW] {
            water.note(&types, Place::START, found(1, searched));
            assert_eq!(water.place(&types), Place::START);
        }
    }

    #[test]
    fn after_its_time_a_look_begins_at_the_start_again_and_says_how_it_is_now() {
        let (water, terms) = (LowWater::new(DEAR), terms("a"));
        let types = [&terms];
        for _ in 0..3 {
            water.note(&types, Place::START, found(1, DEAR));
        }
        while water.place(&types) != Place::START {
            std::thread::yield_now();
        }
        water.note(&types, Place::START, found(2, SLOW));
        assert_ne!(water.place(&types), Place::START, "it is dear still");
        water.note(&types, Place::START, found(2, Duration::ZERO));
        assert_eq!(water.place(&types), Place::START);
    }

    #[test]
    fn a_look_from_the_start_that_takes_longer_than_it_may_is_not_tried_over_and_over() {
        let (water, terms) = (LowWater::new(DEAR), terms("a"));
        let types = [&terms];
        for _ in 0..3 {
            water.note(&types, Place::START, found(1, DEAR));
        }
        while water.place(&types) != Place::START {
            std::thread::yield_now();
        }
        water.note_failure(&types, Place::START);
        assert_ne!(water.place(&types), Place::START);
    }

    #[test]
    fn what_is_known_of_some_types_says_nothing_of_others() {
        let (water, a, b) = (LowWater::new(DEAR), terms("a"), terms("b"));
        for _ in 0..3 {
            water.note(&[&a], Place::START, found(1, SLOW));
        }
        assert_eq!(water.place(&[&b]), Place::START);
        assert_eq!(water.place(&[&a, &b]), Place::START);
        assert_ne!(water.place(&[&a]), Place::START);
    }
}
