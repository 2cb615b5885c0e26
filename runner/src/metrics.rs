//! What the runner counts of itself, for Prometheus: waits and run times of attempts, slots, leases, the pool. The names stand
//! here and nowhere else; job types are those of the registry, so that labels are bounded.

use std::time::Duration;

use axum::response::Response;
use jobs::Outcome;
use service::metrics::{
    HistogramVec, IntCounterVec, Metrics, MetricsError, RUN_SECONDS, Registry, WAIT_SECONDS,
    counters, gauge, gauges, histograms, refusals,
};

use crate::app::App;
use crate::executor::word;

/// What is counted while attempts run.
#[derive(Clone, Debug)]
pub(crate) struct RunnerMetrics {
    pub(crate) service: Metrics,
    waits: HistogramVec,
    runs: HistogramVec,
    attempts: IntCounterVec,
}

impl RunnerMetrics {
    /// Begins to count.
    pub(crate) fn new() -> Result<Self, MetricsError> {
        let service = Metrics::new("runner", env!("CARGO_PKG_VERSION"))?;
        let registry = service.registry();
        Ok(Self {
            waits: histograms(
                registry,
                "ops_jobs_wait_seconds",
                "How long jobs had been due when this runner claimed them.",
                &["job_type"],
                WAIT_SECONDS,
            )?,
            runs: histograms(
                registry,
                "ops_jobs_run_seconds",
                "How long attempts took, from the claim to their outcome.",
                &["job_type"],
                RUN_SECONDS,
            )?,
            attempts: counters(
                registry,
                "ops_runner_attempts_total",
                "Attempts that ended here, by outcome: succeeded, retry, failed, aborted, released.",
                &["job_type", "outcome"],
            )?,
            service,
        })
    }

    /// Notes that an attempt begins.
    pub(crate) fn begun(&self, job_type: &str, waited: Duration) {
        self.waits
            .with_label_values(&[job_type])
            .observe(waited.as_secs_f64());
    }

    /// Notes that an attempt has ended.
    pub(crate) fn ended(&self, job_type: &str, outcome: &Outcome, took: Duration) {
        self.runs
            .with_label_values(&[job_type])
            .observe(took.as_secs_f64());
        self.attempts
            .with_label_values(&[job_type, word(outcome)])
            .inc();
    }

    /// The page.
    pub(crate) fn page(&self, app: &App) -> Result<Response, MetricsError> {
        let registry = Registry::new();
        let slots = gauges(
            &registry,
            "ops_runner_slots",
            "Slots of this runner.",
            &["state"],
        )?;
        let used = app.slots.used();
        slots.with_label_values(&["used"]).set(used as f64);
        slots
            .with_label_values(&["free"])
            .set(app.slots.total().saturating_sub(used) as f64);
        gauge(
            &registry,
            "ops_runner_leases",
            "Leases that this runner holds.",
        )?
        .set(app.leases.count() as f64);
        let takes_work = if app.takes_work() { 1.0 } else { 0.0 };
        gauge(
            &registry,
            "ops_runner_takes_work",
            "1 while it takes jobs; 0 while it drains or is not admitted.",
        )?
        .set(takes_work);
        let pool = app.store.pool_use();
        let connections = gauges(
            &registry,
            "ops_database_connections",
            "Connections of this process to the database.",
            &["state"],
        )?;
        for (state, count) in [
            ("used", pool.used),
            ("idle", pool.idle),
            ("free", pool.free),
        ] {
            connections
                .with_label_values(&[state])
                .set(f64::from(count));
        }
        refusals(&registry, app.guard.failures())?;
        Ok(self.service.page(&registry))
    }
}
