//! I6, I8, I9: fences, and what handlers did against what the events say.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::{Invariant, Verdict};
use crate::history::{Event, History, What};
use crate::ledger::{Phase, Record};
use crate::profile::LEASE;

/// One handler's run, as the ledger tells it.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) fence: i64,
    attempt: i32,
    pub(super) from: u64,
    pub(super) until: u64,
    starts: u32,
    pub(super) lines: u32,
    pub(super) end: Option<Phase>,
}

/// The runs of each job, by fence.
pub(super) type Runs = BTreeMap<Uuid, BTreeMap<i64, Run>>;

pub(super) fn check(history: &History, runs: &Runs, verdict: &mut Verdict) {
    if history.torn > 0 {
        verdict.add(
            Invariant::LedgerIsEvents,
            None,
            format!("{} records of the ledger are torn", history.torn),
        );
    }
    check_fences(history, verdict);
    for (job, runs) in runs {
        for run in runs.values() {
            check_run(history, *job, run, verdict);
        }
        check_overlaps(history, *job, runs, verdict);
    }
    check_successes(history, runs, verdict);
    check_sink(history, verdict);
}

/// The runs that the ledger tells of.
pub(super) fn runs(ledger: &[Record]) -> Runs {
    let mut jobs = Runs::new();
    for record in ledger {
        let run = jobs
            .entry(record.job)
            .or_default()
            .entry(record.fence)
            .or_insert_with(|| Run {
                fence: record.fence,
                attempt: record.attempt,
                from: record.at,
                until: record.at,
                starts: 0,
                lines: 0,
                end: None,
            });
        run.from = run.from.min(record.at);
        run.until = run.until.max(record.at);
        run.lines = run.lines.max(record.lines);
        match record.phase {
            Phase::Start => run.starts += 1,
            Phase::Beat => {}
            Phase::Done | Phase::Again | Phase::Refused => run.end = Some(record.phase),
        }
    }
    jobs
}

fn check_fences(history: &History, verdict: &mut Verdict) {
    let mut owners: HashMap<i64, Uuid> = HashMap::new();
    for (job, events) in &history.events {
        let mut last = 0;
        for fence in events.iter().filter_map(|event| event.fence()) {
            if fence <= last {
                verdict.add(
                    Invariant::Fence,
                    *job,
                    format!("fence {fence} after {last}"),
                );
            }
            last = fence;
            if owners
                .insert(fence, *job)
                .is_some_and(|other| other != *job)
            {
                verdict.add(
                    Invariant::Fence,
                    *job,
                    format!("fence {fence} belongs to another job too"),
                );
            }
        }
    }
}

/// A handler began only after its claim, once, and what it did shows in what became of the claim.
fn check_run(history: &History, job: Uuid, run: &Run, verdict: &mut Verdict) {
    let events = history
        .events
        .get(&job)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let Some(claim) = events
        .iter()
        .position(|event| event.fence() == Some(run.fence))
    else {
        verdict.add(
            Invariant::LedgerIsEvents,
            job,
            format!(
                "a handler ran under fence {}, which nobody claimed",
                run.fence
            ),
        );
        return;
    };
    if run.starts != 1 {
        verdict.add(
            Invariant::LedgerIsEvents,
            job,
            format!(
                "{} handlers were started under fence {}",
                run.starts, run.fence
            ),
        );
    }
    if events[claim].attempt != run.attempt {
        verdict.add(
            Invariant::LedgerIsEvents,
            job,
            format!("fence {} was told attempt {}", run.fence, run.attempt),
        );
    }
    let became = became(history, job, run.fence);
    let kind = became.map(|event| event.kind.as_str());
    let fits = match run.end {
        Some(Phase::Done) => became.is_some_and(|event| done_became(history, job, run, event)),
        Some(Phase::Again) => !matches!(kind, Some("succeeded")),
        Some(Phase::Refused) => !matches!(kind, Some("succeeded" | "retry_scheduled")),
        Some(Phase::Start | Phase::Beat) | None => !matches!(kind, Some("succeeded")),
    };
    if !fits {
        verdict.add(
            Invariant::LedgerIsEvents,
            job,
            format!(
                "fence {} ended {:?}, and became {kind:?}",
                run.fence, run.end
            ),
        );
    }
}

/// Whether what became of a claim can be the end of work that its handler has done. Anything but its success needs both
/// the fault that allows it and the words of the one who gave the work up:
///
/// - a lease that ran out, or was taken back, needs a runner that was killed, stood still or was cut off;
/// - a runner gives up its own lease, by a retry or a failure in the words of `GAVE_UP`, only after a pause or while it could
///   not renew. The last word of a handler and the bell that ends it race then: the runner, back from the pause, sees its
///   lease ended before it reads that the handler has ended. The bell outranks the exit code on purpose, since a success
///   under a lease that may be another's is no success; so the work is done again, and the fenced sink takes either;
/// - a runner hands back only when it was asked to leave, and an abort needs somebody who asked.
fn done_became(history: &History, job: Uuid, run: &Run, became: &Event) -> bool {
    let runner = history.runner_of(job, run.fence);
    let mine = became.runner.as_deref() == runner && became.actor.starts_with("runner:");
    let lease = LEASE * 1_000_000_000;
    let hurt = |allowed: fn(&What) -> bool| {
        let (from, until) = (run.until.saturating_sub(lease), run.until + lease);
        history
            .faults
            .iter()
            .any(|fault| allowed(&fault.what) && fault.concerns(runner, from, until))
    };
    match became.kind.as_str() {
        "succeeded" => true,
        "lease_expired" => hurt(|what| {
            matches!(
                what,
                What::Killed(_) | What::Paused(_) | What::DatabaseDisturbed
            )
        }),
        "retry_scheduled" | "failed" => {
            let error = became.data.get("error").and_then(serde_json::Value::as_str);
            mine && error.is_some_and(|error| error.contains(GAVE_UP))
                && hurt(|what| matches!(what, What::Paused(_) | What::DatabaseDisturbed))
        }
        "released" => mine && hurt(|what| matches!(what, What::Drained(_))),
        "aborted" => history
            .events
            .get(&job)
            .is_some_and(|events| events.iter().any(|event| event.kind == "abort_requested")),
        _ => false,
    }
}

/// What a runner says of work that it stopped because it could not renew its lease, or had lost it.
const GAVE_UP: &str = "its lease";

/// The event with which the claim of this fence ended.
pub(super) fn became(history: &History, job: Uuid, fence: i64) -> Option<&Event> {
    let events = history.events.get(&job)?;
    let claim = events
        .iter()
        .position(|event| event.fence() == Some(fence))?;
    events[claim + 1..]
        .iter()
        .find(|event| ENDS.contains(&event.kind.as_str()))
}

/// The kinds with which a claim ends.
const ENDS: [&str; 7] = [
    "succeeded",
    "retry_scheduled",
    "released",
    "failed",
    "aborted",
    "lease_expired",
    "held",
];

/// Each success has its handler that ended well, under the fence of the claim before it.
fn check_successes(history: &History, runs: &Runs, verdict: &mut Verdict) {
    for (job, events) in &history.events {
        let mut claimed = None;
        for event in events {
            claimed = event.fence().or(claimed);
            let done = claimed
                .and_then(|fence| runs.get(job)?.get(&fence))
                .is_some_and(|run| run.end == Some(Phase::Done));
            if event.kind == "succeeded" && !done {
                verdict.add(
                    Invariant::LedgerIsEvents,
                    *job,
                    format!("succeeded under {claimed:?} without a handler that did"),
                );
            }
        }
    }
}

fn check_overlaps(history: &History, job: Uuid, runs: &BTreeMap<i64, Run>, verdict: &mut Verdict) {
    let runs: Vec<&Run> = runs.values().collect();
    for (index, older) in runs.iter().enumerate() {
        for newer in &runs[index + 1..] {
            let apart = older.until < newer.from || newer.until < older.from;
            if !apart && !stood_still(history, job, older) {
                let what = format!(
                    "fence {} until {} and fence {} from {} ran at once for {} ms",
                    older.fence,
                    older.until,
                    newer.fence,
                    newer.from,
                    (older.until.min(newer.until) - newer.from.max(older.from)) / 1_000_000
                );
                verdict.add(Invariant::Overlap, job, what);
            }
        }
    }
}

/// A host that stood still does not know the time; only there may an older run go on beside a newer one.
pub(super) fn stood_still(history: &History, job: Uuid, run: &Run) -> bool {
    let runner = history.runner_of(job, run.fence);
    history.faults.iter().any(|fault| {
        matches!(&fault.what, What::Paused(paused) if Some(paused.as_str()) == runner)
            && fault.from <= run.until
            && run.from <= fault.until
    })
}

fn check_sink(history: &History, verdict: &mut Verdict) {
    let mut greatest: HashMap<Uuid, i64> = HashMap::new();
    for effect in &history.effects {
        let seen = greatest.entry(effect.job).or_default();
        if effect.accepted != (effect.fence >= *seen) {
            verdict.add(
                Invariant::Overlap,
                effect.job,
                format!("the sink said {effect:?} after {seen}"),
            );
        }
        *seen = (*seen).max(effect.fence);
    }
}
