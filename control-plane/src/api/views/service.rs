//! What answers about the service and its fleet look like in JSON. Holds no logic.

use std::collections::{BTreeMap, BTreeSet};

use jobs::{FleetChange, Pause, Reason, Runner};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// A runner, by its own account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Runner)]
pub(crate) struct RunnerView {
    /// `RUNNER_ID`.
    id: String,
    /// Its version.
    version: String,
    /// The job types that it takes.
    job_types: Vec<String>,
    /// How many jobs it runs.
    slots_used: i32,
    /// How many jobs it runs at once at most.
    slots_total: i32,
    /// Whether it takes no more: it is shutting down, or was drained.
    draining: bool,
    /// Since when it is drained, which lasts over restarts until it is undrained; null: it is not.
    #[serde(with = "time::serde::rfc3339::option")]
    drain_requested_at: Option<OffsetDateTime>,
    /// Who drained it.
    drain_requested_by: Option<String>,
    /// Why, where that was said.
    drain_reason: Option<String>,
    /// How it speaks with the database; null where its release does not say.
    protocol: Option<i32>,
    /// Whether the database serves that protocol; else it is given no job.
    fits: bool,
    /// When it started.
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    /// When it was last heard of.
    #[serde(with = "time::serde::rfc3339")]
    last_seen_at: OffsetDateTime,
}

impl From<Runner> for RunnerView {
    fn from(runner: Runner) -> Self {
        Self {
            id: runner.id,
            version: runner.version,
            job_types: runner.job_types,
            slots_used: runner.slots_used,
            slots_total: runner.slots_total,
            draining: runner.draining,
            drain_requested_at: runner.drain_requested_at,
            drain_requested_by: runner.drain_requested_by,
            drain_reason: runner.drain_reason,
            protocol: runner.protocol,
            fits: runner.fits,
            started_at: runner.started_at,
            last_seen_at: runner.last_seen_at,
        }
    }
}

/// The fleet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Runners)]
pub(crate) struct RunnersView {
    /// Most recently seen first.
    pub(crate) runners: Vec<RunnerView>,
    /// Why none of them takes a job; null while they do.
    pub(crate) pause: Option<PauseView>,
}

/// A runner that was forgotten.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Forgotten)]
pub(crate) struct ForgottenView {
    /// The runner.
    pub(crate) id: String,
    /// Jobs of lost runners that were taken back with it.
    pub(crate) taken_back: u64,
}

/// Why a job is where it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Why)]
pub(crate) struct WhyView {
    /// The job.
    pub(crate) job_id: Uuid,
    /// The weightiest first; never none.
    pub(crate) reasons: Vec<WhyReasonView>,
}

/// One reason for which a job is where it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WhyReason)]
pub(crate) struct WhyReasonView {
    /// A word for programs; docs/api.md lists them.
    code: String,
    /// A sentence for people.
    message: String,
    /// What would change it.
    remedy: String,
    /// What the sentence was made of; `since` and `until` are instants.
    data: serde_json::Value,
}

impl From<Reason> for WhyReasonView {
    fn from(reason: Reason) -> Self {
        Self {
            code: reason.code,
            message: reason.message,
            remedy: reason.remedy,
            data: reason.data,
        }
    }
}

/// A pause of the fleet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Pause)]
pub(crate) struct PauseView {
    /// Since when no job is taken.
    #[serde(with = "time::serde::rfc3339")]
    paused_at: OffsetDateTime,
    /// Who paused it.
    paused_by: String,
    /// Why, where that was said.
    reason: Option<String>,
}

impl From<Pause> for PauseView {
    fn from(pause: Pause) -> Self {
        Self {
            paused_at: pause.at,
            paused_by: pause.by,
            reason: pause.reason,
        }
    }
}

/// The fleet's switch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fleet)]
pub(crate) struct FleetView {
    /// Whether no job is taken.
    pub(crate) paused: bool,
    /// Since when; null while jobs are taken, as the next two.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) paused_at: Option<OffsetDateTime>,
    /// Who paused it.
    pub(crate) paused_by: Option<String>,
    /// Why, where that was said.
    pub(crate) reason: Option<String>,
    /// The newest changes, of the fleet and of its runners, at most 50, the newest first.
    pub(crate) changes: Vec<FleetChangeView>,
}

/// A change of the fleet, or of one of its runners.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FleetChange)]
pub(crate) struct FleetChangeView {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// `paused` or `resumed`; of one runner `drained`, `undrained` or `forgotten`.
    change: String,
    /// The runner, where it is about one.
    runner_id: Option<String>,
    /// Who.
    actor: String,
    /// Why, where that was said.
    reason: Option<String>,
}

impl From<FleetChange> for FleetChangeView {
    fn from(change: FleetChange) -> Self {
        Self {
            at: change.at,
            change: change.change,
            runner_id: change.runner_id,
            actor: change.actor,
            reason: change.reason,
        }
    }
}

/// What a tick did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tick)]
pub(crate) struct TickView {
    /// Gates that were decided because their time had come.
    pub(crate) settled: u64,
    /// Jobs taken back from lost runners.
    pub(crate) recovered: u64,
    /// Queued jobs whose time to live ran out.
    pub(crate) expired: u64,
    /// Jobs that a runner took because of it.
    pub(crate) triggered: u64,
    /// Jobs recorded for instants of schedules.
    pub(crate) fired: u64,
    /// Webhooks that were delivered.
    pub(crate) delivered: u64,
    /// Outcomes that were published to Notion.
    pub(crate) published: u64,
    /// Ended jobs that were kept for long enough and are gone now.
    pub(crate) removed: u64,
}

/// What this service is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Meta)]
pub(crate) struct MetaView {
    /// The program's version.
    pub(crate) version: &'static str,
    /// Every flag, and whether it is on.
    pub(crate) flags: BTreeMap<&'static str, bool>,
    /// The job types that are known and not behind a flag that is off.
    pub(crate) job_types: BTreeSet<String>,
    /// What requests may cost.
    pub(crate) limits: LimitsView,
}

/// What requests may cost.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limits)]
pub(crate) struct LimitsView {
    /// Largest request body.
    pub(crate) max_body_bytes: u64,
    /// Largest upload.
    pub(crate) max_upload_bytes: u64,
    /// Requests at work at once.
    pub(crate) max_concurrency: usize,
    /// How long a request may take, triggers excepted.
    pub(crate) request_timeout_seconds: u64,
    /// From when on a silent running job is stalled.
    pub(crate) stall_threshold_seconds: u64,
    /// Jobs in a batch.
    pub(crate) batch_jobs: usize,
    /// Jobs on a page.
    pub(crate) list_jobs: i64,
    /// How deep a payload may nest.
    pub(crate) payload_depth: usize,
}

/// The settings.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Settings)]
pub(crate) struct SettingsView {
    /// In the order of their names.
    pub(crate) settings: Vec<SettingView>,
}

/// A setting, without its value.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Setting)]
pub(crate) struct SettingView {
    /// Its shortened name.
    pub(crate) name: String,
    /// `environment`, `file`, `default` or `unset`.
    pub(crate) set: &'static str,
}
