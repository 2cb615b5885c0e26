//! I3, I10, I13, I19, I20: how it ended, how soon what was lost came back, and what was left.

use std::collections::HashMap;

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Invariant, Verdict};
use crate::history::{Done, Event, History, What};

/// A kill is measured only if the database was not disturbed so long after it.
const BACK: Duration = Duration::seconds(7);

pub(super) fn check(history: &History, verdict: &mut Verdict) {
    for (job, row) in &history.rows {
        if !["succeeded", "failed", "aborted"].contains(&row.status.as_str()) {
            verdict.add(Invariant::Settles, *job, format!("is still {}", row.status));
        }
    }
    for recovery in recoveries(history) {
        if recovery.took > history.recovery_limit {
            let what = format!("came back after {}, {:?}", recovery.took, recovery.class);
            verdict.add(Invariant::Recovery, recovery.job, what);
        }
    }
    for canary in &history.canaries {
        verdict.add(Invariant::Secret, None, canary);
    }
    for measure in &history.measures {
        if measure.after > measure.before + measure.more {
            verdict.add(Invariant::NothingLeft, None, format!("{measure:?}"));
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

/// Why a job had to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Its runner was killed; from the kill on.
    Dead,
    /// Its runner was killed, and began anew before that; from the new beginning on.
    Restarted,
    /// Its runner left in order and handed it back; from then to the next claim.
    Drained,
}

/// A job that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Which.
    pub job: Uuid,
    /// Why.
    pub class: Class,
    /// How soon.
    pub took: Duration,
}

/// How soon each job that its runner lost or gave back was there again, where the database was not disturbed meanwhile.
pub fn recoveries(history: &History) -> Vec<Recovery> {
    let mut killed: HashMap<&str, Vec<&Done>> = HashMap::new();
    for fault in &history.faults {
        if let What::Killed(runner) = &fault.what
            && !disturbed(history, fault.from_wall, fault.from_wall + BACK)
        {
            killed.entry(runner).or_default().push(fault);
        }
    }
    let mut found = Vec::new();
    for (job, events) in &history.events {
        for pair in events.windows(2) {
            let ended = &pair[1];
            let back = ["lease_expired", "released"].contains(&ended.kind.as_str());
            let kills = pair[0].runner.as_deref().and_then(|name| killed.get(name));
            let kill = kills
                .into_iter()
                .flatten()
                .find(|kill| pair[0].at < kill.from_wall && kill.from_wall < ended.at);
            if let Some(kill) = kill.filter(|_| pair[0].kind == "running" && back) {
                let (class, since) = match kill.back_wall.filter(|back| *back < ended.at) {
                    Some(back) => (Class::Restarted, back),
                    None => (Class::Dead, kill.from_wall),
                };
                found.push(Recovery {
                    job: *job,
                    class,
                    took: ended.at - since,
                });
            }
            found.extend(drained(history, *job, pair));
        }
    }
    found
}

/// From a hand-back by a runner that leaves, in a deploy where nothing else happened, to the next claim.
fn drained(history: &History, job: Uuid, pair: &[Event]) -> Option<Recovery> {
    let [released, claimed] = pair else {
        return None;
    };
    let leaves = history.faults.iter().any(|fault| {
        fault.what == What::Deploy
            && fault.from_wall <= released.at
            && released.at <= fault.until_wall
    });
    (leaves && released.kind == "released" && claimed.kind == "running").then(|| Recovery {
        job,
        class: Class::Drained,
        took: claimed.at - released.at,
    })
}

fn disturbed(history: &History, from: OffsetDateTime, until: OffsetDateTime) -> bool {
    history.faults.iter().any(|fault| {
        fault.what == What::DatabaseDisturbed
            && fault.from_wall <= until
            && from <= fault.until_wall
    })
}
