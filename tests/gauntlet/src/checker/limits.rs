//! I12: what ran at once, by a line swept over the ledger: per type over the fleet, and per start of a runner.

use std::collections::BTreeMap;

use super::work::{Run, Runs, stood_still};
use super::{Invariant, Verdict};
use crate::history::{History, What};

/// Runs as the line meets them: when, and one more or one less.
type Steps = Vec<(u64, i64)>;

pub(super) fn check(history: &History, runs: &Runs, verdict: &mut Verdict) {
    let mut of_type: BTreeMap<&str, Steps> = BTreeMap::new();
    let mut of_start: BTreeMap<(&str, usize), Steps> = BTreeMap::new();
    for (job, runs) in runs {
        let Some(row) = history.rows.get(job) else {
            continue;
        };
        for run in runs.values() {
            // A host that stood still does not know that its claim is over, as for overlaps.
            if stood_still(history, *job, run) {
                continue;
            }
            add(of_type.entry(&row.job_type).or_default(), run);
            if let Some(runner) = history.runner_of(*job, run.fence) {
                let start = (runner, starts_before(history, runner, run.from));
                add(of_start.entry(start).or_default(), run);
            }
        }
    }
    for (job_type, steps) in of_type {
        let limit = history.terms.concurrency.get(job_type);
        let most = most_at_once(steps);
        if limit.is_some_and(|limit| most > *limit) {
            let what = format!("{most} of {job_type} ran at once, of {limit:?}");
            verdict.add(Invariant::Limits, None, what);
        }
    }
    for ((runner, _), steps) in of_start {
        let most = most_at_once(steps);
        if most > history.terms.slots {
            let what = format!("{most} ran at once on {runner}, of {}", history.terms.slots);
            verdict.add(Invariant::Limits, None, what);
        }
    }
}

fn add(steps: &mut Steps, run: &Run) {
    steps.push((run.from, 1));
    steps.push((run.until, -1));
}

/// What a killed runner left is not its successor's.
fn starts_before(history: &History, runner: &str, at: u64) -> usize {
    let starts = history.faults.iter().filter(|fault| {
        matches!(&fault.what, What::Killed(name) | What::Drained(name) if name == runner)
            && fault.from <= at
    });
    starts.count()
}

/// At one instant ends come before beginnings.
fn most_at_once(mut steps: Steps) -> usize {
    steps.sort_unstable();
    let mut now = 0;
    let mut most = 0;
    for (_, step) in steps {
        now += step;
        most = most.max(now);
    }
    usize::try_from(most).unwrap_or(0)
}
