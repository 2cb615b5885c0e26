//! Does to the system what the schedule says, and notes from when to when. Judges nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fault_proxy::{Direction, Fault as Link, Reach};
use rustix::process::{Pid, Signal, kill_process};
use time::OffsetDateTime;
use tokio::task::JoinSet;

use crate::clock;
use crate::database;
use crate::history::{Done, What};
use crate::programs::go_on;
use crate::schedule::{Fault, Kind};
use crate::system::{Service, System};

/// Between two resets of a storm.
const GUST: Duration = Duration::from_millis(100);
/// A service that is down is looked at again after so long.
const AGAIN: Duration = Duration::from_millis(300);

/// What was done so far, also beyond what the checker must know.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    pub(crate) done: Vec<Done>,
    pub(crate) counts: Vec<Kind>,
    /// Programs that ended by themselves.
    pub(crate) died: Vec<String>,
}

/// Lets every fault of the schedule happen at its time, each in a task of its own, and waits for the last.
pub(crate) async fn happen(system: &Arc<System>, schedule: &[Fault]) -> Noted {
    let begun = tokio::time::Instant::now();
    let noted = Arc::new(Mutex::new(Noted::default()));
    let mut happening = JoinSet::new();
    for fault in schedule.iter().copied() {
        let (system, noted) = (Arc::clone(system), Arc::clone(&noted));
        happening.spawn(async move {
            tokio::time::sleep_until(begun + fault.at).await;
            one(&system, fault, &noted).await;
        });
    }
    while let Some(done) = happening.join_next().await {
        done.expect("a fault that happens");
    }
    std::mem::take(&mut *noted.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Kills a runner's host in the middle of its work, never to be started again.
pub(crate) async fn end_for_good(runner: &Service) -> Done {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let from = From::now();
    if let Some(mut program) = runner.running().await.take() {
        program.kill_host();
    }
    from.done(What::Killed(runner.name.clone()))
}

/// When something began to be done.
pub(crate) struct From(u64, OffsetDateTime);

impl From {
    pub(crate) fn now() -> Self {
        Self(clock::monotonic(), clock::wall())
    }

    /// It is done.
    pub(crate) fn done(self, what: What) -> Done {
        Done {
            what,
            from: self.0,
            until: clock::monotonic(),
            from_wall: self.1,
            until_wall: clock::wall(),
            back_wall: None,
        }
    }
}

async fn one(system: &System, fault: Fault, noted: &Mutex<Noted>) {
    let runner = &system.runners[fault.victim % system.runners.len()];
    let control_plane = &system.control_planes[fault.victim % system.control_planes.len()];
    let done = match fault.kind {
        Kind::Runner | Kind::RunnerAlone => {
            let what = What::Killed(runner.name.clone());
            killed(runner, fault, what, noted).await
        }
        Kind::ControlPlane => {
            killed(control_plane, fault, What::Other("control plane"), noted).await
        }
        Kind::Postmaster => postmaster(system, fault.length).await,
        Kind::Backend => backend(system, fault.victim).await,
        Kind::Pause => {
            let running = runner.running().await;
            let from = From::now();
            let stopped = running
                .as_ref()
                .map(|program| program.stand_still())
                .unwrap_or_default();
            tokio::time::sleep(fault.length).await;
            go_on(&stopped);
            from.done(What::Paused(runner.name.clone()))
        }
        Kind::BlackHole => black_hole(system, fault).await,
        Kind::ResetStorm => {
            let from = From::now();
            let until = tokio::time::Instant::now() + fault.length;
            while tokio::time::Instant::now() < until {
                for link in system.links() {
                    link.reset_established();
                }
                tokio::time::sleep(GUST).await;
            }
            from.done(What::DatabaseDisturbed)
        }
    };
    let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
    noted.done.push(done);
    noted.counts.push(fault.kind);
}

/// Kills a service, waits, and starts it again.
async fn killed(service: &Service, fault: Fault, what: What, noted: &Mutex<Noted>) -> Done {
    let from = {
        let mut running = service.running().await;
        let Some(mut program) = running.take() else {
            // Another kill has it down just now: wait for that one's start and take this kill after it.
            drop(running);
            tokio::time::sleep(AGAIN).await;
            return Box::pin(killed(service, fault, what, noted)).await;
        };
        if program.has_ended() {
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.died.push(format!(
                "{} ended by itself:\n{}",
                service.name,
                service.last_words()
            ));
        }
        let from = From::now();
        match fault.kind {
            Kind::RunnerAlone => program.kill(),
            _ => program.kill_host(),
        }
        from
    };
    tokio::time::sleep(fault.length).await;
    let back = clock::wall();
    service.start().await;
    Done {
        back_wall: Some(back),
        ..from.done(what)
    }
}

async fn postmaster(system: &System, away: Duration) -> Done {
    let mut cluster = system.cluster.lock().await;
    let from = From::now();
    let running = cluster.take().expect("a cluster");
    let gone = running.kill9().await.expect("the end of PostgreSQL");
    tokio::time::sleep(away).await;
    *cluster = Some(gone.restart().await.expect("PostgreSQL again"));
    from.done(What::DatabaseDisturbed)
}

async fn backend(system: &System, victim: usize) -> Done {
    // Not while the postmaster is being restarted.
    let cluster = system.cluster.lock().await;
    let from = From::now();
    // The end of one backend by SIGKILL ends every session; by a word, one.
    if let Some(pid) = database::a_backend(&system.database_url, victim).await {
        if victim.is_multiple_of(2) {
            database::terminate(&system.database_url, pid).await;
        } else if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
            database::answers(&system.database_url).await;
        }
    }
    drop(cluster);
    from.done(What::DatabaseDisturbed)
}

async fn black_hole(system: &System, fault: Fault) -> Done {
    let links = system.links();
    let link = links[fault.victim % links.len()];
    let from = From::now();
    link.set(Reach::All, Direction::Both, Link::BlackHole);
    tokio::time::sleep(fault.length).await;
    link.pass();
    from.done(What::DatabaseDisturbed)
}
