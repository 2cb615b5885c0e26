//! I6, I8, I9: fences, and what handlers did against what the events say.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::{Invariant, Verdict};
use crate::history::{History, What};
use crate::ledger::{Phase, Record};
use crate::profile::LEASE;

/// One handler's run, as the ledger tells it.
#[derive(Clone, Debug)]
struct Run {
    fence: i64,
    attempt: i32,
    from: u64,
    until: u64,
    starts: u32,
    end: Option<Phase>,
}

pub(super) fn check(history: &History, verdict: &mut Verdict) {
    if history.torn > 0 {
        verdict.add(
            Invariant::LedgerIsEvents,
            None,
            format!("{} records of the ledger are torn", history.torn),
        );
    }
    check_fences(history, verdict);
    let runs = runs(&history.ledger);
    for (job, runs) in &runs {
        for run in runs.values() {
            check_run(history, *job, run, verdict);
        }
        check_overlaps(history, *job, runs, verdict);
    }
    check_successes(history, &runs, verdict);
    check_sink(history, verdict);
}

fn runs(ledger: &[Record]) -> BTreeMap<Uuid, BTreeMap<i64, Run>> {
    let mut jobs: BTreeMap<Uuid, BTreeMap<i64, Run>> = BTreeMap::new();
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
                end: None,
            });
        run.from = run.from.min(record.at);
        run.until = run.until.max(record.at);
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
    let became = events[claim + 1..]
        .iter()
        .map(|event| event.kind.as_str())
        .find(|kind| ENDS.contains(kind));
    let fits = match run.end {
        Some(Phase::Done) => match became {
            Some("succeeded" | "lease_expired" | "released" | "aborted") => true,
            Some("retry_scheduled" | "failed") => feared_for_its_lease(history, job, run),
            _ => false,
        },
        Some(Phase::Again) => !matches!(became, Some("succeeded")),
        Some(Phase::Refused) => !matches!(became, Some("succeeded" | "retry_scheduled")),
        Some(Phase::Start | Phase::Beat) | None => !matches!(became, Some("succeeded")),
    };
    if !fits {
        verdict.add(
            Invariant::LedgerIsEvents,
            job,
            format!(
                "fence {} ended {:?}, and became {became:?}",
                run.fence, run.end
            ),
        );
    }
}

/// A runner that stood still, or was cut off from the database, stops its work before its lease ends; the work may have
/// been done in that very moment, and is then done again.
fn feared_for_its_lease(history: &History, job: Uuid, run: &Run) -> bool {
    let runner = history.runner_of(job, run.fence);
    history.faults.iter().any(|fault| {
        let concerns = match &fault.what {
            What::Paused(paused) => Some(paused.as_str()) == runner,
            What::DatabaseDisturbed => true,
            What::Killed(_) | What::Other(_) => false,
        };
        concerns
            && fault.from <= run.until + LEASE * 1_000_000_000
            && run.from <= fault.until + LEASE * 1_000_000_000
    })
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
fn check_successes(
    history: &History,
    runs: &BTreeMap<Uuid, BTreeMap<i64, Run>>,
    verdict: &mut Verdict,
) {
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
fn stood_still(history: &History, job: Uuid, run: &Run) -> bool {
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
