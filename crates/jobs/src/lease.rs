//! The lease: the right to run one attempt of one job. Only a claim makes one, only its holder can spend it.

use std::time::{Duration, Instant};

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::name::Name;
use crate::retry::Backoff;
use crate::stage::Part;

/// Who claims: a runner, and which start of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerIdentity {
    /// `RUNNER_ID`.
    pub id: String,
    /// Made anew at each start.
    pub boot_id: Uuid,
}

impl RunnerIdentity {
    /// How the runner appears as an event's actor.
    pub fn actor(&self) -> String {
        format!("runner:{}", self.id)
    }
}

/// The right to run one attempt. Not `Clone`: finishing takes it away.
#[derive(Debug, PartialEq, Eq)]
pub struct Lease {
    pub(crate) job_id: Uuid,
    pub(crate) fence: i64,
    pub(crate) attempt: i32,
    /// Which attempt of its stage this is; of the job, where it has no stages.
    pub(crate) stage_attempt: i32,
    pub(crate) runner_id: String,
    pub(crate) deadline: Instant,
    pub(crate) backoff: Backoff,
}

impl Lease {
    /// The job.
    pub fn job_id(&self) -> Uuid {
        self.job_id
    }

    /// The fencing number that every write under this lease names.
    pub fn fence(&self) -> i64 {
        self.fence
    }

    /// Which attempt this is.
    pub fn attempt(&self) -> i32 {
        self.attempt
    }

    /// The runner that holds it.
    pub fn runner_id(&self) -> &str {
        &self.runner_id
    }

    /// Until when it surely holds, by this host's monotonic clock: counted from before the claim or renewal was sent.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The handle by which it is renewed and its log and progress are written.
    pub fn key(&self) -> LeaseKey {
        LeaseKey {
            job_id: self.job_id,
            fence: self.fence,
            attempt: self.attempt,
        }
    }

    /// Notes a renewal that was sent at `sent` and accepted for `lease`.
    pub fn extend(&mut self, sent: Instant, lease: Duration) {
        self.deadline = sent + lease;
    }
}

/// Names a lease without being one: enough to renew it and to write under it, not to finish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseKey {
    /// The job.
    pub job_id: Uuid,
    /// The fencing number.
    pub fence: i64,
    /// The attempt.
    pub attempt: i32,
}

/// A claimed job: what to run, and the right to run it.
#[derive(Debug, PartialEq)]
pub struct LeasedJob {
    /// The right.
    pub lease: Lease,
    /// What is to be done.
    pub job_type: Name,
    /// What the handler is given.
    pub payload: Value,
    /// Which part of the job this is.
    pub part: Part,
    /// After so many attempts a failure is final.
    pub max_attempts: i32,
    /// Kill the attempt after so long; `None`: no limit.
    pub timeout: Option<Duration>,
    /// When the attempt began, by the database's clock.
    pub started_at: OffsetDateTime,
    /// Whether a runner was lost over it before: its runner must take no other while it runs.
    pub alone: bool,
    /// Its queue.
    pub queue: Name,
    /// How long it had been due.
    pub waited: Duration,
    /// The span that caused it (W3C traceparent).
    pub traceparent: Option<String>,
    /// What vendors add to it (W3C tracestate).
    pub tracestate: Option<String>,
}

/// What becomes of a job whose runner was lost in the middle of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLost {
    /// It is run again while attempts are left.
    #[default]
    Retry,
    /// It waits for a person, who looks what it has done and resumes or aborts it.
    Hold,
}

impl OnLost {
    /// Its word, in SQL and in the settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Hold => "hold",
        }
    }
}

/// What a runner knows of a job type that it takes: what holds where the caller left it open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeTerms {
    /// The job type.
    pub job_type: Name,
    /// Attempts where the caller named none.
    pub max_attempts: i32,
    /// Seconds where the caller named none; `None`: no limit.
    pub timeout_seconds: Option<i32>,
    /// At most so many at once over the whole fleet; `None`: no limit.
    pub concurrency: Option<i32>,
    /// What becomes of its jobs when their runner is lost.
    pub on_lost: OnLost,
    /// How long its retries wait.
    pub backoff: Backoff,
}

impl TypeTerms {
    /// One attempt, no limits.
    pub fn new(job_type: Name) -> Self {
        Self {
            job_type,
            max_attempts: 1,
            timeout_seconds: None,
            concurrency: None,
            on_lost: OnLost::default(),
            backoff: Backoff::default(),
        }
    }
}
