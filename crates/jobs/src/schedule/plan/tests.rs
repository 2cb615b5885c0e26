//! Plans against a schedule whose every instant is followed, whatever the policies and wherever the clock stands.

use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const NOON: OffsetDateTime = datetime!(2026-06-01 12:00:00 UTC);

fn minutely() -> Grid {
    Grid::new("* * * * *", "UTC").expect("a grid")
}

fn standing(minutes_behind: i64) -> Standing<'static> {
    Standing {
        name: "s",
        now: NOON + Duration::seconds(1),
        from: NOON - Duration::minutes(minutes_behind),
        pause: Pause::Never,
        waiting: None,
        busy: false,
        decided: &[],
        catch_up: CatchUp::Skip,
        limit: 100,
        grace: Duration::seconds(300),
        overlap: Overlap::Allow,
        jitter: 0,
    }
}

/// Plans again and again, as ticks do, until nothing more is due.
fn all(mut standing: Standing<'_>) -> (Vec<Entry>, Plan) {
    let grid = minutely();
    let mut entries = Vec::new();
    loop {
        let plan = standing.plan(&grid);
        entries.extend(plan.entries.clone());
        if !plan.more {
            return (entries, plan);
        }
        standing.busy |= plan
            .entries
            .iter()
            .any(|entry| entry.outcome == FireOutcome::Fired);
        standing.from = plan.next.expect("more is due");
        standing.waiting = plan.waiting;
    }
}

fn count(entries: &[Entry], outcome: FireOutcome) -> i32 {
    let of = entries.iter().filter(|entry| entry.outcome == outcome);
    of.map(|entry| entry.instants).sum()
}

#[test]
fn what_is_due_now_fires_at_once_whatever_the_policies() {
    for catch_up in [CatchUp::Skip, CatchUp::One, CatchUp::All] {
        for overlap in [Overlap::Skip, Overlap::Queue, Overlap::Allow] {
            let now = Standing {
                catch_up,
                overlap,
                ..standing(0)
            };
            let (entries, plan) = all(now);
            assert_eq!(entries.len(), 1, "{catch_up:?} {overlap:?}");
            assert_eq!(entries[0].outcome, FireOutcome::Fired);
            assert_eq!((entries[0].instant, &entries[0].reason), (NOON, &None));
            assert_eq!(plan.next, Some(NOON + Duration::MINUTE));
        }
    }
    let early = Standing {
        now: NOON - Duration::SECOND,
        ..standing(0)
    };
    assert!(all(early).0.is_empty(), "not before its instant");
}

#[test]
fn a_month_is_planned_in_bounded_pages() {
    let behind = 30 * 24 * 60;
    for (catch_up, fired) in [(CatchUp::Skip, 1), (CatchUp::One, 1), (CatchUp::All, 105)] {
        let (entries, plan) = all(Standing {
            catch_up,
            ..standing(behind)
        });
        // With `all`, the five of the last five minutes are not late.
        assert_eq!(count(&entries, FireOutcome::Fired), fired, "{catch_up:?}");
        let total = i32::try_from(behind + 1).expect("small");
        assert_eq!(
            count(&entries, FireOutcome::Missed),
            total - fired,
            "{catch_up:?}"
        );
        assert!(entries.len() < 250, "{catch_up:?}: {} rows", entries.len());
        assert_eq!(plan.next, Some(NOON + Duration::MINUTE));
    }
}

#[test]
fn a_paused_schedule_lets_go_of_what_waits() {
    let paused = Standing {
        pause: Pause::Is("paused by ann".to_owned()),
        waiting: Some(NOON - Duration::HOUR),
        busy: true,
        ..standing(1)
    };
    let (entries, plan) = all(paused);
    assert_eq!(count(&entries, FireOutcome::Paused), 3);
    assert_eq!(plan.waiting, None);
}

#[test]
fn jitter_is_the_same_for_everyone_within_bounds_and_spread() {
    let instants = (0..1000).map(|minute| NOON + Duration::minutes(minute));
    let seconds: Vec<i64> = instants
        .map(|instant| {
            let one = jitter("s", instant, 59);
            assert_eq!(one, jitter("s", instant, 59));
            one.whole_seconds()
        })
        .collect();
    assert!(seconds.iter().all(|second| (0..=59).contains(second)));
    for second in 0..=59 {
        assert!(seconds.contains(&second), "{second} never comes");
    }
    assert_eq!(jitter("s", NOON, 0), Duration::ZERO);
    // Kept for good: programs of two versions must agree.
    assert_eq!(jitter("nightly", NOON, 3600).whole_seconds(), 1530);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_instant_ends_exactly_once_under_any_policy(
        behind in 0_i64..15_000,
        catch_up in prop::sample::select(vec![CatchUp::Skip, CatchUp::One, CatchUp::All]),
        overlap in prop::sample::select(vec![Overlap::Skip, Overlap::Queue, Overlap::Allow]),
        limit in 1_usize..=1000,
        busy: bool,
        jitter in 0_u32..120,
        paused in prop::option::of((0_i64..15_000, 0_i64..15_000)),
        decided in prop::option::of((0_i64..15_000, 0_i64..200)),
    ) {
        let back = |minutes: i64| NOON - Duration::minutes(minutes);
        let decided: Vec<_> = decided.into_iter().map(|(at, long)| (back(at), back(at) + Duration::minutes(long))).collect();
        let pause = paused.map_or(Pause::Never, |(from, long)| {
            Pause::Was(back(from), back(from) + Duration::minutes(long), "paused".to_owned())
        });
        let standing = Standing { catch_up, overlap, limit, busy, jitter, pause, decided: &decided, ..standing(behind) };
        let (entries, last) = all(standing);
        let mut seen = std::collections::BTreeSet::new();
        for entry in &entries {
            let minutes = (entry.through - entry.instant).whole_minutes();
            prop_assert_eq!(minutes + 1, i64::from(entry.instants));
            for minute in 0..=minutes {
                prop_assert!(seen.insert(entry.instant + Duration::minutes(minute)), "twice");
            }
        }
        let next = last.next.expect("always another");
        let mut expected = back(behind);
        while expected < next {
            let known = decided.iter().any(|(from, to)| (*from..=*to).contains(&expected));
            let waits = last.waiting == Some(expected);
            prop_assert_eq!(seen.contains(&expected), !known && !waits, "{}", expected);
            expected += Duration::MINUTE;
        }
        prop_assert!(seen.iter().all(|instant| *instant < next));
        prop_assert!(entries.len() < 2500);
    }
}
