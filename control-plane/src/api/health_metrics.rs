//! `GET /health/metrics`: how the fleet does, in one answer. Reads what transitions have counted, and looks through no jobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use jobs::{Depth, Durations, HowOften, LastDone, Totals, Upkeep, Window};
use service::{Json, Problem};

use super::views::{
    AlertView, DurationsView, HealthMetricsView, Instant, LastDoneView, QueueView, UnservedView,
    UpkeepView, WindowView,
};
use crate::app::{App, ask};

/// Read how the fleet does: how much waits and for how long, what ended how in the window, what succeeded when last, and
/// whether somebody should look.
///
/// The figures are those that the transitions themselves counted since `counted_since`. `alert` is true from
/// `WORKER_ALERT_FAILURE_THRESHOLD` dead letters in the window on; `alerts` says what raised it.
#[utoipa::path(
    get,
    path = "/health/metrics",
    tag = "service",
    responses((status = 200, description = "The figures", body = HealthMetricsView)),
)]
pub(crate) async fn health_metrics(
    State(app): State<Arc<App>>,
) -> Result<Json<HealthMetricsView>, Problem> {
    ask(app.store.keep_counts_in_passing()).await?;
    let hours = app.config.metrics_window_hours;
    let depths = ask(app.store.depths()).await?;
    let window = ask(app.store.window(hours)).await?;
    let totals = ask(app.store.totals()).await?;
    let durations = ask(app.store.durations(hours)).await?;
    let upkeep = ask(app.store.upkeep()).await?;
    let alerts = alerts(&window, hours, app.config.alert_threshold);
    Ok(Json(HealthMetricsView {
        at: window.now,
        counted_since: window.counted_since,
        oldest_due_age_seconds: oldest(&depths),
        queue_depth: queues(&depths),
        unserved_job_types: unserved(&depths),
        window: window_view(&window, hours),
        last_success: last_success(&totals),
        durations: durations.iter().map(durations_view).collect(),
        alert: !alerts.is_empty(),
        alerts,
        last: upkeep_view(upkeep),
    }))
}

fn oldest(depths: &[Depth]) -> Option<f64> {
    let ages = depths
        .iter()
        .filter_map(|depth| Some(depth.oldest_due.as_ref()?.age_seconds));
    ages.max_by(f64::total_cmp)
}

/// Every queue with a job that is not over.
pub(super) fn queues(depths: &[Depth]) -> BTreeMap<String, QueueView> {
    let mut queues: BTreeMap<String, QueueView> = BTreeMap::new();
    for depth in depths {
        let queue = queues.entry(depth.queue.clone()).or_default();
        match depth.status.as_str() {
            "queued" => queue.queued += depth.jobs,
            "running" => queue.running += depth.jobs,
            "waiting" => queue.waiting += depth.jobs,
            // No other status has a depth.
            _ => {}
        }
        if let Some(due) = &depth.oldest_due
            && queue.oldest_due_at.is_none_or(|at| due.at < at)
        {
            queue.oldest_due_at = Some(due.at);
            queue.oldest_due_age_seconds = Some(due.age_seconds);
        }
    }
    queues
}

/// What is due and no living runner takes; of each queue and type the oldest job is asked.
pub(super) fn unserved(depths: &[Depth]) -> Vec<UnservedView> {
    let mut unserved: BTreeMap<&str, f64> = BTreeMap::new();
    for depth in depths {
        if let Some(due) = depth.oldest_due.as_ref().filter(|due| !due.is_served) {
            let age = unserved.entry(&due.work_type).or_default();
            *age = age.max(due.age_seconds);
        }
    }
    let view = |(job_type, oldest_due_age_seconds): (&str, f64)| UnservedView {
        job_type: job_type.to_owned(),
        oldest_due_age_seconds,
    };
    unserved.into_iter().map(view).collect()
}

fn total(counts: &[HowOften], kind: &str) -> i64 {
    let of_kind = counts.iter().filter(|count| count.kind == kind);
    of_kind.map(|count| count.jobs).sum()
}

fn window_view(window: &Window, hours: u32) -> WindowView {
    let total = |kind| total(&window.counts, kind);
    WindowView {
        hours,
        since: window.since,
        recorded: total("queued"),
        started: total("running"),
        succeeded: total("succeeded"),
        failed: total("failed"),
        aborted: total("aborted"),
        retries: total("retry_scheduled"),
        lost: total("lease_expired"),
        dead_letters: total("dead_lettered"),
    }
}

/// What raises an alert: too many dead letters in the window.
pub(super) fn alerts(window: &Window, hours: u32, threshold: u32) -> Vec<AlertView> {
    let count = total(&window.counts, "dead_lettered");
    if count < i64::from(threshold) {
        return Vec::new();
    }
    let by_type = window
        .counts
        .iter()
        .filter(|count| count.kind == "dead_lettered" && count.jobs > 0)
        .map(|count| (count.job_type.clone(), count.jobs))
        .collect();
    vec![AlertView {
        kind: "dead_letters",
        message: format!(
            "{count} dead letters since {}: the threshold is {threshold} in {hours} h.",
            window.since
        ),
        count,
        threshold,
        job_types: by_type,
    }]
}

/// Every type that anything was counted of; null where it never succeeded since.
fn last_success(totals: &[Totals]) -> BTreeMap<String, Option<Instant>> {
    let mut last: BTreeMap<String, Option<Instant>> = BTreeMap::new();
    for total in totals {
        let at = last.entry(total.job_type.clone()).or_default();
        if total.kind == "succeeded" {
            *at = (*at).max(Some(Instant(total.last_at)));
        }
    }
    last
}

fn durations_view(durations: &Durations) -> DurationsView {
    let [wait_ms_p50, wait_ms_p95, wait_ms_p99] = durations.wait_ms;
    let [run_ms_p50, run_ms_p95, run_ms_p99] = durations.run_ms;
    DurationsView {
        job_type: durations.job_type.clone(),
        hour: durations.hour,
        wait_ms_p50,
        wait_ms_p95,
        wait_ms_p99,
        run_ms_p50,
        run_ms_p95,
        run_ms_p99,
    }
}

fn upkeep_view(upkeep: Upkeep) -> UpkeepView {
    let view = |done: Option<LastDone>| {
        done.map(|done| LastDoneView {
            at: done.at,
            age_seconds: done.age_seconds,
        })
    };
    UpkeepView {
        tick: view(upkeep.tick),
        sweep: view(upkeep.sweep),
        backup: view(upkeep.backup),
        drill: view(upkeep.drill),
        drill_ok: upkeep.drill_ok,
    }
}

#[cfg(test)]
mod tests {
    use jobs::OldestDue;
    use time::macros::datetime;

    use super::*;

    fn window(dead: &[(&str, i64)]) -> Window {
        Window {
            now: datetime!(2026-01-02 03:04 UTC),
            since: datetime!(2026-01-01 03:00 UTC),
            counted_since: None,
            counts: dead
                .iter()
                .map(|(job_type, jobs)| HowOften {
                    job_type: (*job_type).to_owned(),
                    kind: "dead_lettered".to_owned(),
                    jobs: *jobs,
                })
                .collect(),
        }
    }

    #[test]
    fn an_alert_is_raised_at_the_threshold_and_names_what_raised_it() {
        assert!(alerts(&window(&[("a", 3), ("b", 1)]), 24, 5).is_empty());
        let raised = alerts(&window(&[("a", 3), ("b", 2)]), 24, 5);
        assert_eq!(raised.len(), 1);
        assert_eq!((raised[0].count, raised[0].threshold), (5, 5));
        assert_eq!(raised[0].job_types["b"], 2);
    }

    #[test]
    fn queues_are_added_up_over_their_types_and_the_oldest_counts() {
        let depth = |job_type: &str, status: &str, age: Option<f64>| Depth {
            queue: "default".to_owned(),
            job_type: job_type.to_owned(),
            status: status.to_owned(),
            jobs: 2,
            oldest_due: age.map(|age_seconds| OldestDue {
                at: datetime!(2026-01-02 03:04 UTC) - time::Duration::seconds_f64(age_seconds),
                age_seconds,
                work_type: job_type.to_owned(),
                is_served: job_type == "a",
            }),
        };
        let depths = [
            depth("a", "queued", Some(7.0)),
            depth("b", "queued", Some(9.0)),
            depth("a", "waiting", None),
        ];
        let queue = &queues(&depths)["default"];
        assert_eq!((queue.queued, queue.running, queue.waiting), (4, 0, 2));
        assert_eq!(queue.oldest_due_age_seconds, Some(9.0));
        let missing: Vec<_> = unserved(&depths)
            .into_iter()
            .map(|one| one.job_type)
            .collect();
        assert_eq!(missing, ["b"]);
    }
}
