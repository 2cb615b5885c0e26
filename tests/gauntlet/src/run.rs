//! One run: start, hurt, let recover, stop, look, judge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checker;
use crate::clients::Clients;
use crate::clock;
use crate::database;
use crate::directed::{Directed, settle};
use crate::faults::{self, Noted};
use crate::figures::figures;
use crate::history::{History, Measure};
use crate::ledger;
use crate::leftovers;
use crate::profile::{NOT_YET, Profile};
use crate::programs::command;
use crate::report::Report;
use crate::schedule::schedule;
use crate::sink;
use crate::system::System;
use crate::terms::terms;

const PAUSE: Duration = Duration::from_millis(200);
/// Jobs of the liveness half.
const LATE_JOBS: usize = 40;
/// What is let go is let go in so long.
const LEAKS: Duration = Duration::from_secs(30);

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
    let clients = Clients::of(&system);
    let before = measures(&system).await;
    let (_, mut noted) = tokio::join!(
        clients.ask(seed, profile.jobs, profile.safety),
        faults::happen(&system, &schedule),
    );
    let mut directed = Directed::of(&system, &clients, profile);
    directed.happen(profile, &tell).await;
    let Directed { done, measured, .. } = directed;
    noted.done.extend(done);
    let known = clients.known();
    tell("liveness: one runner is gone for good, everything else works");
    let gone = system.runners.len() - 1;
    let mut troubles = Vec::new();
    let (_, killed) = tokio::join!(
        clients.ask(seed.wrapping_add(1), LATE_JOBS, profile.liveness),
        faults::end_for_good(&system.runners[gone]),
    );
    let late = clients.known();
    noted.done.push(killed);
    if late.answers.iter().any(|answer| answer.status >= 500) {
        troubles.push("with all faults but one over, a request was answered with 5xx".to_owned());
    }
    let mut history = History {
        recovery_limit: time::Duration::try_from(profile.recovery).unwrap_or_default(),
        terms: terms(profile.slack),
        canaries: measured.canaries.clone(),
        ..History::default()
    };
    for known in [known, late] {
        history.acks.extend(known.acks);
        history.answers.extend(known.answers);
        history.canaries.extend(known.canaries);
    }
    tell("settling");
    settle(&system, profile.settle).await;
    troubles.extend(verify(&system));
    history.measures = leaks(&system, &before).await;
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
    let mut report = Report {
        seed,
        faults: counts,
        troubles,
        violations,
        history,
        measured,
        figures: Vec::new(),
        judged: profile.judged,
    };
    report.figures = figures(&report, profile);
    report
}

/// What everybody holds now.
async fn measures(system: &System) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for service in system.services() {
        if let Some(program) = service.running().await.as_ref() {
            for (what, count) in program.holds() {
                found.insert(format!("{what} of {}", service.name), count);
            }
        }
    }
    let (locks, idle) = database::held(&system.database_url).await;
    let sessions = database::sessions(&system.database_url).await;
    for (what, count) in [
        ("advisory locks", locks),
        ("sessions idle in a transaction", idle),
        ("sessions", sessions),
    ] {
        found.insert(what.to_owned(), count.unsigned_abs());
    }
    found
}

/// What pools may keep beyond what there was at first.
fn kept(what: &str) -> u64 {
    match what.split(" of ").next() {
        // Connections to the database and from clients, and threads that wait a while for more work.
        Some("open files") => 32,
        Some("threads") => 16,
        Some("sessions") => 40,
        _ => 0,
    }
}

/// What everybody holds in the end, once it is back to what it was or is not going to be.
async fn leaks(system: &System, before: &BTreeMap<String, u64>) -> Vec<Measure> {
    let begun = Instant::now();
    loop {
        let after = measures(system).await;
        let found: Vec<Measure> = after
            .into_iter()
            .map(|(what, after)| Measure {
                before: before.get(&what).copied().unwrap_or(0),
                after,
                more: kept(&what),
                what,
            })
            .collect();
        let is_back = |measure: &Measure| measure.after <= measure.before + measure.more;
        if found.iter().all(is_back) || begun.elapsed() > LEAKS {
            return found;
        }
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
    history
        .canaries
        .extend(leftovers::canaries(system.folder()));
    history
        .canaries
        .extend(database::canaries(&system.database_url).await);
}
