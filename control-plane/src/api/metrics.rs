//! `GET /metrics`: the figures of the fleet and of this process, for Prometheus. Says what `GET /health/metrics` says; the
//! names stand here and nowhere else.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use jobs::{Depth, Pause, PoolUse, Runner, Totals, Upkeep, Window};
use service::Problem;
use service::metrics::{Metrics, MetricsError, Registry, counters, gauge, gauges, refusals};

use super::health_metrics::{alerts, queues, unserved};
use crate::app::{App, ask};

/// A runner that was not heard of for so long is not counted as alive.
const ALIVE_SECONDS: f64 = 60.0;
/// So many queues and job types have figures of their own; the others share one.
const MOST_NAMES: usize = 200;
const OTHER: &str = "other";

/// Read the figures in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "service",
    responses((status = 200, description = "The figures", body = String, content_type = "text/plain")),
)]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    // There whenever the route is.
    let own = app.metrics.as_ref().ok_or_else(Problem::internal)?;
    ask(app.store.keep_counts_in_passing()).await?;
    let seen = Seen {
        depths: ask(app.store.depths()).await?,
        window: ask(app.store.window(app.config.metrics_window_hours)).await?,
        totals: ask(app.store.totals()).await?,
        upkeep: ask(app.store.upkeep()).await?,
        runners: ask(app.store.runners()).await?,
        pause: ask(app.store.pause()).await?,
        pool: app.store.pool_use(),
    };
    page(&app, own, &seen).map_err(|error| {
        tracing::error!(event = "metrics_not_encoded", %error);
        Problem::internal()
    })
}

/// What is shown.
struct Seen {
    depths: Vec<Depth>,
    window: Window,
    totals: Vec<Totals>,
    upkeep: Upkeep,
    runners: Vec<Runner>,
    pause: Option<Pause>,
    pool: PoolUse,
}

fn page(app: &App, own: &Metrics, seen: &Seen) -> Result<Response, MetricsError> {
    let registry = Registry::new();
    jobs_of(&registry, seen)?;
    let (hours, threshold) = (app.config.metrics_window_hours, app.config.alert_threshold);
    gauge(
        &registry,
        "ops_jobs_alert",
        "1 while GET /health/metrics says alert: true.",
    )?
    .set(if alerts(&seen.window, hours, threshold).is_empty() {
        0.0
    } else {
        1.0
    });
    fleet(&registry, seen)?;
    upkeep(&registry, &seen.upkeep)?;
    pool(&registry, seen.pool)?;
    refusals(&registry, app.guard.failures())?;
    Ok(own.page(&registry))
}

/// Names under which anything may be counted are the callers'; beyond a number they share one.
struct Names<'a>(std::collections::BTreeSet<(&'a str, &'a str)>);

impl<'a> Names<'a> {
    fn of(seen: &'a Seen) -> Self {
        // The most frequent come first.
        let counted = seen
            .totals
            .iter()
            .map(|total| (total.queue.as_str(), total.job_type.as_str()));
        let deep = seen
            .depths
            .iter()
            .map(|depth| (depth.queue.as_str(), depth.job_type.as_str()));
        let mut names = std::collections::BTreeSet::new();
        for name in counted.chain(deep) {
            if names.len() == MOST_NAMES {
                break;
            }
            names.insert(name);
        }
        Self(names)
    }

    fn fit(&self, queue: &'a str, job_type: &'a str) -> (&'a str, &'a str) {
        if self.0.contains(&(queue, job_type)) {
            (queue, job_type)
        } else {
            (OTHER, OTHER)
        }
    }
}

fn jobs_of(registry: &Registry, seen: &Seen) -> Result<(), MetricsError> {
    let names = Names::of(seen);
    let current = gauges(
        registry,
        "ops_jobs_current",
        "Jobs that are not over, by queue, job type and status.",
        &["queue", "job_type", "status"],
    )?;
    for depth in &seen.depths {
        let (queue, job_type) = names.fit(&depth.queue, &depth.job_type);
        current
            .with_label_values(&[queue, job_type, &depth.status])
            .add(depth.jobs as f64);
    }
    let transitions = counters(
        registry,
        "ops_jobs_transitions_total",
        "Events of jobs since they are counted, by kind: queued, running, succeeded, failed, retry_scheduled, dead_lettered and so on.",
        &["queue", "job_type", "kind"],
    )?;
    let last = gauges(
        registry,
        "ops_jobs_last_success_timestamp_seconds",
        "When a job of the type last succeeded.",
        &["job_type"],
    )?;
    for total in &seen.totals {
        let (queue, job_type) = names.fit(&total.queue, &total.job_type);
        transitions
            .with_label_values(&[queue, job_type, &total.kind])
            .inc_by(u64::try_from(total.jobs).unwrap_or_default());
        if total.kind == "succeeded" {
            let gauge = last.with_label_values(&[job_type]);
            gauge.set(gauge.get().max(total.last_at.unix_timestamp() as f64));
        }
    }
    let oldest = gauges(
        registry,
        "ops_jobs_oldest_due_age_seconds",
        "How long the oldest due job of the queue has been due; 0 where none is.",
        &["queue"],
    )?;
    for (queue, view) in queues(&seen.depths).iter().take(MOST_NAMES) {
        oldest
            .with_label_values(&[queue])
            .set(view.oldest_due_age_seconds.unwrap_or_default());
    }
    let nobody = gauges(
        registry,
        "ops_jobs_unserved_age_seconds",
        "How long the oldest due job of a type that no living runner takes has been due.",
        &["job_type"],
    )?;
    for view in unserved(&seen.depths).iter().take(MOST_NAMES) {
        nobody
            .with_label_values(&[&view.job_type])
            .set(view.oldest_due_age_seconds);
    }
    Ok(())
}

fn fleet(registry: &Registry, seen: &Seen) -> Result<(), MetricsError> {
    let alive = || {
        let alive = |runner: &&Runner| runner.silent_seconds < ALIVE_SECONDS;
        seen.runners.iter().filter(alive)
    };
    let runners = gauges(registry, "ops_fleet_runners", "Living runners.", &["state"])?;
    let draining = alive().filter(|runner| runner.draining).count();
    runners
        .with_label_values(&["draining"])
        .set(draining as f64);
    runners
        .with_label_values(&["taking"])
        .set(alive().count().saturating_sub(draining) as f64);
    let slots = gauges(
        registry,
        "ops_fleet_slots",
        "Slots of living runners.",
        &["state"],
    )?;
    let used: i32 = alive().map(|runner| runner.slots_used).sum();
    let total: i32 = alive().map(|runner| runner.slots_total).sum();
    slots.with_label_values(&["used"]).set(f64::from(used));
    slots
        .with_label_values(&["free"])
        .set(f64::from((total - used).max(0)));
    gauge(registry, "ops_fleet_paused", "1 while the fleet is paused.")?
        .set(if seen.pause.is_some() { 1.0 } else { 0.0 });
    Ok(())
}

fn upkeep(registry: &Registry, upkeep: &Upkeep) -> Result<(), MetricsError> {
    let ages = gauges(
        registry,
        "ops_upkeep_age_seconds",
        "How long ago it was last done: tick, sweep, backup, drill. Not there: never.",
        &["task"],
    )?;
    for (task, done) in [
        ("tick", upkeep.tick),
        ("sweep", upkeep.sweep),
        ("backup", upkeep.backup),
        ("drill", upkeep.drill),
    ] {
        if let Some(done) = done {
            ages.with_label_values(&[task]).set(done.age_seconds);
        }
    }
    if let Some(ok) = upkeep.drill_ok {
        gauge(
            registry,
            "ops_drill_ok",
            "1 where the last drill proved the newest backup equal.",
        )?
        .set(if ok { 1.0 } else { 0.0 });
    }
    Ok(())
}

fn pool(registry: &Registry, pool: PoolUse) -> Result<(), MetricsError> {
    let connections = gauges(
        registry,
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
    Ok(())
}
