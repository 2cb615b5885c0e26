//! What `GET /health/metrics` looks like in JSON. Holds no logic.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// An instant as the value of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct Instant(#[serde(with = "time::serde::rfc3339")] pub(crate) OffsetDateTime);

/// How the fleet does.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HealthMetrics)]
pub(crate) struct HealthMetricsView {
    /// Now, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) at: OffsetDateTime,
    /// Since when every transition is counted; what happened before is in the depths only. Null: just beginning.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) counted_since: Option<OffsetDateTime>,
    /// How many jobs are not over, by queue.
    pub(crate) queue_depth: BTreeMap<String, QueueView>,
    /// How long the oldest due job has been due; null: none is.
    pub(crate) oldest_due_age_seconds: Option<f64>,
    /// Job types with a due job that no living runner takes.
    pub(crate) unserved_job_types: Vec<UnservedView>,
    /// What happened of late.
    pub(crate) window: WindowView,
    /// When a job of each type last succeeded; null: not since jobs are counted.
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub(crate) last_success: BTreeMap<String, Option<Instant>>,
    /// What the job type `metrics_refresh` last found of each type's waits and run times.
    pub(crate) durations: Vec<DurationsView>,
    /// Whether somebody should look.
    pub(crate) alert: bool,
    /// Why.
    pub(crate) alerts: Vec<AlertView>,
    /// When the fleet last looked after itself.
    pub(crate) last: UpkeepView,
}

/// The depth of a queue.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = QueueDepth)]
pub(crate) struct QueueView {
    /// Jobs that wait for a runner, or for their time.
    pub(crate) queued: i64,
    /// Jobs at work.
    pub(crate) running: i64,
    /// Jobs that wait for a person.
    pub(crate) waiting: i64,
    /// Since when the oldest due job has been due; null: none is.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) oldest_due_at: Option<OffsetDateTime>,
    /// How long that is, in seconds.
    pub(crate) oldest_due_age_seconds: Option<f64>,
}

/// A job type that nobody runs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnservedJobType)]
pub(crate) struct UnservedView {
    /// The job type.
    pub(crate) job_type: String,
    /// How long its oldest job has been due, in seconds.
    pub(crate) oldest_due_age_seconds: f64,
}

/// Counts of the window.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MetricsWindow)]
pub(crate) struct WindowView {
    /// `OPERATIONS_METRICS_WINDOW_HOURS`.
    pub(crate) hours: u32,
    /// Counted from here on: the beginning of the hour in which the window begins.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) since: OffsetDateTime,
    /// Jobs recorded.
    pub(crate) recorded: i64,
    /// Attempts begun.
    pub(crate) started: i64,
    /// Jobs succeeded.
    pub(crate) succeeded: i64,
    /// Jobs failed for good.
    pub(crate) failed: i64,
    /// Jobs aborted.
    pub(crate) aborted: i64,
    /// Attempts that failed and were scheduled again.
    pub(crate) retries: i64,
    /// Attempts whose runner was lost.
    pub(crate) lost: i64,
    /// Jobs failed with their attempts used up.
    pub(crate) dead_letters: i64,
}

/// Percentiles of a job type's newest hour, in milliseconds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobTypeDurations)]
pub(crate) struct DurationsView {
    /// The job type.
    pub(crate) job_type: String,
    /// The hour, by its beginning.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) hour: OffsetDateTime,
    /// Median wait from due to claimed.
    pub(crate) wait_ms_p50: Option<i64>,
    /// 95th percentile of the wait.
    pub(crate) wait_ms_p95: Option<i64>,
    /// 99th percentile of the wait.
    pub(crate) wait_ms_p99: Option<i64>,
    /// Median run time of an attempt.
    pub(crate) run_ms_p50: Option<i64>,
    /// 95th percentile of the run time.
    pub(crate) run_ms_p95: Option<i64>,
    /// 99th percentile of the run time.
    pub(crate) run_ms_p99: Option<i64>,
}

/// What raised the alert.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MetricsAlert)]
pub(crate) struct AlertView {
    /// `dead_letters`.
    pub(crate) kind: &'static str,
    /// The same in words.
    pub(crate) message: String,
    /// How many.
    pub(crate) count: i64,
    /// From how many on.
    pub(crate) threshold: u32,
    /// How many of each job type.
    pub(crate) job_types: BTreeMap<String, i64>,
}

/// When the fleet last looked after itself; null: not yet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Upkeep)]
pub(crate) struct UpkeepView {
    /// `POST /tick`, to either program.
    pub(crate) tick: Option<LastDoneView>,
    /// Lost and outlived jobs were taken back.
    pub(crate) sweep: Option<LastDoneView>,
    /// A backup was made.
    pub(crate) backup: Option<LastDoneView>,
    /// The newest backup was restored on trial.
    pub(crate) drill: Option<LastDoneView>,
    /// Whether that proved it equal.
    pub(crate) drill_ok: Option<bool>,
}

/// When something was last done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LastDone)]
pub(crate) struct LastDoneView {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) at: OffsetDateTime,
    /// How long ago, in seconds.
    pub(crate) age_seconds: f64,
}
