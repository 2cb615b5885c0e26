//! What can go wrong with the store, told apart by what the caller should do.

use std::error::Error;
use std::fmt;

use uuid::Uuid;

use crate::state::Status;
use crate::store::{Closed, Pause};

/// Why the store did not do what it was asked to.
#[derive(Debug)]
pub enum StoreError {
    /// The database did not answer, or is going away: try again. Nothing is known of the write.
    Unavailable(sqlx::Error),
    /// There is no such job.
    NotFound(Uuid),
    /// The job's status does not allow it.
    WrongStatus {
        /// The job.
        job_id: Uuid,
        /// What it is.
        status: Status,
    },
    /// The job is not due before its `run_at`.
    NotDue(Uuid),
    /// The job's time to live ran out; the next sweep fails it.
    Outlived(Uuid),
    /// Somebody else holds the job's row just now: most likely another claim.
    Contended(Uuid),
    /// As many jobs of this type run as may run at once over the fleet.
    ConcurrencyReached(Uuid),
    /// A runner was lost over the job before: it is started only by one that has nothing else at work.
    RunsAlone(Uuid),
    /// No job is claimed until the fleet is resumed.
    FleetPaused {
        /// The job that stays queued; `None` where none was recorded.
        job_id: Option<Uuid>,
        /// Who paused it, when and why.
        pause: Box<Pause>,
    },
    /// The runner that asks is given no job, although the fleet is not paused.
    RunnerClosed {
        /// The job that stays queued; `None` where none was recorded.
        job_id: Option<Uuid>,
        /// Why.
        closed: Box<Closed>,
    },
    /// The job's type is none that the claimer takes.
    WrongType(Uuid),
    /// The idempotency key stands for another request.
    IdempotencyConflict(Uuid),
    /// The lease is no longer this runner's: its write was refused, and changed nothing.
    LeaseLost(Uuid),
    /// The database refuses the values themselves; the text is PostgreSQL's or the schema's, fit for the caller.
    Refused(String),
    /// A row that the schema should make impossible, or a failure of the store itself.
    Internal(Box<dyn Error + Send + Sync>),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(_) => f.write_str("the database is not available"),
            Self::NotFound(id) => write!(f, "no job {id}"),
            Self::WrongStatus { job_id, status } => write!(f, "job {job_id} is {status}"),
            Self::NotDue(id) => write!(f, "job {id} is not due yet"),
            Self::Outlived(id) => write!(f, "the time to live of job {id} ran out"),
            Self::Contended(id) => write!(f, "somebody else is at job {id} just now"),
            Self::ConcurrencyReached(id) => write!(f, "job {id} waits for others of its type"),
            Self::RunsAlone(id) => write!(f, "job {id} waits for a runner with nothing at work"),
            Self::FleetPaused { pause, .. } => write!(f, "the fleet is {pause}"),
            Self::RunnerClosed { closed, .. } => write!(f, "the runner is {closed}"),
            Self::WrongType(id) => write!(f, "job {id} is of a type that is not taken here"),
            Self::IdempotencyConflict(id) => write!(
                f,
                "the idempotency key stands for another request, job {id}"
            ),
            Self::LeaseLost(id) => write!(f, "the lease on job {id} was lost"),
            Self::Refused(why) => write!(f, "the database refused the values: {why}"),
            Self::Internal(_) => f.write_str("the store failed"),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unavailable(cause) => Some(cause),
            Self::Internal(cause) => Some(cause.as_ref()),
            Self::NotFound(_)
            | Self::WrongStatus { .. }
            | Self::NotDue(_)
            | Self::Outlived(_)
            | Self::Contended(_)
            | Self::ConcurrencyReached(_)
            | Self::RunsAlone(_)
            | Self::FleetPaused { .. }
            | Self::RunnerClosed { .. }
            | Self::WrongType(_)
            | Self::IdempotencyConflict(_)
            | Self::LeaseLost(_)
            | Self::Refused(_) => None,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => Self::Unavailable(error),
            sqlx::Error::Database(db) => match db.code().as_deref() {
                // connection, resources, operator intervention, read-only, serialization, deadlock: all pass by themselves;
                // an undefined table, column or function is a schema that is still to be migrated,
                // a login or a database that is refused is one that is just being changed or restored
                Some(code)
                    if ["08", "53", "57", "40"]
                        .iter()
                        .any(|class| code.starts_with(class))
                        || [
                            "25006", "28000", "28P01", "3D000", "55P03", "42P01", "42703", "42883",
                            "3F000",
                        ]
                        .contains(&code) =>
                {
                    Self::Unavailable(error)
                }
                Some(code)
                    if code.starts_with("22")
                        || code.starts_with("23")
                        || code.starts_with("54") =>
                {
                    Self::Refused(db.message().to_owned())
                }
                _ => Self::Internal(Box::new(error)),
            },
            _ => Self::Internal(Box::new(error)),
        }
    }
}
