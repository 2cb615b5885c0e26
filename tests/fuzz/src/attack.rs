//! The attack: workers that play case after case, each over connections of its own, and judge every answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::case::Case;
use crate::oracle;
use crate::request::{Request, Side, Target};
use crate::routes::Routes;
use crate::tally::{Finding, Tally};
use crate::wire::{Came, Wire};
use crate::witness::Witness;

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Which requests; the same seed makes the same cases.
    pub seed: u64,
    /// Stop after so many.
    pub requests: u64,
    /// Only this case.
    pub only: Option<u64>,
    /// Stop after so long, whatever is left.
    pub within: Option<Duration>,
    /// So many at once.
    pub workers: usize,
}

/// Attacks the programs and says what came of it. With an address of their database, one worker plays alone, and looks
/// after each refusal whether something has changed.
pub async fn attack(target: &Target, plan: Plan, database: Option<&str>) -> Tally {
    let begun = Instant::now();
    let routes = Arc::new(Routes::read());
    let next_case = Arc::new(AtomicU64::new(plan.only.unwrap_or(0)));
    let sent = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    let one_only = plan.only.is_some() || database.is_some();
    for _ in 0..(if one_only { 1 } else { plan.workers }) {
        let witness = match database {
            Some(url) => Some(Witness::of(url).await),
            None => None,
        };
        let worker = Worker {
            control_plane: Wire::to(target.address(Side::ControlPlane)),
            runner: Wire::to(target.address(Side::Runner)),
            witness,
            tally: Tally::default(),
        };
        let shared = (
            Arc::clone(&routes),
            Arc::clone(&next_case),
            Arc::clone(&sent),
        );
        workers.spawn(worker.work(plan, target.clone(), shared));
    }
    let mut tally = Tally::default();
    while let Some(worker) = workers.join_next().await {
        tally.add(worker.expect("a worker that does not panic"));
    }
    tally.took = begun.elapsed();
    tally
}

struct Worker {
    control_plane: Wire,
    runner: Wire,
    witness: Option<Witness>,
    tally: Tally,
}

type Shared = (Arc<Routes>, Arc<AtomicU64>, Arc<AtomicU64>);

impl Worker {
    async fn work(
        mut self,
        plan: Plan,
        target: Target,
        (routes, next_case, sent): Shared,
    ) -> Tally {
        let begun = Instant::now();
        let is_late = || plan.within.is_some_and(|limit| begun.elapsed() > limit);
        while sent.load(Ordering::Relaxed) < plan.requests && !is_late() {
            let number = next_case.fetch_add(1, Ordering::Relaxed);
            let mut case = Case::new(&routes, &target.keys, plan.seed, number);
            while let Some(request) = case.next() {
                sent.fetch_add(1, Ordering::Relaxed);
                let came = self.send(number, &request).await;
                if case.job.is_none() {
                    case.job = created(&came);
                }
            }
            self.tally.cases += 1;
            if plan.only.is_some() {
                break;
            }
        }
        self.tally
    }

    async fn send(&mut self, case: u64, request: &Request) -> Came {
        let (mut came, mut change) = self.ask(request).await;
        if change.is_err() {
            // It may have been an earlier request, whose caller had gone; what a refusal changes, it changes again.
            (came, change) = self.ask(request).await;
        }
        let mut faults = oracle::faults(request, &came);
        match change {
            Ok(looked) => self.tally.unchanged += u64::from(looked),
            Err(fault) => faults.push(fault),
        }
        let status = if let Came::Answer(answer) = &came {
            answer.status
        } else {
            0
        };
        self.tally.requests += 1;
        *self.tally.statuses.entry(status).or_default() += 1;
        *self.tally.routes.entry(request.route.clone()).or_default() += 1;
        for fault in faults {
            self.tally.find(Finding {
                case,
                fault,
                request: request.shown(),
            });
        }
        came
    }

    /// What came, and whether it was a refusal that was looked at; an error where that had changed something.
    async fn ask(&mut self, request: &Request) -> (Came, Result<bool, String>) {
        let before = match &mut self.witness {
            Some(witness) => Some(witness.look().await),
            None => None,
        };
        let wire = match request.side {
            Side::ControlPlane => &mut self.control_plane,
            Side::Runner => &mut self.runner,
        };
        let came = wire.ask(request).await;
        let change = match (&mut self.witness, before) {
            (Some(witness), Some(before)) => witness.judge(&before, request, &came).await,
            (Some(_) | None, _) => Ok(false),
        };
        (came, change)
    }
}

/// The job that an answer tells of.
fn created(came: &Came) -> Option<String> {
    let Came::Answer(answer) = came else {
        return None;
    };
    if !(200..300).contains(&answer.status) {
        return None;
    }
    let answer: Value = serde_json::from_slice(&answer.body).ok()?;
    let places = ["/id", "/job_id", "/job/id", "/jobs/0/id"];
    places
        .iter()
        .find_map(|place| Some(answer.pointer(place)?.as_str()?.to_owned()))
}
