//! A good history is clean, and each hand-made bad one is flagged by exactly the invariant that is meant.

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::history::{Ack, Answer, Done, Event, Row, What};
use crate::ledger::{Phase, Record};
use crate::sink::Effect;

const JOB: Uuid = Uuid::from_u128(1);
/// A job that needed one attempt.
const EASY: Uuid = Uuid::from_u128(2);

fn second(number: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::seconds(number)
}

fn event(
    seq: i32,
    kind: &str,
    at: i64,
    attempt: i32,
    runner: Option<&str>,
    actor: &str,
    data: Value,
) -> Event {
    Event {
        seq,
        kind: kind.to_owned(),
        at: second(at),
        attempt,
        runner: runner.map(str::to_owned),
        actor: actor.to_owned(),
        data,
    }
}

fn record(job: Uuid, fence: i64, attempt: i32, phase: Phase, at: u64) -> Record {
    Record {
        job,
        fence,
        attempt,
        phase,
        pid: 1,
        parent: 2,
        at,
    }
}

/// One job that was lost once and then succeeded, and one that succeeded at once.
fn good() -> History {
    let r1 = Some("r1");
    let r2 = Some("r2");
    let run_at = |at: i64| json!({ "run_at": second(at).format(&time::format_description::well_known::Rfc3339).expect("a text") });
    let mut history = History {
        read_at: Some(second(100)),
        recovery_limit: Duration::seconds(5),
        ..History::default()
    };
    history.events.insert(
        JOB,
        vec![
            event(1, "queued", 1, 0, None, "key:k", run_at(1)),
            event(2, "running", 2, 1, r1, "runner:r1", json!({ "fence": 10 })),
            event(3, "lease_expired", 5, 1, r1, "sweep:r2", json!({})),
            event(4, "retry_scheduled", 5, 1, r1, "sweep:r2", run_at(5)),
            event(5, "running", 6, 2, r2, "runner:r2", json!({ "fence": 12 })),
            event(6, "stale_result_refused", 7, 1, r1, "runner:r1", json!({})),
            event(7, "succeeded", 8, 2, r2, "runner:r2", json!({})),
        ],
    );
    history.events.insert(
        EASY,
        vec![
            event(1, "queued", 1, 0, None, "key:k", run_at(1)),
            event(2, "running", 3, 1, r2, "runner:r2", json!({ "fence": 11 })),
            event(3, "succeeded", 4, 1, r2, "runner:r2", json!({})),
        ],
    );
    for (job, attempt, fence, key, started, finished) in
        [(JOB, 2, 12, "a", 6, 8), (EASY, 1, 11, "b", 3, 4)]
    {
        history.rows.insert(
            job,
            Row {
                status: "succeeded".to_owned(),
                attempt,
                max_attempts: 3,
                runner: Some("r2".to_owned()),
                fence,
                key: Some(key.to_owned()),
                started_at: Some(second(started)),
                finished_at: Some(second(finished)),
                dead_lettered_at: None,
            },
        );
        history.acks.push(Ack {
            key: key.to_owned(),
            job: Some(job),
        });
        history.answers.push(Answer {
            status: 201,
            retry_after: false,
            body: String::new(),
        });
    }
    history.ledger = vec![
        record(JOB, 10, 1, Phase::Start, 2000),
        record(JOB, 10, 1, Phase::Beat, 2500),
        record(EASY, 11, 1, Phase::Start, 3000),
        record(EASY, 11, 1, Phase::Done, 3500),
        record(JOB, 12, 2, Phase::Start, 6000),
        record(JOB, 12, 2, Phase::Beat, 6500),
        record(JOB, 12, 2, Phase::Done, 7500),
    ];
    let effect = |job, fence, accepted| Effect {
        job,
        fence,
        accepted,
    };
    history.effects = vec![
        effect(EASY, 11, true),
        effect(JOB, 12, true),
        effect(JOB, 10, false),
    ];
    history.faults.push(Done {
        what: What::Killed("r1".to_owned()),
        from: 2600,
        until: 4000,
        from_wall: second(3),
        until_wall: second(4),
    });
    history.folders_left.push((JOB, 10));
    history
}

fn row(history: &mut History, job: Uuid) -> &mut Row {
    history.rows.get_mut(&job).expect("a row")
}

fn events(history: &mut History, job: Uuid) -> &mut Vec<Event> {
    history.events.get_mut(&job).expect("events")
}

fn paused(from: u64, until: u64) -> Done {
    Done {
        what: What::Paused("r1".to_owned()),
        from,
        until,
        from_wall: second(2),
        until_wall: second(9),
    }
}

#[test]
fn a_good_history_is_clean() {
    assert_eq!(check(&good()), []);
    assert_eq!(recoveries(&good()), [(JOB, Duration::seconds(2))]);
}

#[test]
fn each_bad_history_is_flagged_by_exactly_the_invariant_that_is_meant() {
    type Damage = fn(&mut History);
    let damages: &[(Invariant, &str, Damage)] = &[
        (Invariant::NoLoss, "an acknowledged job is gone", |h| {
            h.rows.remove(&EASY);
            h.events.remove(&EASY);
            h.ledger.retain(|record| record.job != EASY);
        }),
        (Invariant::NoDouble, "two jobs bear one key", |h| {
            row(h, EASY).key = Some("a".to_owned());
            h.acks.retain(|ack| ack.key == "a");
        }),
        (Invariant::NoDouble, "one key was told of two jobs", |h| {
            h.acks.push(Ack {
                key: "a".to_owned(),
                job: Some(EASY),
            });
        }),
        (Invariant::NoDouble, "a job that nobody asked for", |h| {
            h.acks.retain(|ack| ack.key == "a");
        }),
        (Invariant::Settles, "a job that stays queued", |h| {
            let easy = row(h, EASY);
            (easy.status, easy.attempt, easy.fence) = ("queued".to_owned(), 0, 0);
            (easy.runner, easy.started_at, easy.finished_at) = (None, None, None);
            events(h, EASY).truncate(1);
            h.ledger.retain(|record| record.job != EASY);
        }),
        (Invariant::Language, "a success from the queue", |h| {
            let first = events(h, EASY)[0].clone();
            // It says that it was queued twice.
            events(h, EASY).insert(1, Event { seq: 2, ..first });
            events(h, EASY)[2].seq = 3;
            events(h, EASY)[3].seq = 4;
        }),
        (Invariant::Language, "a gap in the numbers", |h| {
            events(h, EASY)[2].seq = 4;
        }),
        (Invariant::Language, "an event after the end", |h| {
            let progress = event(4, "progress", 9, 1, Some("r2"), "runner:r2", json!({}));
            events(h, EASY).push(progress);
        }),
        (Invariant::Fold, "a status that nothing explains", |h| {
            row(h, EASY).status = "failed".to_owned();
        }),
        (Invariant::Fold, "an attempt too many", |h| {
            row(h, EASY).attempt = 2;
        }),
        (Invariant::Fold, "a fence of its own", |h| {
            row(h, EASY).fence = 13;
        }),
        (Invariant::Fold, "another runner", |h| {
            row(h, EASY).runner = Some("r1".to_owned());
        }),
        (Invariant::Fold, "a dead letter without an event", |h| {
            row(h, EASY).dead_lettered_at = Some(second(4));
        }),
        (Invariant::Fold, "another beginning", |h| {
            row(h, EASY).started_at = Some(second(1));
        }),
        (Invariant::Fence, "a fence that goes back", |h| {
            events(h, JOB)[4].data = json!({ "fence": 9 });
            row(h, JOB).fence = 9;
            h.ledger
                .iter_mut()
                .filter(|record| record.fence == 12)
                .for_each(|record| record.fence = 9);
            h.effects.clear();
        }),
        (Invariant::Fence, "a fence of two jobs", |h| {
            events(h, EASY)[1].data = json!({ "fence": 12 });
            row(h, EASY).fence = 12;
            h.ledger
                .iter_mut()
                .filter(|record| record.fence == 11)
                .for_each(|record| record.fence = 12);
        }),
        (Invariant::Budget, "an attempt beyond the budget", |h| {
            row(h, JOB).max_attempts = 1;
        }),
        (Invariant::Budget, "a claim before its time", |h| {
            events(h, JOB)[3].data = json!({ "run_at": "1970-01-01T00:00:07Z" });
        }),
        (Invariant::Budget, "a retry put off for an hour", |h| {
            let hour = json!({ "run_at": "1970-01-01T01:00:00Z" });
            let easy = events(h, EASY);
            easy.truncate(2);
            easy.push(event(
                3,
                "retry_scheduled",
                4,
                1,
                Some("r2"),
                "runner:r2",
                hour,
            ));
            easy.push(event(4, "aborted", 5, 1, None, "key:k", json!({})));
            let easy = row(h, EASY);
            (easy.status, easy.runner, easy.fence) = ("aborted".to_owned(), None, 12);
            easy.finished_at = Some(second(5));
            h.ledger
                .iter_mut()
                .filter(|record| record.job == EASY && record.phase == Phase::Done)
                .for_each(|record| record.phase = Phase::Again);
        }),
        (
            Invariant::LedgerIsEvents,
            "a handler that nobody claimed for",
            |h| {
                h.ledger.push(record(EASY, 99, 1, Phase::Start, 9000));
            },
        ),
        (
            Invariant::LedgerIsEvents,
            "two handlers of one claim",
            |h| {
                h.ledger.push(record(EASY, 11, 1, Phase::Start, 3100));
            },
        ),
        (
            Invariant::LedgerIsEvents,
            "a success without a handler",
            |h| h.ledger.retain(|record| record.job != EASY),
        ),
        (
            Invariant::LedgerIsEvents,
            "a handler's success that was forgotten",
            |h| {
                events(h, EASY)[2].kind = "failed".to_owned();
                row(h, EASY).status = "failed".to_owned();
            },
        ),
        (Invariant::LedgerIsEvents, "a torn record", |h| h.torn = 1),
        (Invariant::Overlap, "two handlers at once", |h| {
            h.ledger.push(record(JOB, 10, 1, Phase::Beat, 6200));
        }),
        (
            Invariant::Overlap,
            "at once, and the pause was another time",
            |h| {
                h.ledger.push(record(JOB, 10, 1, Phase::Beat, 6200));
                h.faults.push(paused(7000, 8000));
            },
        ),
        (
            Invariant::Overlap,
            "a stale effect that was accepted",
            |h| h.effects[2].accepted = true,
        ),
        (Invariant::Recovery, "a job that came back late", |h| {
            h.recovery_limit = Duration::seconds(1);
        }),
        (Invariant::NoProcessLeft, "a process that lives on", |h| {
            h.processes_left.push("7 sleep".to_owned());
        }),
        (Invariant::Time, "an instant that goes back", |h| {
            events(h, JOB)[5].at = second(5);
        }),
        (Invariant::Time, "an instant in the future", |h| {
            h.read_at = Some(second(7));
        }),
        (
            Invariant::NothingLeft,
            "a folder that nobody's death explains",
            |h| h.folders_left.push((EASY, 11)),
        ),
        (Invariant::NothingLeft, "a session that is left", |h| {
            h.sessions_left = 1;
        }),
        (Invariant::Answers, "a 500", |h| h.answers[0].status = 500),
        (
            Invariant::Answers,
            "a 503 that does not say when to come back",
            |h| h.answers[0].status = 503,
        ),
    ];
    for (invariant, name, damage) in damages {
        let mut history = good();
        damage(&mut history);
        let mut flagged: Vec<Invariant> = check(&history)
            .into_iter()
            .map(|violation| violation.invariant)
            .collect();
        flagged.dedup();
        assert_eq!(flagged, [*invariant], "{name}: {:#?}", check(&history));
    }
}

#[test]
fn an_overlap_in_a_declared_pause_is_excused_but_never_a_stale_effect() {
    let mut history = good();
    history.ledger.push(record(JOB, 10, 1, Phase::Beat, 6200));
    history.faults.push(paused(2400, 6100));
    assert_eq!(check(&history), []);
    history.effects[2].accepted = true;
    assert_eq!(check(&history).len(), 1);
}

#[test]
fn work_that_was_done_is_done_again_only_where_its_runner_feared_for_its_lease() {
    let mut history = good();
    events(&mut history, EASY)[2].kind = "failed".to_owned();
    row(&mut history, EASY).status = "failed".to_owned();
    assert_eq!(check(&history).len(), 1);
    let mut pause = paused(3100, 3200);
    history.faults.push(pause.clone());
    assert_eq!(check(&history).len(), 1, "another runner stood still");
    pause.what = What::Paused("r2".to_owned());
    history.faults.push(pause);
    assert_eq!(check(&history), []);
}

#[test]
fn a_kill_while_the_database_was_away_is_not_measured() {
    let mut history = good();
    history.faults.push(Done {
        what: What::DatabaseDisturbed,
        from: 0,
        until: 0,
        from_wall: second(5),
        until_wall: second(6),
    });
    assert_eq!(recoveries(&history), []);
}
