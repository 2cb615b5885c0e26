//! From what the store says to what the client hears: one match, no wildcard. A client never sees an internal message.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use jobs::{Pause, StoreError};
use service::metrics::MetricsError;
use service::trace::TraceError;
use service::{Problem, ServeError};

/// After how long a client tries again when the database is away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why the control plane does not start.
#[derive(Debug)]
pub enum StartError {
    /// The pool of connections cannot be prepared.
    Store(StoreError),
    /// The place where files are kept cannot be used.
    Files(files::FileError),
    /// The client for triggers cannot be made.
    RunnerClient(reqwest::Error),
    /// What is counted for Prometheus cannot be set up.
    Metrics(MetricsError),
    /// Traces cannot be exported.
    Traces(TraceError),
    /// The client for webhooks cannot be made.
    WebhookClient(reqwest::Error),
    /// The client for Notion cannot be made.
    NotionClient(reqwest::Error),
    /// The address cannot be listened on.
    Listen(ServeError),
    /// The signals that stop the program cannot be listened for.
    Signals(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store(_) => "cannot prepare the connections to the database",
            Self::Files(_) => "cannot use the place for files",
            Self::RunnerClient(_) => "cannot prepare the connections to the runner",
            Self::Metrics(_) => "cannot set up metrics",
            Self::Traces(_) => "cannot set up traces",
            Self::WebhookClient(_) => "cannot prepare the connections for webhooks",
            Self::NotionClient(_) => "cannot prepare the connections to Notion",
            Self::Listen(_) => "cannot listen",
            Self::Signals(_) => "cannot listen for signals",
        })
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(cause) => Some(cause),
            Self::Files(cause) => Some(cause),
            Self::Metrics(cause) => Some(cause),
            Self::Traces(cause) => Some(cause),
            Self::RunnerClient(cause) | Self::WebhookClient(cause) | Self::NotionClient(cause) => {
                Some(cause)
            }
            Self::Listen(cause) => Some(cause),
            Self::Signals(cause) => Some(cause),
        }
    }
}

/// What a client hears of a store that did not do what it was asked to; what only operators may know is logged here.
pub(crate) fn problem_of(error: StoreError) -> Problem {
    match error {
        StoreError::Unavailable(cause) => {
            tracing::warn!(event = "database_unavailable", error = %chain(&cause));
            unavailable()
        }
        StoreError::NotFound(_) => no_such_job(),
        StoreError::WrongStatus { job_id, status } => {
            Problem::conflict(format!("The job is {status}; that does not allow this."))
                .with_member("job_id", job_id.to_string())
                .with_member("job_status", status.as_str())
        }
        StoreError::NotDue(_) => Problem::conflict("The job is not due before its run_at."),
        StoreError::Outlived(_) => Problem::conflict("The job's time to live ran out."),
        StoreError::Contended(_) => {
            Problem::conflict("Somebody else is at the job just now; try again.")
        }
        StoreError::ConcurrencyReached(_) => {
            Problem::conflict("As many jobs of this type run as may run at once.")
        }
        StoreError::RunsAlone(_) => {
            Problem::conflict("The job waits for a runner with nothing else at work.")
        }
        StoreError::FleetPaused { pause, .. } => paused(&pause),
        StoreError::RunnerClosed { closed, .. } => {
            Problem::unavailable(format!("The runner is {closed}."), RETRY_AFTER)
        }
        StoreError::WrongType(_) => {
            Problem::conflict("No runner was asked that takes this job type.")
        }
        StoreError::IdempotencyConflict(id) => Problem::unprocessable(
            "This Idempotency-Key stands for another request; use a new key for a new request.",
        )
        .with_code("idempotency-conflict", "Idempotency key used before")
        .with_member("job_id", id.to_string()),
        StoreError::LeaseLost(_) => Problem::conflict("The lease on the job was lost."),
        StoreError::Refused(why) => {
            Problem::unprocessable(format!("The database refuses the values: {why}."))
        }
        StoreError::Internal(cause) => {
            tracing::error!(event = "store_failed", error = %chain(cause.as_ref()));
            Problem::internal()
        }
    }
}

/// 503: the database is away.
pub(crate) fn unavailable() -> Problem {
    Problem::unavailable("The database does not answer; try again.", RETRY_AFTER)
        .with_member("failed", "database")
}

/// 503: somebody has paused the fleet.
fn paused(pause: &Pause) -> Problem {
    Problem::unavailable(format!("The fleet is {pause}."), RETRY_AFTER)
        .with_code("fleet-paused", "Fleet paused")
}

/// 404 for a job, whether its id is unknown or none at all.
pub(crate) fn no_such_job() -> Problem {
    Problem::not_found("There is no such job.")
}

/// 409: the job's status does not allow what was asked.
pub(crate) fn wrong_status(job: &jobs::Job) -> Problem {
    problem_of(StoreError::WrongStatus {
        job_id: job.id,
        status: job.status,
    })
}

/// An error and its causes in one line, for the log; a cause that the layer above has said already is not said again.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use jobs::Status;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_store_error_has_its_status() {
        let id = Uuid::nil();
        for (error, status) in [
            (StoreError::NotFound(id), 404),
            (
                StoreError::WrongStatus {
                    job_id: id,
                    status: Status::Running,
                },
                409,
            ),
            (StoreError::NotDue(id), 409),
            (StoreError::ConcurrencyReached(id), 409),
            (StoreError::Outlived(id), 409),
            (StoreError::Contended(id), 409),
            (StoreError::RunsAlone(id), 409),
            (
                StoreError::FleetPaused {
                    job_id: None,
                    pause: Box::new(Pause {
                        at: time::OffsetDateTime::UNIX_EPOCH,
                        by: "key:x".to_owned(),
                        reason: None,
                    }),
                },
                503,
            ),
            (
                StoreError::RunnerClosed {
                    job_id: None,
                    closed: Box::new(jobs::Closed::Incompatible { min: 2, max: 2 }),
                },
                503,
            ),
            (StoreError::WrongType(id), 409),
            (StoreError::IdempotencyConflict(id), 422),
            (StoreError::LeaseLost(id), 409),
            (
                StoreError::Refused("numeric field overflow".to_owned()),
                422,
            ),
            (StoreError::Internal("a secret of ours".into()), 500),
        ] {
            let name = error.to_string();
            assert_eq!(problem_of(error).status().as_u16(), status, "{name}");
        }
        assert_eq!(unavailable().status().as_u16(), 503);
    }

    #[test]
    fn what_only_operators_may_know_is_not_in_the_answer() {
        let problem = problem_of(StoreError::Internal("a secret of ours".into()));
        assert!(!format!("{:?}", problem.document()).contains("secret"));
    }
}
