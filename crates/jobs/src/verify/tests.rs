//! Right histories are explained, and each hand-made wrong one is found under its own subject.

use serde_json::json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::*;

/// `kind`, or `kind@actor`; a claim is by r1, under the fence 10 times its number.
fn history(words: &[&str]) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let (mut attempt, mut claims) = (0, 0);
    for (index, word) in words.iter().enumerate() {
        let (kind, actor) = word.split_once('@').unwrap_or((word, "runner:r1"));
        let joined = matches!(kind, "dead_lettered")
            || matches!(
                events.last().map(|last| last.kind.as_str()),
                Some("lease_expired")
            );
        let last = events
            .last()
            .map_or(OffsetDateTime::UNIX_EPOCH, |last| last.at);
        if kind == "running" {
            attempt += 1;
            claims += 1;
        }
        if kind == "replayed" {
            attempt = 0;
        }
        let claimed = events.iter().rev().find_map(|event: &Event| {
            Step::of(&event.kind, None)
                .eq(&Step::To(Status::Running))
                .then_some(())
        });
        events.push(Event {
            job_id: Uuid::nil(),
            seq: i32::try_from(index).expect("short") + 1,
            at: if joined {
                last
            } else {
                last + Duration::SECOND
            },
            kind: kind.to_owned(),
            attempt,
            runner_id: (kind == "running" || claimed.is_some()).then(|| "r1".to_owned()),
            actor: actor.to_owned(),
            data: if kind == "running" {
                json!({ "fence": claims * 10 })
            } else {
                json!({})
            },
        });
        if kind == "released" {
            attempt -= 1;
        }
    }
    events
}

/// The row of a job that ended as these say.
fn row(events: &[Event], status: Status, attempt: i32, fence: i64) -> Standing {
    let last_of = |kind: &str| {
        events
            .iter()
            .rev()
            .find(|event| event.kind == kind)
            .map(|event| event.at)
    };
    let replayed = last_of("replayed");
    Standing {
        status,
        attempt,
        runner_id: (!matches!(status, Status::Queued | Status::Waiting) && fence > 0)
            .then(|| "r1".to_owned()),
        fence,
        started_at: last_of("running").filter(|at| replayed.is_none_or(|replayed| *at > replayed)),
        finished_at: if status.is_terminal() {
            last_of(status.as_str())
        } else {
            None
        },
        dead_lettered_at: if status == Status::Failed {
            last_of("dead_lettered")
        } else {
            None
        },
        event_seq: i32::try_from(events.len()).expect("short"),
    }
}

fn findings(events: &[Event], row: Option<&Standing>) -> Vec<(Option<i32>, &'static str)> {
    let mut fold = Fold::new(Uuid::nil());
    for event in events {
        fold.take(event);
    }
    fold.compare(row)
        .into_iter()
        .map(|finding| (finding.seq, finding.subject))
        .collect()
}

#[test]
fn every_legal_life_is_explained() {
    use Status::{Aborted, Failed, Queued, Running, Succeeded, Waiting};
    type Case<'a> = (&'a [&'a str], Status, i32, i64);
    let cases: &[Case] = &[
        (&["queued"], Queued, 0, 0),
        (&["queued", "running"], Running, 1, 10),
        (
            &["queued", "running", "progress", "succeeded"],
            Succeeded,
            1,
            10,
        ),
        (
            &[
                "queued",
                "running",
                "retry_scheduled",
                "running",
                "succeeded",
            ],
            Succeeded,
            2,
            20,
        ),
        (
            &["queued", "running", "released", "running", "succeeded"],
            Succeeded,
            1,
            20,
        ),
        (
            &["queued", "running", "failed", "dead_lettered"],
            Failed,
            1,
            10,
        ),
        (
            &[
                "queued",
                "running",
                "lease_expired@sweep:r2",
                "retry_scheduled@sweep:r2",
            ],
            Queued,
            1,
            11,
        ),
        (
            &[
                "queued",
                "running",
                "lease_expired@sweep:r2",
                "failed@sweep:r2",
                "dead_lettered@sweep:r2",
                "stale_result_refused",
            ],
            Failed,
            1,
            11,
        ),
        (
            &["queued", "running", "abort_requested@key:k", "aborted"],
            Aborted,
            1,
            10,
        ),
        (
            &[
                "queued",
                "running",
                "failed",
                "replayed@key:k",
                "running",
                "succeeded",
            ],
            Succeeded,
            1,
            20,
        ),
        (
            &["queued", "running", "failed", "replayed@key:k"],
            Queued,
            0,
            10,
        ),
        (
            &["queued", "running", "gate_opened@ann", "resumed@ann"],
            Queued,
            1,
            11,
        ),
        (&["queued", "running", "gate_opened@ann"], Waiting, 1, 11),
        (&["queued", "something_new", "failed@key:k"], Failed, 0, 0),
    ];
    for (words, status, attempt, fence) in cases {
        let events = history(words);
        let row = row(&events, *status, *attempt, *fence);
        assert_eq!(findings(&events, Some(&row)), [], "{words:?}");
    }
}

#[test]
fn illegal_words_are_found() {
    for (words, seq) in [
        (&["running"][..], 1),
        (&["queued", "queued"], 2),
        (&["queued", "succeeded"], 2),
        (&["queued", "progress"], 2),
        (&["queued", "dead_lettered"], 2),
        (&["queued", "lease_expired", "failed"], 2),
        (&["queued", "running", "running"], 3),
        (&["queued", "running", "replayed"], 3),
        (&["queued", "running", "succeeded", "failed"], 4),
        (&["queued", "running", "succeeded", "replayed"], 4),
        (&["queued", "running", "lease_expired", "succeeded"], 4),
        (&["queued", "running", "lease_expired", "progress"], 4),
        (&["queued", "abort_requested", "running"], 3),
        (&["queued", "running", "lease_expired"], 3),
    ] {
        let events = history(words);
        let row = row(&events, Status::Queued, 0, 0);
        let found = findings(&events, Some(&row));
        assert!(
            found.contains(&(Some(seq), "language")),
            "{words:?}: {found:?}"
        );
    }
}

#[test]
fn each_column_that_the_events_do_not_explain_is_named() {
    let events = history(&["queued", "running", "failed", "dead_lettered"]);
    let right = row(&events, Status::Failed, 1, 10);
    type Damage = fn(&mut Standing);
    let damages: [(&str, Damage); 8] = [
        ("status", |row| row.status = Status::Succeeded),
        ("attempt", |row| row.attempt = 2),
        ("runner_id", |row| row.runner_id = None),
        ("fence", |row| row.fence = 11),
        ("started_at", |row| row.started_at = row.finished_at),
        ("finished_at", |row| row.finished_at = None),
        ("dead_lettered_at", |row| row.dead_lettered_at = None),
        ("numbering", |row| row.event_seq = 5),
    ];
    for (subject, damage) in damages {
        let mut row = right.clone();
        damage(&mut row);
        assert_eq!(findings(&events, Some(&row)), [(None, subject)]);
    }
    assert_eq!(findings(&events, None), [(None, "row")]);
    let mut early = right;
    early.dead_lettered_at = Some(OffsetDateTime::UNIX_EPOCH);
    assert_eq!(
        findings(&events, Some(&early)),
        [(None, "dead_lettered_at")]
    );
}

#[test]
fn each_event_that_was_tampered_with_is_named() {
    let events = history(&[
        "queued",
        "running",
        "retry_scheduled",
        "running",
        "succeeded",
    ]);
    let row = row(&events, Status::Succeeded, 2, 20);
    type Damage = fn(&mut Vec<Event>);
    let damages: [(&str, i32, Damage); 6] = [
        ("numbering", 5, |events| {
            events.remove(3);
        }),
        ("numbering", 2, |events| {
            events.remove(0);
        }),
        ("instants", 3, |events| events[2].at = events[0].at),
        ("attempt", 4, |events| events[3].attempt = 7),
        ("fence", 4, |events| events[3].data = json!({ "fence": 10 })),
        ("runner_id", 5, |events| events[4].runner_id = None),
    ];
    for (subject, seq, damage) in damages {
        let mut events = events.clone();
        damage(&mut events);
        let found = findings(&events, Some(&row));
        assert!(
            found.contains(&(Some(seq), subject)),
            "{subject}: {found:?}"
        );
    }
}

#[test]
fn a_sweep_must_have_taken_the_fence_away() {
    let events = history(&[
        "queued",
        "running",
        "lease_expired@sweep:r2",
        "retry_scheduled@sweep:r2",
    ]);
    let kept = row(&events, Status::Queued, 1, 10);
    assert_eq!(findings(&events, Some(&kept)), [(None, "fence")]);
}
