//! One run: start, hurt, let recover, stop, look, judge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checker;
use crate::clients;
use crate::clock;
use crate::database;
use crate::faults::{self, Noted};
use crate::history::History;
use crate::ledger;
use crate::leftovers;
use crate::profile::{NOT_YET, Profile};
use crate::programs::command;
use crate::report::Report;
use crate::schedule::schedule;
use crate::sink;
use crate::system::System;

const PAUSE: Duration = Duration::from_millis(200);
/// Jobs of the liveness half.
const LATE_JOBS: usize = 40;

/// Runs the profile with the schedule of this seed, and says what came of it; `tell` hears how far it is.
pub async fn run(seed: u64, profile: &Profile, tell: impl Fn(&str)) -> Report {
    let schedule = schedule(seed, profile);
    tell(&format!(
        "seed {seed}: {} faults, {} jobs",
        schedule.len(),
        profile.jobs
    ));
    let system = Arc::new(System::start().await);
    tell("safety: everything may fail");
    let (known, mut noted) = tokio::join!(
        clients::ask(&system, seed, profile.jobs, profile.safety),
        faults::happen(&system, &schedule),
    );
    tell("liveness: one runner is gone for good, everything else works");
    let gone = system.runners.len() - 1;
    let mut troubles = Vec::new();
    let (late, killed) = tokio::join!(
        clients::ask(&system, seed.wrapping_add(1), LATE_JOBS, profile.liveness),
        faults::end_for_good(&system.runners[gone]),
    );
    noted.done.push(killed);
    if late.answers.iter().any(|answer| answer.status >= 500) {
        troubles.push("with all faults but one over, a request was answered with 5xx".to_owned());
    }
    let mut history = History {
        recovery_limit: time::Duration::try_from(profile.recovery).unwrap_or_default(),
        ..History::default()
    };
    for known in [known, late] {
        history.acks.extend(known.acks);
        history.answers.extend(known.answers);
    }
    tell("settling");
    settle(&system, profile.settle).await;
    troubles.extend(verify(&system));
    tell("stopping");
    stop(&system, &mut noted, gone).await;
    look(&system, &mut history).await;
    troubles.append(&mut noted.died);
    history.faults = noted.done;
    let mut counts = BTreeMap::new();
    noted
        .counts
        .iter()
        .for_each(|kind| *counts.entry(*kind).or_default() += 1);
    for (kind, least) in &profile.faults {
        let there = counts.get(kind).copied().unwrap_or(0);
        if there < *least && NOT_YET.iter().all(|(left_out, _)| left_out != kind) {
            troubles.push(format!(
                "{kind:?} happened {there} times instead of {least}"
            ));
        }
    }
    if history
        .events
        .values()
        .flatten()
        .all(|event| event.kind != "lease_expired")
    {
        troubles.push("no lease ran out, so nothing was proved".to_owned());
    }
    let violations = checker::check(&history);
    if let Some(cluster) = system.cluster.lock().await.take() {
        cluster.stop().await.expect("the end of PostgreSQL");
    }
    Report {
        seed,
        faults: counts,
        troubles,
        violations,
        history,
    }
}

async fn settle(system: &System, limit: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < limit && database::unsettled(&system.database_url).await != Some(0) {
        tokio::time::sleep(PAUSE).await;
    }
}

/// The product's own check, which must agree with ours.
fn verify(system: &System) -> Option<String> {
    let environment = [("DATABASE_URL".to_owned(), system.database_url.clone())];
    let verified = command("opsctl", &environment)
        .arg("verify")
        .output()
        .expect("opsctl");
    (!verified.status.success()).then(|| {
        format!(
            "opsctl verify: {}{}",
            String::from_utf8_lossy(&verified.stdout),
            String::from_utf8_lossy(&verified.stderr)
        )
    })
}

async fn stop(system: &System, noted: &mut Noted, gone: usize) {
    for (number, service) in system.services().enumerate() {
        let ended = match service.running().await.as_mut() {
            Some(program) => program.has_ended(),
            None => number != gone,
        };
        if ended {
            noted.died.push(format!(
                "{} ended by itself:\n{}",
                service.name,
                service.last_words()
            ));
            service.running().await.take();
        }
        service.stop().await;
    }
}

/// Reads everything that is left behind.
async fn look(system: &System, history: &mut History) {
    // What was killed a moment ago may still be on its way out.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        history.processes_left = leftovers::processes(system.folder());
        history.sessions_left = database::sessions(&system.database_url).await;
        if history.processes_left.is_empty() && history.sessions_left == 0 {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    history.folders_left = leftovers::folders(&system.work_folders());
    database::read(&system.database_url, history).await;
    history.read_at = Some(clock::wall());
    (history.ledger, history.torn) =
        ledger::read(&system.folder().join("ledger")).expect("the ledger");
    history.effects = sink::read(&system.folder().join("sink")).expect("the sink");
}
