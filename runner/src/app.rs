//! What all parts of a running runner share. It has no loop of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use files::Depot;
use jobs::{ClaimRequest, Closed, RunnerIdentity, RunnerReport, Store, StoreError};
use service::trace::Tracing;
use service::{AppEnv, Flags, Guard, Readiness, Stop};
use tokio::sync::{Mutex, Notify};

use crate::backlog::Backlog;
use crate::config::Limits;
use crate::executions::Executions;
use crate::lease_keeper::Leases;
use crate::metrics::RunnerMetrics;
use crate::outcome_file::Outcomes;
use crate::registry::Registry;
use crate::slots::Slots;
use crate::supervised::Loops;
use crate::work_dir::WorkDir;

/// Who asks whether it is ready waits no longer.
const PATIENCE: Duration = Duration::from_millis(2500);

/// How often it is asked whether the runner may begin.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// One runner.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) identity: RunnerIdentity,
    pub(crate) limits: Limits,
    pub(crate) store: Store,
    pub(crate) depot: Arc<Depot>,
    pub(crate) work_dir: Arc<WorkDir>,
    pub(crate) registry: Registry,
    pub(crate) slots: Slots,
    pub(crate) leases: Arc<Leases>,
    pub(crate) executions: Executions,
    pub(crate) outcomes: Outcomes,
    /// What it counts of itself; there whenever `FEATURE_METRICS` is on.
    pub(crate) metrics: Option<RunnerMetrics>,
    /// Makes its spans.
    pub(crate) tracing: Tracing,
    /// Lets in who bears one of the tokens.
    pub(crate) guard: Guard,
    pub(crate) app_env: AppEnv,
    pub(crate) flags: Flags,
    /// Once it is requested, nothing new is taken.
    pub(crate) stop: Stop,
    /// One claim of due work at a time; a trigger that finds no slot waits for it, since it holds all that are free.
    pub(crate) claiming: Mutex<()>,
    pub(crate) backlog: Backlog,
    /// Told whenever a job has ended here.
    pub(crate) ended: Notify,
    pub(crate) loops: Arc<Loops>,
    /// Told when ended jobs are to be sealed at once.
    pub(crate) seal: Notify,
    /// Tells endpoints what happened; `None` without a key to sign with.
    pub(crate) webhooks: Option<webhooks::Sender>,
    /// Told when webhooks are to be sent at once.
    pub(crate) tell: Notify,
    /// Publishes outcomes to Notion; there whenever `NOTION_ENABLED` is on.
    pub(crate) notion: Option<notion::Publisher>,
    /// Told when outcomes are to be published at once.
    pub(crate) publish: Notify,
    /// Whether this process bears its runner's name; before that, and after it has lost it, nothing is taken.
    pub(crate) admitted: AtomicBool,
}

impl App {
    /// What is asked of a claim while so many jobs are at work, or about to be.
    pub(crate) fn claim_request(&self, at_work: usize) -> ClaimRequest<'_> {
        ClaimRequest {
            runner: &self.identity,
            types: self.registry.terms(),
            lease: self.limits.lease,
            at_work,
            stages: self.registry.takes_stages(),
        }
    }

    /// What the runner's own row says.
    pub(crate) fn own_report(&self) -> RunnerReport<'_> {
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        RunnerReport {
            runner: &self.identity,
            version: env!("CARGO_PKG_VERSION"),
            job_types: self.registry.names(),
            slots_total: count(self.slots.total()),
            slots_used: count(self.leases.count()),
            draining: self.stop.is_requested(),
            poll: self.limits.poll_interval,
            types: self.registry.terms(),
        }
    }

    /// Writes the runner's own row; if another process has taken its name, nothing is taken any more.
    pub(crate) async fn report(&self) -> Result<(), StoreError> {
        if !self.store.report_runner(self.own_report()).await? {
            self.admitted.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(crate) fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Relaxed)
    }

    pub(crate) fn admit(&self) {
        self.admitted.store(true, Ordering::Relaxed);
    }

    /// Whether new work may be taken at all.
    pub(crate) fn takes_work(&self) -> bool {
        self.is_admitted() && !self.stop.is_requested()
    }

    /// Whether it can take work, and is given any.
    pub(crate) async fn readiness(&self) -> Readiness {
        match self.fitness().await {
            Readiness::Ready => match tokio::time::timeout(PATIENCE, self.closed()).await {
                Ok(Ok(None)) => Readiness::Ready,
                Ok(Ok(Some(closed))) => Readiness::NotReady {
                    part: part_of(&closed),
                    detail: format!("The runner is {closed}: it is given no job."),
                },
                Ok(Err(_)) | Err(_) => no_database(),
            },
            other => other,
        }
    }

    /// Why it is given no job, although the fleet is not paused; it keeps house all the same.
    pub(crate) async fn closed(&self) -> Result<Option<Closed>, StoreError> {
        self.store.closed_to(&self.identity).await
    }

    /// Whether it could take work.
    async fn fitness(&self) -> Readiness {
        if self.stop.is_requested() {
            let detail = "The runner is draining: it takes no more work.".to_owned();
            return Readiness::NotReady {
                part: "draining",
                detail,
            };
        }
        if let Some(part) = self.loops.down() {
            return Readiness::NotReady {
                part,
                detail: "This loop has failed and is begun anew: see the log.".to_owned(),
            };
        }
        match self.database_readiness().await {
            Readiness::Ready if !self.is_admitted() => Readiness::NotReady {
                part: "runner_id",
                detail: "Another process may still bear this RUNNER_ID.".to_owned(),
            },
            readiness => readiness,
        }
    }

    /// Whether the database is there, with the schema that this program knows.
    pub(crate) async fn database_readiness(&self) -> Readiness {
        match tokio::time::timeout(PATIENCE, self.store.schema_status()).await {
            Ok(Ok(schema)) if schema.is_expected() => self.safety().await,
            Ok(Ok(schema)) => {
                let detail = format!(
                    "The database's schema is version {}, expected is {}: run opsctl db migrate.",
                    schema.current, schema.expected
                );
                Readiness::NotReady {
                    part: "schema",
                    detail,
                }
            }
            Ok(Err(_)) | Err(_) => no_database(),
        }
    }

    /// In production, work is done only where what is acknowledged stays.
    async fn safety(&self) -> Readiness {
        if self.app_env != AppEnv::Prod {
            return Readiness::Ready;
        }
        match tokio::time::timeout(PATIENCE, self.store.dangers()).await {
            Ok(Ok(dangers)) if dangers.is_empty() => Readiness::Ready,
            Ok(Ok(dangers)) => Readiness::NotReady {
                part: "durability",
                detail: format!(
                    "The database may lose what it acknowledged: {}.",
                    dangers.join("; ")
                ),
            },
            Ok(Err(_)) | Err(_) => no_database(),
        }
    }

    /// A runner on a schema that it does not know claims and sweeps nothing.
    pub(crate) async fn until_ready(&self) {
        let mut told = false;
        while let Readiness::NotReady { part, detail } = self.fitness().await {
            if !told {
                tracing::warn!(event = "not_ready", part, detail);
                told = true;
            }
            tokio::select! {
                () = self.stop.requested() => return,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
}

/// What of the runner is not ready.
pub(crate) fn part_of(closed: &Closed) -> &'static str {
    match closed {
        Closed::Drained { .. } => "draining",
        Closed::Incompatible { .. } => "protocol",
    }
}

fn no_database() -> Readiness {
    Readiness::NotReady {
        part: "database",
        detail: "The database does not answer.".to_owned(),
    }
}
