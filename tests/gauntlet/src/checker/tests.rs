//! A good history is clean, and each hand-made bad one is flagged by exactly the invariant that is meant.

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::chain::Chain;
use crate::history::{Ack, Answer, Chunk, Done, Event, Measure, Row, Terms, What};
use crate::ledger::{Phase, Record};
use crate::sink::Effect;

const JOB: Uuid = Uuid::from_u128(1);
/// A job that needed one attempt.
const EASY: Uuid = Uuid::from_u128(2);

/// Nanoseconds of a millisecond.
const MS: u64 = 1_000_000;

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
        at: at * 1_000_000,
        lines: if phase == Phase::Done { 2 } else { 1 },
    }
}

fn chunk(number: i32, first_line: i32, chain: &mut Chain, lines: i32) -> Chunk {
    Chunk {
        number,
        stream: "stdout".to_owned(),
        first_line,
        lines,
        body: (0..lines).map(|_| chain.next_line() + "\n").collect(),
    }
}

fn mark(number: i32, first_line: i32) -> Chunk {
    Chunk {
        number,
        stream: "runner".to_owned(),
        first_line,
        lines: 1,
        body: "[output cut here: 10 lines, 900 bytes left out]\n".to_owned(),
    }
}

/// Something that was done to everything, from one second to another.
fn done(what: What, from: i64, until: i64) -> Done {
    Done {
        what,
        from: from.unsigned_abs() * 1000 * MS,
        until: until.unsigned_abs() * 1000 * MS,
        from_wall: second(from),
        until_wall: second(until),
        back_wall: None,
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
        terms: Terms {
            slots: 2,
            concurrency: [("noop", 2)].into(),
            timeouts: [("noop", std::time::Duration::from_secs(4))].into(),
            slack: std::time::Duration::from_secs(1),
        },
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
                job_type: "noop".to_owned(),
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
            aborted: None,
        });
        history.answers.push(Answer {
            status: 201,
            at: second(1),
            problem: false,
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
        from: 2600 * MS,
        until: 4000 * MS,
        from_wall: second(3),
        until_wall: second(4),
        back_wall: None,
    });
    for (job, fence, lines) in [(JOB, 10, 1), (EASY, 11, 2), (JOB, 12, 2)] {
        let chunk = chunk(1, 1, &mut Chain::of(job, fence), lines);
        history.logs.insert((job, fence), vec![chunk]);
    }
    history.measures.push(Measure {
        what: "threads".to_owned(),
        before: 4,
        after: 6,
        more: 2,
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

/// The first handler of JOB lives on beside the second; its runner was not killed.
fn overlapping(history: &mut History) {
    history.faults.clear();
    history.folders_left.clear();
    history.ledger.push(record(JOB, 10, 1, Phase::Beat, 6200));
}

fn paused(from: u64, until: u64) -> Done {
    Done {
        from: from * MS,
        until: until * MS,
        ..done(What::Paused("r1".to_owned()), 2, 9)
    }
}

#[test]
fn a_good_history_is_clean() {
    assert_eq!(check(&good()), []);
    assert_eq!(
        recoveries(&good()),
        [Recovery {
            job: JOB,
            class: Class::Dead,
            took: Duration::seconds(2)
        }]
    );
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
                aborted: None,
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
            h.logs.remove(&(JOB, 12));
            let again = chunk(1, 1, &mut Chain::of(JOB, 9), 2);
            h.logs.insert((JOB, 9), vec![again]);
            h.effects.clear();
        }),
        (Invariant::Fence, "a fence of two jobs", |h| {
            events(h, EASY)[1].data = json!({ "fence": 12 });
            row(h, EASY).fence = 12;
            h.ledger
                .iter_mut()
                .filter(|record| record.fence == 11)
                .for_each(|record| record.fence = 12);
            h.logs.remove(&(EASY, 11));
            let again = chunk(1, 1, &mut Chain::of(EASY, 12), 2);
            h.logs.insert((EASY, 12), vec![again]);
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
            (easy.status, easy.runner) = ("aborted".to_owned(), None);
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
        (
            Invariant::LedgerIsEvents,
            "a lease that ran out under work that was done, and nothing had happened",
            |h| {
                h.ledger.push(record(JOB, 10, 1, Phase::Done, 2600));
                h.logs.remove(&(JOB, 10));
                h.faults.clear();
                h.folders_left.clear();
            },
        ),
        (Invariant::Overlap, "two handlers at once", |h| {
            overlapping(h);
        }),
        (
            Invariant::Overlap,
            "at once, and the pause was another time",
            |h| {
                overlapping(h);
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
        (
            Invariant::Language,
            "a claim after its abort was asked for",
            |h| {
                events(h, EASY)[0].seq = 1;
                let mut asked = event(2, "abort_requested", 2, 0, None, "key:k", json!({}));
                asked.attempt = 0;
                let easy = events(h, EASY);
                easy.insert(1, asked);
                (easy[2].seq, easy[3].seq) = (3, 4);
            },
        ),
        (
            Invariant::Deploy,
            "a request that failed in a deploy",
            |h| {
                h.faults.push(done(What::Deploy, 50, 60));
                h.answers[0].at = second(55);
                h.answers[0].status = 0;
            },
        ),
        (Invariant::Deploy, "a lease that ran out in a deploy", |h| {
            h.faults.push(done(What::Deploy, 4, 6));
        }),
        (Invariant::Limits, "too many of a type at once", |h| {
            h.terms.concurrency = [("noop", 0)].into();
        }),
        (Invariant::Limits, "too many on a runner at once", |h| {
            h.terms.slots = 0;
        }),
        (
            Invariant::NoProcessLeft,
            "work that outlives its timeout",
            |h| {
                h.terms.timeouts = [("noop", std::time::Duration::ZERO)].into();
                h.ledger.push(record(JOB, 12, 2, Phase::Beat, 9600));
            },
        ),
        (
            Invariant::NoProcessLeft,
            "work that outlives its abort",
            |h| {
                h.acks[0].aborted = Some(3000 * MS);
                h.faults.clear();
                h.folders_left.clear();
            },
        ),
        (
            Invariant::NoProcessLeft,
            "work that outlives its runner",
            |h| {
                h.ledger.push(record(JOB, 10, 1, Phase::Beat, 4000));
            },
        ),
        (Invariant::Log, "a line that is missing", |h| {
            let body = &mut h.logs.get_mut(&(JOB, 12)).expect("a log")[0];
            body.body = body.body.replacen("1 ", "2 ", 1);
        }),
        (Invariant::Log, "the log of another claim", |h| {
            let other = h.logs[&(EASY, 11)].clone();
            h.logs.insert((JOB, 12), other);
        }),
        (Invariant::Log, "a doubled piece", |h| {
            let chunks = h.logs.get_mut(&(JOB, 12)).expect("a log");
            let again = chunks[0].clone();
            chunks.push(again);
        }),
        (Invariant::Log, "an end that is missing", |h| {
            let chunk = chunk(1, 1, &mut Chain::of(JOB, 12), 1);
            h.logs.insert((JOB, 12), vec![chunk]);
            // Long after the kill.
            h.ledger
                .iter_mut()
                .filter(|record| record.fence == 12)
                .for_each(|record| record.at += 60_000 * MS);
        }),
        (Invariant::Secret, "a secret in a log", |h| {
            h.canaries.push("runner-1.log".to_owned());
        }),
        (Invariant::NothingLeft, "threads that pile up", |h| {
            h.measures[0].after = 7;
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
            |h| (h.answers[0].status, h.answers[0].problem) = (503, true),
        ),
        (
            Invariant::Answers,
            "a refusal that is no problem+json",
            |h| {
                h.answers[0].status = 404;
            },
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
    overlapping(&mut history);
    history.faults.push(paused(2400, 6100));
    assert_eq!(check(&history), []);
    history.effects[2].accepted = true;
    assert_eq!(check(&history).len(), 1);
}

/// The handler of EASY ended well, and its runner gave the work up all the same.
fn given_up(words: &str) -> History {
    let mut history = good();
    let ended = &mut events(&mut history, EASY)[2];
    ended.kind = "failed".to_owned();
    ended.data = json!({ "error": words });
    row(&mut history, EASY).status = "failed".to_owned();
    history
}

const GAVE_UP: &str = "the runner could not renew its lease in time and stopped the work";

#[test]
fn work_that_was_done_is_done_again_only_where_its_runner_feared_for_its_lease() {
    let mut history = given_up(GAVE_UP);
    assert_eq!(check(&history).len(), 1, "nothing had happened");
    let mut pause = paused(3100, 3200);
    history.faults.push(pause.clone());
    assert_eq!(check(&history).len(), 1, "another runner stood still");
    pause.what = What::Paused("r2".to_owned());
    history.faults.push(pause.clone());
    assert_eq!(check(&history), []);
    // A pause long after the handler's end, or other words than those of a lease, explain nothing.
    let mut later = given_up(GAVE_UP);
    later.faults.push(Done {
        from: 60_000 * MS,
        until: 61_000 * MS,
        ..pause.clone()
    });
    assert_eq!(check(&later).len(), 1, "the pause came later");
    let mut other = given_up("exit code 1");
    other.faults.push(pause.clone());
    assert_eq!(check(&other).len(), 1, "the handler had not failed");
    let mut swept = given_up(GAVE_UP);
    swept.faults.push(pause);
    events(&mut swept, EASY)[2].actor = "sweep:r1".to_owned();
    let flagged = check(&swept);
    assert!(
        flagged
            .iter()
            .any(|found| found.invariant == Invariant::LedgerIsEvents),
        "somebody else gave it up: {flagged:?}"
    );
}

#[test]
fn a_job_that_is_aborted_in_the_queue_keeps_the_fence_of_its_newest_claim() {
    let mut history = good();
    let easy = events(&mut history, EASY);
    easy.truncate(2);
    let run_at = json!({ "run_at": "1970-01-01T00:00:05Z" });
    easy.push(event(
        3,
        "retry_scheduled",
        4,
        1,
        Some("r2"),
        "runner:r2",
        run_at,
    ));
    easy.push(event(4, "abort_requested", 5, 1, None, "key:k", json!({})));
    easy.push(event(5, "aborted", 5, 1, None, "key:k", json!({})));
    history
        .ledger
        .iter_mut()
        .filter(|record| record.job == EASY && record.phase == Phase::Done)
        .for_each(|record| record.phase = Phase::Again);
    let easy = row(&mut history, EASY);
    (easy.status, easy.runner) = ("aborted".to_owned(), None);
    easy.finished_at = Some(second(5));
    assert_eq!(check(&history), []);
    row(&mut history, EASY).fence = 12;
    assert_eq!(check(&history).len(), 1);
}

#[test]
fn a_flood_may_be_cut_where_a_mark_says_so_and_nowhere_else() {
    let mut history = good();
    let mut chain = Chain::of(EASY, 11);
    let head = chunk(1, 1, &mut chain, 3);
    for _ in 0..10 {
        chain.next_line();
    }
    let tail = chunk(3, 15, &mut chain, 2);
    let lines = |history: &mut History| {
        history
            .ledger
            .iter_mut()
            .filter(|record| record.fence == 11 && record.phase == Phase::Done)
            .for_each(|record| record.lines = 15);
    };
    lines(&mut history);
    let marked = vec![head.clone(), mark(2, 4), tail.clone()];
    history.logs.insert((EASY, 11), marked);
    assert_eq!(check(&history), []);
    history
        .logs
        .insert((EASY, 11), vec![head.clone(), mark(2, 4)]);
    assert_eq!(check(&history), [], "without its end");
    let misnumbered = Chunk {
        first_line: 14,
        ..tail.clone()
    };
    history
        .logs
        .insert((EASY, 11), vec![head.clone(), mark(2, 4), misnumbered]);
    assert_eq!(
        check(&history).len(),
        1,
        "a gap that is not what the mark says"
    );
    let unmarked = vec![
        head,
        Chunk {
            number: 2,
            first_line: 4,
            ..tail
        },
    ];
    history.logs.insert((EASY, 11), unmarked);
    assert_eq!(check(&history).len(), 1);
}

#[test]
fn a_kill_while_the_database_was_away_is_not_measured() {
    let mut history = good();
    history.faults.push(done(What::DatabaseDisturbed, 5, 6));
    assert_eq!(recoveries(&history), []);
}

#[test]
fn what_came_back_after_its_runner_did_is_measured_from_there() {
    let mut history = good();
    history.faults[0].back_wall = Some(second(4));
    let found = recoveries(&history);
    assert_eq!(
        found,
        [Recovery {
            job: JOB,
            class: Class::Restarted,
            took: Duration::seconds(1)
        }]
    );
}
