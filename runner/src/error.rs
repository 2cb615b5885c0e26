//! The errors of this crate, and what a caller over HTTP hears of the store's.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use jobs::{Closed, Pause, StoreError};
use service::metrics::MetricsError;
use service::trace::TraceError;
use service::{Problem, ServeError};

/// Why a handler did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobError {
    /// Worth another attempt, if one is left.
    Retry(String),
    /// Final.
    Fail(String),
}

impl JobError {
    /// A failure that is worth another attempt.
    pub fn retry(why: impl fmt::Display) -> Self {
        Self::Retry(why.to_string())
    }

    /// A failure for good.
    pub fn fail(why: impl fmt::Display) -> Self {
        Self::Fail(why.to_string())
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry(why) | Self::Fail(why) => f.write_str(why),
        }
    }
}

impl Error for JobError {}

/// Why a runner did not start, or ended by itself.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// Job types that cannot be offered, each with the reason.
    JobTypes(Vec<String>),
    /// The store cannot be set up.
    Store(StoreError),
    /// The place where files are kept cannot be used.
    Files(files::FileError),
    /// The folder for runs cannot be made.
    WorkDir(io::Error),
    /// The client for `http` job types cannot be made.
    HttpClient(reqwest::Error),
    /// What is counted for Prometheus cannot be set up.
    Metrics(MetricsError),
    /// Traces cannot be exported.
    Traces(TraceError),
    /// The client for webhooks cannot be made.
    WebhookClient(reqwest::Error),
    /// The client for Notion cannot be made.
    NotionClient(reqwest::Error),
    /// The address cannot be served.
    Serve(ServeError),
    /// The thread that keeps the leases cannot be started.
    LeaseKeeper(io::Error),
    /// Signals cannot be listened for.
    Signals(io::Error),
    /// Another process bears the name, which is given.
    NameTaken(String),
    /// A part of the runner ended before its time; its name.
    PartEnded(&'static str),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JobTypes(faults) => write!(
                f,
                "these job types cannot be offered: {}",
                faults.join("; ")
            ),
            Self::Store(_) => f.write_str("cannot set up the store"),
            Self::Files(_) => f.write_str("cannot use the place for files"),
            Self::WorkDir(_) => f.write_str("cannot make the folder for runs (RUNNER_WORK_DIR)"),
            Self::HttpClient(_) => f.write_str("cannot make a client for http job types"),
            Self::Metrics(_) => f.write_str("cannot set up metrics"),
            Self::Traces(_) => f.write_str("cannot set up traces"),
            Self::WebhookClient(_) => f.write_str("cannot make a client for webhooks"),
            Self::NotionClient(_) => f.write_str("cannot make a client for Notion"),
            Self::Serve(_) => f.write_str("cannot serve"),
            Self::LeaseKeeper(_) => f.write_str("cannot start the lease keeper"),
            Self::Signals(_) => f.write_str("cannot listen for signals"),
            Self::NameTaken(id) => write!(
                f,
                "another process bears RUNNER_ID {id}: give each its own, or end the other first"
            ),
            Self::PartEnded(part) => write!(f, "the {part} ended before its time"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(cause) => Some(cause),
            Self::Files(cause) => Some(cause),
            Self::WorkDir(cause) | Self::LeaseKeeper(cause) | Self::Signals(cause) => Some(cause),
            Self::Metrics(cause) => Some(cause),
            Self::Traces(cause) => Some(cause),
            Self::HttpClient(cause) | Self::WebhookClient(cause) | Self::NotionClient(cause) => {
                Some(cause)
            }
            Self::Serve(cause) => Some(cause),
            Self::JobTypes(_) | Self::NameTaken(_) | Self::PartEnded(_) => None,
        }
    }
}

/// What a caller hears of an error of the store.
pub(crate) fn problem(error: StoreError) -> Problem {
    match error {
        StoreError::NotFound(_) => Problem::not_found("There is no such job."),
        StoreError::WrongStatus { job_id, status } => {
            Problem::conflict(format!("The job is {status}; only queued jobs are taken."))
                .with_member("job_id", job_id.to_string())
                .with_member("job_status", status.as_str())
        }
        StoreError::NotDue(id) => {
            Problem::conflict("The job is not due yet; it waits for its run_at.")
                .with_member("job_id", id.to_string())
        }
        StoreError::Outlived(id) => {
            Problem::conflict("The job's time to live ran out before it was taken.")
                .with_member("job_id", id.to_string())
        }
        StoreError::Contended(id) => Problem::conflict("Somebody else is at the job just now.")
            .with_member("job_id", id.to_string()),
        StoreError::ConcurrencyReached(id) => {
            Problem::conflict("As many jobs of this type run as may; this one stays queued.")
                .with_member("job_id", id.to_string())
        }
        StoreError::RunsAlone(id) => Problem::conflict(
            "A runner was lost over this job: it starts once a runner has nothing else at work.",
        )
        .with_member("job_id", id.to_string()),
        StoreError::FleetPaused { job_id, pause } => match job_id {
            Some(id) => paused(&pause).with_member("job_id", id.to_string()),
            None => paused(&pause),
        },
        StoreError::RunnerClosed { job_id, closed } => match job_id {
            Some(id) => closed_to_jobs(&closed).with_member("job_id", id.to_string()),
            None => closed_to_jobs(&closed),
        },
        StoreError::WrongType(id) => {
            Problem::forbidden("This runner does not take jobs of this type.")
                .with_member("job_id", id.to_string())
        }
        StoreError::IdempotencyConflict(id) => Problem::unprocessable(
            "This Idempotency-Key stands for another request; use a new one.",
        )
        .with_member("job_id", id.to_string()),
        StoreError::Refused(why) => Problem::unprocessable(why),
        StoreError::Unavailable(cause) => {
            tracing::warn!(event = "database_unavailable", error = %cause);
            Problem::unavailable(
                "The database does not answer; try again.",
                Duration::from_secs(1),
            )
        }
        StoreError::LeaseLost(_) | StoreError::Internal(_) => internal(&error),
    }
}

/// After how long whoever was told that the fleet is paused may ask again.
const PAUSED_RETRY_AFTER: Duration = Duration::from_secs(5);

/// 503: somebody has paused the fleet.
fn paused(pause: &Pause) -> Problem {
    let detail = format!(
        "The fleet is {pause}: no job is taken until it is resumed. A queued job stays queued."
    );
    Problem::unavailable(detail, PAUSED_RETRY_AFTER)
        .with_code("fleet-paused", "Fleet paused")
        .with_member("paused_at", pause.since())
        .with_member("paused_by", pause.by.clone())
        .with_member("reason", pause.reason.clone())
}

/// 503: this runner is given no job.
fn closed_to_jobs(closed: &Closed) -> Problem {
    let detail = format!("The runner is {closed}: it is given no job. A queued job stays queued.");
    let problem = Problem::unavailable(detail, PAUSED_RETRY_AFTER);
    match closed {
        Closed::Drained { .. } => problem.with_code("draining", "Draining"),
        Closed::Incompatible { .. } => problem.with_code("incompatible", "Incompatible"),
    }
}

fn internal(error: &StoreError) -> Problem {
    let cause = error.source().map(ToString::to_string);
    tracing::error!(event = "store_failed", %error, cause);
    Problem::internal()
}
