//! What a handler knows of the attempt that it runs, and what it may say about it. It sees neither the row nor the lease.

use std::sync::Arc;
use std::time::Duration;

use jobs::{LeaseKey, Name, ProgressKind, Store};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::JobError;
use crate::interruption::Bell;
use crate::output::{Output, Stream};

/// A report is worth no longer wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    Stored,
    LeftOut,
}

/// One attempt, as its handler sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) key: LeaseKey,
    pub(crate) job_type: Name,
    pub(crate) timeout: Option<Duration>,
    pub(crate) store: Store,
    pub(crate) output: Arc<Output>,
    pub(crate) bell: Bell,
}

impl Context {
    /// The job.
    pub fn job_id(&self) -> Uuid {
        self.key.job_id
    }

    /// The job's type.
    pub fn job_type(&self) -> &str {
        self.job_type.as_str()
    }

    /// Which attempt this is: 1, 2, 3 …
    pub fn attempt(&self) -> i32 {
        self.key.attempt
    }

    /// The fencing number: it only grows, so that a side effect elsewhere can refuse one lower than it has seen.
    pub fn fence(&self) -> i64 {
        self.key.fence
    }

    /// Tells how far the work is, from 0.0 to 1.0; kept on the job and as an event.
    ///
    /// # Errors
    /// [`JobError::Fail`] when `fraction` is out of range. A report that cannot be stored is left out, no error.
    pub async fn progress(&self, fraction: f64, message: &str) -> Result<(), JobError> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(JobError::fail("progress must be a number from 0 to 1"));
        }
        let data = json!({ "progress": fraction, "message": message });
        self.report(ProgressKind::Progress, data).await;
        Ok(())
    }

    /// Writes a line into the job's log.
    pub fn log(&self, line: &str) {
        self.output.push(Stream::Stdout, line.as_bytes());
        self.output.push(Stream::Stdout, b"\n");
    }

    /// Ends when the attempt is to stop: aborted, timed out, its lease lost, or the runner shutting down. The handler
    /// then has two seconds to clean up; whatever it returns, the attempt ends as that reason has it.
    pub async fn cancelled(&self) {
        self.bell.heard().await;
    }

    /// Whether the attempt is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.bell.rung().is_some()
    }

    pub(crate) async fn report(&self, kind: ProgressKind, data: Value) -> Report {
        let stored =
            tokio::time::timeout(PATIENCE, self.store.report_progress(self.key, kind, data)).await;
        match stored {
            Ok(Ok(())) => return Report::Stored,
            Ok(Err(error)) => {
                tracing::warn!(event = "progress_not_stored", job_id = %self.key.job_id, %error);
            }
            Err(_) => {
                tracing::warn!(event = "progress_not_stored", job_id = %self.key.job_id, "no answer in time");
            }
        }
        Report::LeftOut
    }
}
