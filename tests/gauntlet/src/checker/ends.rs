//! I3, I10, I13, I19: how it ended, how soon what was lost came back, and what was left.

use std::collections::HashMap;

use time::Duration;
use uuid::Uuid;

use super::{Invariant, Verdict};
use crate::history::{Event, History, What};

/// A kill is measured only if the database was not disturbed so long after it.
const BACK: Duration = Duration::seconds(7);

pub(super) fn check(history: &History, verdict: &mut Verdict) {
    for (job, row) in &history.rows {
        if !["succeeded", "failed", "aborted"].contains(&row.status.as_str()) {
            verdict.add(Invariant::Settles, *job, format!("is still {}", row.status));
        }
    }
    for (job, took) in recoveries(history) {
        if took > history.recovery_limit {
            verdict.add(
                Invariant::Recovery,
                job,
                format!("came back {took} after its runner was killed"),
            );
        }
    }
    for process in &history.processes_left {
        verdict.add(Invariant::NoProcessLeft, None, process);
    }
    for (job, fence) in &history.folders_left {
        if !was_killed(history, *job, *fence) {
            verdict.add(
                Invariant::NothingLeft,
                *job,
                format!("the folder of fence {fence} is left"),
            );
        }
    }
    if history.sessions_left > 0 {
        verdict.add(
            Invariant::NothingLeft,
            None,
            format!("{} database sessions are left", history.sessions_left),
        );
    }
}

/// A runner that is killed with SIGKILL leaves the folders of what it ran.
fn was_killed(history: &History, job: Uuid, fence: i64) -> bool {
    let claimed = history
        .events
        .get(&job)
        .and_then(|events| events.iter().find(|event| event.fence() == Some(fence)));
    let Some(Event {
        at,
        runner: Some(runner),
        ..
    }) = claimed
    else {
        return false;
    };
    history
        .faults
        .iter()
        .any(|fault| fault.what == What::Killed(runner.clone()) && fault.until_wall >= *at)
}

/// How long each job of a killed runner took to come back, but for kills while the database was disturbed.
pub fn recoveries(history: &History) -> Vec<(Uuid, Duration)> {
    let disturbed = |from, until| {
        history.faults.iter().any(|fault| {
            fault.what == What::DatabaseDisturbed
                && fault.from_wall <= until
                && from <= fault.until_wall
        })
    };
    let mut killed: HashMap<&str, Vec<time::OffsetDateTime>> = HashMap::new();
    for fault in &history.faults {
        let until = fault.from_wall + BACK;
        if let What::Killed(runner) = &fault.what
            && !disturbed(fault.from_wall, until)
        {
            killed.entry(runner).or_default().push(fault.from_wall);
        }
    }
    let mut found = Vec::new();
    for (job, events) in &history.events {
        for pair in events.windows(2).filter(|pair| pair[0].kind == "running") {
            let kills = pair[0]
                .runner
                .as_deref()
                .and_then(|runner| killed.get(runner));
            let kill = kills
                .into_iter()
                .flatten()
                .find(|kill| pair[0].at < **kill && **kill < pair[1].at);
            if let Some(kill) =
                kill.filter(|_| ["lease_expired", "released"].contains(&pair[1].kind.as_str()))
            {
                found.push((*job, pair[1].at - *kill));
            }
        }
    }
    found
}
