//! The job's record, as it is read, and as it is asked for.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::name::Name;
use crate::stage::NewStage;
use crate::state::Status;

/// A job as it stands in `ops_jobs`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Job {
    /// UUIDv7 made by the database.
    pub id: Uuid,
    /// What is to be done.
    pub job_type: Name,
    /// Its queue.
    pub queue: Name,
    /// Where it is in its life.
    pub status: Status,
    /// Running, but silent for longer than the reader's threshold.
    pub stalled: bool,
    /// Higher runs first.
    pub priority: i16,
    /// What the handler is given.
    pub payload: Value,
    /// What the handler answered.
    pub result: Option<Value>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// Claims counted so far.
    pub attempt: i32,
    /// After so many attempts a failure is final.
    pub max_attempts: i32,
    /// Not claimed before this instant.
    #[serde(with = "time::serde::rfc3339")]
    pub run_at: OffsetDateTime,
    /// Fails if it is still queued at this instant.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// An attempt is killed after so long, in seconds; `None`: the job type decides.
    pub timeout_seconds: Option<i32>,
    /// The caller's key.
    pub idempotency_key: Option<String>,
    /// The caller's own names and values.
    pub labels: Value,
    /// The runner that holds it or ended it.
    pub runner_id: Option<String>,
    /// The claim holds until this instant.
    #[serde(with = "time::serde::rfc3339::option")]
    pub lease_expires_at: Option<OffsetDateTime>,
    /// When the runner was last heard of.
    #[serde(with = "time::serde::rfc3339::option")]
    pub heartbeat_at: Option<OffsetDateTime>,
    /// The fencing number of its newest claim.
    pub fence: i64,
    /// The handler's last progress.
    pub progress: Option<Value>,
    /// When somebody asked to stop it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub abort_requested_at: Option<OffsetDateTime>,
    /// When it failed with its attempts used up.
    #[serde(with = "time::serde::rfc3339::option")]
    pub dead_lettered_at: Option<OffsetDateTime>,
    /// Who recorded it.
    pub created_by: String,
    /// When it was recorded.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its newest attempt began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// When its status last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// Where it is among its stages; `None`: it has none.
    pub stage: Option<CurrentStage>,
}

impl Job {
    /// The job type that its next or present run is of: its stage's, else its own.
    pub fn work_type(&self) -> &Name {
        self.stage
            .as_ref()
            .map_or(&self.job_type, |stage| &stage.job_type)
    }
}

/// The stage that is next, or at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CurrentStage {
    /// 1, 2, 3 …; one beyond the last when only the end is to be recorded.
    pub no: i32,
    /// What is to be done in it.
    pub job_type: Name,
}

/// One thing that happened to a job, as it stands in `ops_job_events`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// The job.
    pub job_id: Uuid,
    /// 1, 2, 3 … within the job, without gaps.
    pub seq: i32,
    /// When, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// What happened.
    pub kind: String,
    /// The attempt it belongs to.
    pub attempt: i32,
    /// The runner concerned.
    pub runner_id: Option<String>,
    /// Who did it.
    pub actor: String,
    /// Details, deterministic by kind.
    pub data: Value,
}

/// What a caller asks for, already parsed: nothing in it can be wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// What is to be done.
    pub job_type: Name,
    /// What the handler is given.
    pub payload: Value,
    /// Its queue.
    pub queue: Name,
    /// Higher runs first.
    pub priority: i16,
    /// Not before this instant; `None`: now.
    pub run_at: Option<OffsetDateTime>,
    /// Fails if it is still queued after so many seconds.
    pub ttl_seconds: Option<i32>,
    /// `None`: the job type decides, else 1.
    pub max_attempts: Option<i32>,
    /// In seconds; `None`: the job type decides.
    pub timeout_seconds: Option<i32>,
    /// The caller's own names and values.
    pub labels: BTreeMap<String, String>,
    /// The same key and the same request give the same job.
    pub idempotency_key: Option<String>,
    /// Run in order; none: the job is one run of its own type.
    pub stages: Vec<NewStage>,
    /// The span that causes it (W3C traceparent, version 00); no part of what an idempotency key stands for.
    pub traceparent: Option<String>,
    /// What vendors add to it (W3C tracestate).
    pub tracestate: Option<String>,
}

impl NewJob {
    /// A job of this type and payload, everything else by default.
    pub fn new(job_type: Name, payload: Value) -> Self {
        Self {
            job_type,
            payload,
            queue: Name::default_queue(),
            priority: 0,
            run_at: None,
            ttl_seconds: None,
            max_attempts: None,
            timeout_seconds: None,
            labels: BTreeMap::new(),
            idempotency_key: None,
            stages: Vec::new(),
            traceparent: None,
            tracestate: None,
        }
    }
}
