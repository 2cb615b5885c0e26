//! I13, as far as the ledger tells it: nothing of a job lives on after its timeout, its abort, or its runner's death.

use std::time::Duration;

use uuid::Uuid;

use super::work::{Run, Runs};
use super::{Invariant, Verdict};
use crate::history::{History, What};
use crate::profile::LEASE;
use crate::terms::GRACE;

pub(super) fn check(history: &History, runs: &Runs, verdict: &mut Verdict) {
    for (job, runs) in runs {
        for run in runs.values() {
            check_timeout(history, *job, run, verdict);
            check_death(history, *job, run, verdict);
        }
    }
    for ack in &history.acks {
        let (Some(job), Some(aborted)) = (ack.job, ack.aborted) else {
            continue;
        };
        for run in runs.get(&job).into_iter().flat_map(|runs| runs.values()) {
            check_abort(history, job, run, aborted, verdict);
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn check_timeout(history: &History, job: Uuid, run: &Run, verdict: &mut Verdict) {
    let row = history.rows.get(&job);
    let Some(timeout) = row.and_then(|row| history.terms.timeouts.get(row.job_type.as_str()))
    else {
        return;
    };
    let deadline = run.from + nanoseconds(*timeout + GRACE + history.terms.slack);
    // The timeout needs no database; only a host that stands still may miss it.
    if run.until > deadline && !was_hindered(history, job, run, deadline, false) {
        over(job, run, "its timeout", deadline, verdict);
    }
}

fn check_abort(history: &History, job: Uuid, run: &Run, aborted: u64, verdict: &mut Verdict) {
    // A runner hears of it when it renews, at a third of the lease.
    let hears = Duration::from_secs(LEASE) / 3;
    let wait = hears.max(Duration::from_secs(1)) + GRACE + history.terms.slack;
    let deadline = aborted + nanoseconds(wait);
    if run.from <= deadline && run.until <= deadline {
        return;
    }
    if !was_hindered(history, job, run, deadline, true) {
        over(job, run, "its abort", deadline, verdict);
    }
}

fn check_death(history: &History, job: Uuid, run: &Run, verdict: &mut Verdict) {
    let runner = history.runner_of(job, run.fence);
    for fault in &history.faults {
        let mine = matches!(&fault.what, What::Killed(name) if Some(name.as_str()) == runner);
        let deadline = fault.from + nanoseconds(history.terms.slack);
        let late = mine && run.from < fault.from && run.until > deadline;
        if late && !was_hindered(history, job, run, fault.from, false) {
            over(job, run, "its runner's death", deadline, verdict);
        }
    }
}

/// Whether something kept the runner from acting in time: a pause, or for what it must hear, also its own restart and a
/// database that is away.
fn was_hindered(history: &History, job: Uuid, run: &Run, deadline: u64, hears: bool) -> bool {
    let runner = history.runner_of(job, run.fence);
    let from = run.from.min(deadline);
    history.faults.iter().any(|fault| {
        let kind = hears || matches!(fault.what, What::Paused(_));
        kind && fault.concerns(runner, from, run.until)
    })
}

fn over(job: Uuid, run: &Run, what: &str, deadline: u64, verdict: &mut Verdict) {
    let late = run.until.saturating_sub(deadline) / 1_000_000;
    verdict.add(
        Invariant::NoProcessLeft,
        job,
        format!("fence {} lived {late} ms past the end of {what}", run.fence),
    );
}
