//! What answers look like in JSON. Holds no logic; what requests look like is described in `views/requests.rs`.

mod gates;
mod keys;
mod metrics;
mod notion;
mod requests;
mod schedules;
mod service;
mod webhooks;

use jobs::{Event, Job, Name, Stage, Status};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

pub(crate) use gates::{
    DecidedView, DecisionView, GateView, GatesView, LinkView, LinksRequestView, LinksView,
    StageView,
};
pub(crate) use keys::{KeyRequestView, KeyView, KeysView};
pub(crate) use metrics::{
    AlertView, DurationsView, HealthMetricsView, Instant, LastDoneView, QueueView, UnservedView,
    UpkeepView, WindowView,
};
pub(crate) use notion::{NotionRetriedView, NotionRetryView, NotionView};
pub(crate) use requests::{
    BatchRequestView, JobRequestView, ReasonView, ReplayRequestView, RetryView, StatusView,
    TriggerRequestView,
};
pub(crate) use schedules::{
    FireView, FiresView, HandFiredView, InstantView, InstantsView, PreviewRequestView,
    ScheduleRequestView, ScheduleView, SchedulesView,
};
pub(crate) use service::{
    FleetChangeView, FleetView, ForgottenView, LimitsView, MetaView, PauseView, RunnerView,
    RunnersView, SettingView, SettingsView, TickView, WhyReasonView, WhyView,
};
pub(crate) use webhooks::{
    AttemptView, DeliveriesView, DeliveryView, PingView, ResendRequestView, ResentView,
    RotateRequestView, WebhookRequestView, WebhookView, WebhooksView, WholeDeliveryView,
};

/// What a replay did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replay)]
pub(crate) struct ReplayView {
    /// How many jobs the filter met when it began.
    pub(crate) matched: i64,
    /// How many are queued again.
    pub(crate) retried: i64,
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(crate) struct JobView {
    /// UUIDv7: sorts by creation.
    id: Uuid,
    /// What is to be done.
    #[schema(value_type = String, pattern = "^[a-z][a-z0-9_]{0,63}$")]
    job_type: Name,
    /// Its queue.
    #[schema(value_type = String, pattern = "^[a-z][a-z0-9_]{0,63}$")]
    queue: Name,
    /// Where it is in its life.
    #[schema(value_type = StatusView)]
    status: Status,
    /// Running, but not heard of for longer than the threshold.
    stalled: bool,
    /// Higher runs first.
    priority: i16,
    /// What the handler is given.
    payload: Value,
    /// What the handler answered.
    result: Option<Value>,
    /// Why the last attempt failed.
    error: Option<String>,
    /// Claims counted so far.
    attempt: i32,
    /// After so many attempts a failure is final.
    max_attempts: i32,
    /// Not claimed before this instant.
    #[serde(with = "time::serde::rfc3339")]
    run_at: OffsetDateTime,
    /// Fails if it is still queued at this instant.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// An attempt is killed after so long, in seconds.
    timeout_seconds: Option<i32>,
    /// The caller's key.
    idempotency_key: Option<String>,
    /// The caller's own names and values.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    labels: Value,
    /// The runner that holds it or ended it.
    runner_id: Option<String>,
    /// The claim holds until this instant.
    #[serde(with = "time::serde::rfc3339::option")]
    lease_expires_at: Option<OffsetDateTime>,
    /// When the runner was last heard of.
    #[serde(with = "time::serde::rfc3339::option")]
    heartbeat_at: Option<OffsetDateTime>,
    /// The fencing number of its newest claim.
    fence: i64,
    /// The handler's last progress.
    progress: Option<Value>,
    /// When somebody asked to stop it.
    #[serde(with = "time::serde::rfc3339::option")]
    abort_requested_at: Option<OffsetDateTime>,
    /// When it failed with its attempts used up.
    #[serde(with = "time::serde::rfc3339::option")]
    dead_lettered_at: Option<OffsetDateTime>,
    /// Who recorded it.
    created_by: String,
    /// When it was recorded.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When its newest attempt began.
    #[serde(with = "time::serde::rfc3339::option")]
    started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
    /// When its status last changed.
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    /// Its stages, in order, with what became of each; only where one job is asked for, and it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    stages: Option<Vec<StageView>>,
}

impl JobView {
    /// The same with its stages.
    pub(crate) fn with_stages(mut self, stages: Option<Vec<Stage>>) -> Self {
        self.stages = stages.map(|stages| stages.into_iter().map(StageView::from).collect());
        self
    }
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        Self {
            id: job.id,
            job_type: job.job_type,
            queue: job.queue,
            status: job.status,
            stalled: job.stalled,
            priority: job.priority,
            payload: job.payload,
            result: job.result,
            error: job.error,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            run_at: job.run_at,
            expires_at: job.expires_at,
            timeout_seconds: job.timeout_seconds,
            idempotency_key: job.idempotency_key,
            labels: job.labels,
            runner_id: job.runner_id,
            lease_expires_at: job.lease_expires_at,
            heartbeat_at: job.heartbeat_at,
            fence: job.fence,
            progress: job.progress,
            abort_requested_at: job.abort_requested_at,
            dead_lettered_at: job.dead_lettered_at,
            created_by: job.created_by,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            updated_at: job.updated_at,
            stages: None,
        }
    }
}

/// Something that happened to a job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventView {
    /// The job.
    job_id: Uuid,
    /// 1, 2, 3 … within the job, without gaps.
    seq: i32,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// What happened.
    kind: String,
    /// The attempt it belongs to; 0 before the first.
    attempt: i32,
    /// The runner concerned.
    runner_id: Option<String>,
    /// Who did it.
    actor: String,
    /// Details, deterministic by kind.
    data: Value,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            job_id: event.job_id,
            seq: event.seq,
            at: event.at,
            kind: event.kind,
            attempt: event.attempt,
            runner_id: event.runner_id,
            actor: event.actor,
            data: event.data,
        }
    }
}

/// A line that a job printed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Line)]
pub(crate) struct LineView {
    /// Its number within the job, over all attempts; a jump tells how many lines were left out.
    pub(crate) seq: i64,
    /// When it was read, to a quarter of a second.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) at: OffsetDateTime,
    /// The attempt that printed it.
    pub(crate) attempt: i32,
    /// `stdout`, `stderr`, or `runner` for the runner's own remarks.
    pub(crate) stream: String,
    /// The line, without its end.
    pub(crate) line: String,
}

/// Lines of a job's log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Log)]
pub(crate) struct LogView {
    /// In order.
    pub(crate) lines: Vec<LineView>,
    /// What to ask for next: `after` this number.
    pub(crate) last_seq: i64,
    /// Whether the job has ended and these are its last lines.
    pub(crate) complete: bool,
}

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobList)]
pub(crate) struct JobListView {
    /// Newest first.
    pub(crate) jobs: Vec<JobView>,
    /// Asks for the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// The jobs of a batch, in the order in which they were sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Batch)]
pub(crate) struct BatchView {
    /// The jobs.
    pub(crate) jobs: Vec<JobView>,
}

/// Events of a job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Events)]
pub(crate) struct EventsView {
    /// In order.
    pub(crate) events: Vec<EventView>,
}

/// A file that a job left.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Artifact)]
pub(crate) struct ArtifactView {
    /// Its path in the handler's folder.
    name: String,
    /// The stage that left it; null where the job has none.
    stage: Option<String>,
    /// Bytes.
    size: u64,
    /// SHA-256 of them, in lower-case hexadecimal; the ETag of a download.
    sha256: String,
    /// What it is, by its name.
    content_type: String,
    /// When it was stored.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl From<jobs::File> for ArtifactView {
    fn from(file: jobs::File) -> Self {
        Self {
            sha256: hex(&file.sum.sha256),
            name: file.name,
            stage: file.stage,
            size: file.sum.size,
            content_type: file.content_type,
            created_at: file.created_at,
        }
    }
}

/// What a job left.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Artifacts)]
pub(crate) struct ArtifactsView {
    /// By stage and name.
    pub(crate) artifacts: Vec<ArtifactView>,
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What came of a trigger.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Triggered)]
pub(crate) struct TriggeredView {
    /// The job as it is now.
    pub(crate) job: JobView,
    /// What the runner made of it.
    pub(crate) trigger: TriggerView,
}

/// What the runner made of a trigger.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Trigger)]
pub(crate) struct TriggerView {
    /// In one word.
    pub(crate) outcome: TriggerOutcome,
}

/// What the runner made of a trigger, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TriggerOutcome {
    /// It took the job.
    Accepted,
    /// It is busy: the job waits, queued.
    Deferred,
}
