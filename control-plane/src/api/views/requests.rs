//! What requests look like, for the API's description only: they are parsed by hand, so that every wrong field is named at once.

use std::collections::BTreeMap;

use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// A job that is asked for.
#[derive(ToSchema)]
#[schema(as = NewJob)]
#[expect(dead_code, reason = "describes a request, which JobRequest parses")]
pub(crate) struct JobRequestView {
    /// What is to be done.
    #[schema(pattern = "^[a-z][a-z0-9_]{0,63}$", example = "metrics_refresh")]
    job_type: String,
    /// What the handler is given; `{}` unless asked otherwise.
    payload: Option<Value>,
    /// A name to sort jobs by; `default` unless asked otherwise.
    #[schema(pattern = "^[a-z][a-z0-9_]{0,63}$")]
    queue: Option<String>,
    /// Higher runs first; 0 unless asked otherwise.
    priority: Option<i16>,
    /// Not before this instant, of the years 2000 to 2200; now unless asked otherwise.
    run_at: Option<OffsetDateTime>,
    /// Fails if it is still queued after so many seconds.
    #[schema(minimum = 1, maximum = 31_536_000)]
    ttl_seconds: Option<i32>,
    /// After so many attempts a failure is final; the job type decides unless asked otherwise.
    #[schema(minimum = 1, maximum = 1000)]
    max_attempts: Option<i32>,
    /// An attempt is killed after so many seconds; the job type decides unless asked otherwise.
    #[schema(minimum = 1, maximum = 2_592_000)]
    timeout_seconds: Option<i32>,
    /// Names (1 to 64 characters) and values (at most 256) of the caller's own, at most 32.
    labels: Option<BTreeMap<String, String>>,
    /// Run in order, at most 100; behind `GATES_ENABLED`.
    #[schema(min_items = 1, max_items = 100)]
    stages: Option<Vec<StageRequestView>>,
}

/// A stage that is asked for.
#[derive(ToSchema)]
#[schema(as = NewStage)]
#[expect(dead_code, reason = "describes a request, which StageRequest parses")]
pub(crate) struct StageRequestView {
    /// Once within the job.
    #[schema(pattern = "^[a-z][a-z0-9_]{0,63}$")]
    name: String,
    /// What is to be done in it; the job's type unless asked otherwise.
    #[schema(pattern = "^[a-z][a-z0-9_]{0,63}$")]
    job_type: Option<String>,
    /// What its handler is given; the job's payload unless asked otherwise.
    payload: Option<Value>,
    /// The job's unless asked otherwise.
    #[schema(minimum = 1, maximum = 1000)]
    max_attempts: Option<i32>,
    /// The job's unless asked otherwise.
    #[schema(minimum = 1, maximum = 2_592_000)]
    timeout_seconds: Option<i32>,
    /// After it, the job waits for a person.
    gate: Option<GateRequestView>,
}

/// A gate that is asked for; `{}` waits for one approval, for ever.
#[derive(ToSchema)]
#[schema(as = NewGate)]
#[expect(dead_code, reason = "describes a request, which GateRequest parses")]
pub(crate) struct GateRequestView {
    /// Approved by itself after so many seconds.
    #[schema(minimum = 0, maximum = 31_536_000)]
    auto_approve_after_seconds: Option<i32>,
    /// Waited for no longer than so many seconds.
    #[schema(minimum = 0, maximum = 31_536_000)]
    expires_after_seconds: Option<i32>,
    /// What then becomes of it: `abort` (the job; so unless asked otherwise), `approve` or `reject`.
    #[schema(pattern = "^(abort|approve|reject)$")]
    on_expiry: Option<String>,
    /// So many different keys or people must approve; 1 unless asked otherwise.
    #[schema(minimum = 1, maximum = 20)]
    approvals: Option<i32>,
    /// Whether whoever records the job may not decide.
    not_requester: Option<bool>,
    /// Only these may decide: ids of keys as they stand in `created_by`, or logins.
    #[schema(min_items = 1, max_items = 100)]
    only_keys: Option<Vec<String>>,
}

/// Why, and from where.
#[derive(ToSchema)]
#[schema(as = NewRetry)]
#[expect(dead_code, reason = "describes a request, which RetryRequest parses")]
pub(crate) struct RetryView {
    /// In the caller's words.
    #[schema(max_length = 1000)]
    reason: Option<String>,
    /// `failed_stage`, unless asked otherwise, or `start`; the same for a job without stages.
    #[schema(pattern = "^(failed_stage|start)$")]
    from: Option<String>,
}

/// Jobs that are recorded together.
#[derive(ToSchema)]
#[schema(as = NewBatch)]
#[expect(dead_code, reason = "describes a request, which BatchRequest parses")]
pub(crate) struct BatchRequestView {
    /// All or none.
    #[schema(min_items = 1, max_items = 1000)]
    jobs: Vec<JobRequestView>,
}

/// Why, for the job's events.
#[derive(ToSchema)]
#[schema(as = Reason)]
#[expect(dead_code, reason = "describes a request, which Reason parses")]
pub(crate) struct ReasonView {
    /// In the caller's words.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// Which ended jobs are to be queued again.
#[derive(ToSchema)]
#[schema(as = NewReplay)]
#[expect(dead_code, reason = "describes a request, which ReplayRequest parses")]
pub(crate) struct ReplayRequestView {
    /// Which jobs.
    filter: ReplayFilterView,
    /// Only count them.
    dry_run: Option<bool>,
    /// At most so many, the oldest first; 10000 unless asked otherwise.
    #[schema(minimum = 1, maximum = 10_000)]
    limit: Option<i64>,
    /// Why, for the jobs' events.
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

/// Every condition holds.
#[derive(ToSchema)]
#[schema(as = ReplayFilter)]
#[expect(dead_code, reason = "describes a request, which ReplayRequest parses")]
pub(crate) struct ReplayFilterView {
    /// `failed` or `aborted`.
    #[schema(pattern = "^(failed|aborted)$")]
    status: String,
    /// Only of this type.
    #[schema(pattern = "^[a-z][a-z0-9_]{0,63}$")]
    job_type: Option<String>,
    /// Only of this queue.
    #[schema(pattern = "^[a-z][a-z0-9_]{0,63}$")]
    queue: Option<String>,
    /// Only those whose error has this text in it.
    #[schema(min_length = 1, max_length = 1000)]
    error_contains: Option<String>,
    /// Recorded at this instant or later.
    created_after: Option<OffsetDateTime>,
    /// Recorded before this instant.
    created_before: Option<OffsetDateTime>,
}

/// What is to be triggered: a new job, or a queued one.
#[derive(ToSchema)]
#[schema(as = NewTrigger)]
#[expect(dead_code, reason = "describes a request, which TriggerRequest parses")]
#[serde(untagged)]
pub(crate) enum TriggerRequestView {
    /// A job to record.
    New(JobRequestView),
    /// A queued job.
    Queued {
        /// The job.
        job_id: Uuid,
    },
}

/// The statuses of a job.
#[derive(ToSchema)]
#[schema(as = Status, rename_all = "snake_case")]
#[expect(
    dead_code,
    reason = "describes jobs::Status, which knows nothing of HTTP"
)]
pub(crate) enum StatusView {
    Queued,
    Running,
    Waiting,
    Succeeded,
    Failed,
    Aborted,
}
