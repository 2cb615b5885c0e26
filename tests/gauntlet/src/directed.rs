//! What is done to the system one thing at a time, after everything may have failed at once: so that what is measured has
//! one cause. Judges nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fault_proxy::{Direction, Fault, Reach};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::clients::Clients;
use crate::clock;
use crate::database;
use crate::faults::From;
use crate::history::{Done, What};
use crate::leftovers;
use crate::profile::{LEASE, POLL, Profile, RUNNERS, SLOTS};
use crate::system::System;

const PAUSE: Duration = Duration::from_millis(50);
/// Nothing that is waited for here takes longer, even on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(120);
/// Jobs that a runner is killed over: more than the others have slots for.
const VICTIMS: usize = (RUNNERS - 1) * SLOTS + 2;
/// A runner that finds nothing to do for so long is dealt with as it is.
const BUSY: Duration = Duration::from_secs(10);

/// What was measured on the way.
#[derive(Debug, Default)]
pub struct Measured {
    /// From the moment in which PostgreSQL accepts again until everything works.
    pub after_restarts: Vec<Duration>,
    /// From the end of the black hole until everything works.
    pub after_black_hole: Vec<Duration>,
    /// How long each request in it waited, and what it was answered.
    pub refusals: Vec<(Duration, u16)>,
    /// Programs that were not the same process after it.
    pub new_processes: Vec<String>,
    /// Where a secret was seen on the way.
    pub canaries: Vec<String>,
}

/// The directed half.
pub(crate) struct Directed<'a> {
    system: &'a Arc<System>,
    clients: Clients,
    settle: Duration,
    keys: usize,
    pub(crate) done: Vec<Done>,
    pub(crate) measured: Measured,
}

impl<'a> Directed<'a> {
    pub(crate) fn of(system: &'a Arc<System>, clients: &Clients, profile: &Profile) -> Self {
        Self {
            system,
            clients: clients.clone(),
            settle: profile.settle,
            keys: 0,
            done: Vec::new(),
            measured: Measured::default(),
        }
    }

    /// Does it all.
    pub(crate) async fn happen(&mut self, profile: &Profile, tell: &impl Fn(&str)) {
        let plan = profile.directed;
        settle(self.system, self.settle).await;
        tell("directed: deadlines, aborts, floods");
        self.deadlines(plan.endless).await;
        tell("directed: runners die");
        for number in 0..plan.deaths {
            self.death(number, Duration::from_secs(LEASE + 2 * POLL + 2))
                .await;
        }
        tell("directed: runners begin anew");
        for number in 0..plan.restarts {
            self.death(number, Duration::ZERO).await;
        }
        tell("directed: deploys");
        for _ in 0..plan.deploys {
            self.deploy(plan.load).await;
        }
        tell("directed: PostgreSQL is killed and comes back");
        for _ in 0..plan.database_restarts {
            self.database_restart().await;
        }
        tell("directed: nobody reaches PostgreSQL");
        self.black_hole(plan.black_hole).await;
    }

    fn key(&mut self) -> String {
        self.keys += 1;
        format!("directed-{}", self.keys)
    }

    async fn want(&mut self, job_type: &str) -> Option<(String, Uuid)> {
        let key = self.key();
        let job = self.clients.want(&key, job_type, false).await?;
        Some((key, job))
    }

    async fn deadlines(&mut self, each: usize) {
        self.want("loud").await;
        let mut aborted = Vec::new();
        for _ in 0..each {
            self.want("endless").await;
            self.want("shadowed").await;
            aborted.extend(self.want("linger").await);
        }
        for (key, job) in aborted {
            until(&self.system.database_url, job, "running").await;
            self.clients.abort(&key, job).await;
        }
        for service in self.system.services() {
            if let Some(program) = service.running().await.as_ref() {
                let seen = leftovers::canaries_in_arguments(&program.tree());
                self.measured.canaries.extend(seen);
            }
        }
        settle(self.system, self.settle).await;
    }

    async fn death(&mut self, number: usize, away: Duration) {
        let runner = &self.system.runners[number % self.system.runners.len()];
        for _ in 0..VICTIMS {
            self.want("linger").await;
        }
        let url = &self.system.database_url;
        until_busy(url, &runner.name).await;
        let from = From::now();
        if let Some(mut program) = runner.running().await.take() {
            program.kill_host();
        }
        tokio::time::sleep(away).await;
        let back = clock::wall();
        runner.start().await;
        self.done.push(Done {
            back_wall: Some(back),
            ..from.done(What::Killed(runner.name.clone()))
        });
        settle(self.system, self.settle).await;
    }

    /// One program after the other is replaced, while clients go on asking.
    async fn deploy(&mut self, load: u32) {
        let whole = From::now();
        let over = Arc::new(AtomicBool::new(false));
        let mut asking = JoinSet::new();
        for client in 0..load {
            let (clients, over) = (self.clients.clone(), Arc::clone(&over));
            let begun = self.key();
            asking.spawn(async move {
                let mut number = 0;
                while !over.load(Ordering::Relaxed) {
                    let job_type = match (client + number) % 10 {
                        0 => "linger",
                        1 | 2 => "short",
                        _ => "noop",
                    };
                    clients
                        .want(&format!("{begun}-{number}"), job_type, false)
                        .await;
                    number += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
        // What does not end while its runner waits for it, so that it is handed back.
        for _ in 0..2 * RUNNERS {
            self.want("linger").await;
        }
        for runner in &self.system.runners {
            let url = &self.system.database_url;
            until_busy(url, &runner.name).await;
            let from = From::now();
            runner.stop().await;
            runner.start().await;
            self.done
                .push(from.done(What::Drained(runner.name.clone())));
        }
        for control_plane in &self.system.control_planes {
            control_plane.replace().await;
        }
        over.store(true, Ordering::Relaxed);
        while let Some(asked) = asking.join_next().await {
            asked.expect("a client");
        }
        settle(self.system, self.settle).await;
        self.done.push(whole.done(What::Deploy));
    }

    async fn database_restart(&mut self) {
        let from = From::now();
        let mut cluster = self.system.cluster.lock().await;
        let running = cluster.take().expect("a cluster");
        let gone = running.kill9().await.expect("the end of PostgreSQL");
        let (restarted, accepts) =
            tokio::join!(gone.restart(), database::accepts(&self.system.database_url));
        *cluster = Some(restarted.expect("PostgreSQL again"));
        drop(cluster);
        self.full_service().await;
        self.measured.after_restarts.push(accepts.elapsed());
        self.done.push(from.done(What::DatabaseDisturbed));
        settle(self.system, self.settle).await;
    }

    async fn black_hole(&mut self, length: Duration) {
        let before = self.processes().await;
        let from = From::now();
        for service in self.system.services() {
            service
                .to_database
                .set(Reach::All, Direction::Both, Fault::BlackHole);
        }
        let begun = Instant::now();
        while begun.elapsed() < length {
            for door in 0..self.system.control_planes.len() {
                let key = self.key();
                let asked = Instant::now();
                let status = self
                    .clients
                    .try_once(door, &key)
                    .await
                    .map_or(0, |(s, _)| s);
                // What was answered after the end was not answered in it.
                if begun.elapsed() < length {
                    self.measured.refusals.push((asked.elapsed(), status));
                }
            }
            tokio::time::sleep(PAUSE * 10).await;
        }
        for service in self.system.services() {
            service.to_database.pass();
        }
        let healed = Instant::now();
        self.full_service().await;
        self.measured.after_black_hole.push(healed.elapsed());
        self.done.push(from.done(What::DatabaseDisturbed));
        let changed = self.processes().await.into_iter().zip(before);
        self.measured.new_processes = changed
            .filter(|(now, before)| now != before)
            .map(|(now, _)| now.0)
            .collect();
        settle(self.system, self.settle).await;
    }

    /// The name and the process of everybody who serves.
    async fn processes(&self) -> Vec<(String, Option<String>)> {
        let mut found = Vec::new();
        for service in self.system.services() {
            let mut running = service.running().await;
            let pid = running
                .as_mut()
                .and_then(|program| (!program.has_ended()).then(|| program.pid().to_string()));
            drop(running);
            found.push((service.name.clone(), pid));
        }
        found
    }

    /// Waits until each control plane records, each runner takes work, and what they took has ended well.
    async fn full_service(&mut self) {
        let mut serving = JoinSet::new();
        let control_planes = self.system.control_planes.len();
        for number in 0..control_planes + self.system.runners.len() {
            let (clients, key) = (self.clients.clone(), self.key());
            let system = Arc::clone(self.system);
            serving.spawn(async move {
                let begun = Instant::now();
                let mut tries = 0;
                let job = loop {
                    tries += 1;
                    let key = format!("{key}-{tries}");
                    let answer = match number.checked_sub(control_planes) {
                        None => clients.try_once(number, &key).await,
                        Some(runner) => clients.try_runner(runner, &key).await,
                    };
                    if let Some((200..300, Some(job))) = answer {
                        break job;
                    }
                    assert!(begun.elapsed() < LIMIT, "nobody serves: {answer:?}");
                    tokio::time::sleep(PAUSE).await;
                };
                until(&system.database_url, job, "succeeded").await;
            });
        }
        while let Some(served) = serving.join_next().await {
            served.expect("everybody serves");
        }
    }
}

/// Waits until everything has ended, for so long at most.
pub(crate) async fn settle(system: &System, limit: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < limit && database::unsettled(&system.database_url).await != Some(0) {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until a job has this status, and goes on without it after a while: the checker will say what is missing.
async fn until(url: &str, job: Uuid, status: &str) {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT && database::status(url, job).await.as_deref() != Some(status) {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until a runner is at work, as [`until`] does.
async fn until_busy(url: &str, runner: &str) {
    let begun = Instant::now();
    while begun.elapsed() < BUSY && database::running_on(url, runner).await == 0 {
        tokio::time::sleep(PAUSE).await;
    }
}
