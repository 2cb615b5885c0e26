//! What a handler knows of the attempt that it runs, and what it may say about it. It sees neither the row nor the lease.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use files::Depot;
use jobs::{LeaseKey, Name, ProgressKind, StageAtWork};
use serde_json::{Value, json};
use service::trace::Carried;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::error::JobError;
use crate::inputs::Given;
use crate::interruption::Bell;
use crate::keeping::blocking;
use crate::mask::Masks;
use crate::output::{Output, Stream};
use crate::process::Term;
use crate::reports::Reports;
use crate::run_folder::RunFolder;
use crate::work_dir::WorkDir;

/// One attempt, as its handler sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) key: LeaseKey,
    pub(crate) job_type: Name,
    pub(crate) stage: Option<Arc<StageAtWork>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) output: Arc<Output>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) masks: Arc<Masks>,
    pub(crate) bell: Bell,
    pub(crate) depot: Arc<Depot>,
    pub(crate) work_dir: Arc<WorkDir>,
    /// The folder of this run, once somebody has asked for it.
    pub(crate) folder: Arc<OnceCell<Arc<RunFolder>>>,
    /// The largest file that is kept.
    pub(crate) limit: u64,
    pub(crate) term: Term,
    /// The span of this attempt's handler.
    pub(crate) span: Option<Carried>,
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

    /// The stage of the job that this is, with the results of the stages before it; `None` for a job without stages.
    pub fn stage(&self) -> Option<&StageAtWork> {
        self.stage.as_deref()
    }

    /// The fencing number: it only grows, so that a side effect elsewhere can refuse one lower than it has seen.
    pub fn fence(&self) -> i64 {
        self.key.fence
    }

    /// The span that calls of the handler's own are children of: W3C `traceparent` and `tracestate`.
    pub fn trace(&self) -> Option<(&str, Option<&str>)> {
        let span = self.span.as_ref()?;
        Some((&span.traceparent, span.tracestate.as_deref()))
    }

    /// Tells how far the work is, from 0.0 to 1.0; kept on the job and as an event. Told more often than about once a
    /// second for long, only the latest of each second is kept, and the last of all.
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

    /// The folder with the files that were uploaded with the job, under safe names; `inputs.json` beside it lists them with
    /// the names that their sender gave them.
    ///
    /// # Errors
    /// When they cannot be had or written: worth another attempt.
    pub async fn input_dir(&self) -> Result<PathBuf, JobError> {
        Ok(self.folder().await?.inputs())
    }

    /// The folder for files to keep: what is in it when the handler has ended becomes the job's artifacts.
    ///
    /// # Errors
    /// When it cannot be made: worth another attempt.
    pub async fn artifacts_dir(&self) -> Result<PathBuf, JobError> {
        Ok(self.folder().await?.artifacts())
    }

    /// The folder of this run, made and filled with the job's inputs when first asked for.
    pub(crate) async fn folder(&self) -> Result<&Arc<RunFolder>, JobError> {
        let make = async || {
            let given = Given::of(&self.depot, self.key.job_id).await?;
            let (work_dir, key) = (Arc::clone(&self.work_dir), self.key);
            let made = blocking(move || {
                let folder = work_dir.run_folder(key)?;
                // Most jobs are given nothing, and then all is done here.
                if given.is_empty() {
                    given.write_list(&folder)?;
                }
                Ok((Arc::new(folder), given))
            });
            let (folder, given) = made.await.map_err(|error| {
                JobError::retry(format!("the folder of the run could not be made: {error}"))
            })?;
            if !given.is_empty() {
                given.place(&self.depot, &folder).await?;
            }
            Ok(folder)
        };
        self.folder.get_or_try_init(make).await
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

    /// Hands on a report, masked; it is stored with others, soon.
    pub(crate) async fn report(&self, kind: ProgressKind, data: Value) {
        self.reports.add(kind, self.masks.value(data));
    }
}
