//! Job types declared with `command`: a program in a folder and an environment of its own. Starts nothing itself:
//! that is `process.rs`.

use std::io;
use std::sync::Arc;

use jobs::ProgressKind;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::Handler;
use crate::config::CommandLine;
use crate::context::Context;
use crate::error::JobError;
use crate::events_file::EventsFile;
use crate::process::{self, Ended, Program, Watch};
use crate::run_folder::RunFolder;
use crate::work_dir::WorkDir;

/// The exit code that asks for another attempt.
const WORTH_RETRYING: i32 = 75;

/// Runs one process an attempt.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) line: CommandLine,
    /// What every command inherits.
    pub(crate) inherited: Arc<[(String, String)]>,
    pub(crate) work_dir: Arc<WorkDir>,
    pub(crate) watch: Arc<Watch>,
}

impl Handler for Command {
    type Payload = Value;
    type Output = Value;

    async fn run(&self, context: &Context, payload: Value) -> Result<Value, JobError> {
        let stdin = serde_json::to_vec(&payload).map_err(JobError::fail)?;
        let (folder, events) = self
            .work_dir
            .run_folder(context.key, &stdin)
            .map_err(|error| not_started(&error))?;
        let program = Program {
            argv: &self.line.argv,
            environment: self.environment(context, &folder),
            folder: folder.path(),
            stdin,
            timeout: context.timeout,
            limits: self.line.limits,
        };
        let done = Notify::new();
        let run = async {
            let ended = process::run(&self.watch, program, &context.output, &context.bell).await;
            done.notify_one();
            ended
        };
        let (ended, ()) = tokio::join!(run, EventsFile::new(events).follow(context, &done));
        let verdict = match ended {
            Ok(ended) => verdict(ended, context, &folder),
            Err(error) => Err(not_started(&error)),
        };
        warn_of_artifacts(context, &folder).await;
        // A run may have left many files; removing them keeps no other work waiting.
        let _ = tokio::task::spawn_blocking(move || drop(folder)).await;
        verdict
    }
}

impl Command {
    fn environment(&self, context: &Context, folder: &RunFolder) -> Vec<(String, String)> {
        let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
        let own = self
            .line
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()));
        let of_job = [
            ("OPS_JOB_ID", context.job_id().to_string()),
            ("OPS_JOB_TYPE", context.job_type().to_owned()),
            ("OPS_ATTEMPT", context.attempt().to_string()),
            ("OPS_FENCE", context.fence().to_string()),
            ("OPS_PAYLOAD_FILE", path(folder.payload())),
            ("OPS_RESULT_FILE", path(folder.result())),
            ("OPS_ARTIFACTS_DIR", path(folder.artifacts())),
            ("OPS_EVENTS_FILE", path(folder.events())),
        ];
        let of_job = of_job.map(|(name, value)| (name.to_owned(), value));
        self.inherited
            .iter()
            .cloned()
            .chain(own)
            .chain(of_job)
            .collect()
    }
}

fn verdict(ended: Ended, context: &Context, folder: &RunFolder) -> Result<Value, JobError> {
    match ended {
        Ended::Exited(0) => folder.read_result().map_err(JobError::Fail),
        Ended::Exited(WORTH_RETRYING) => Err(JobError::Retry(quoting(
            context,
            format!("exit code {WORTH_RETRYING}"),
        ))),
        Ended::Exited(code) => Err(JobError::Fail(quoting(
            context,
            format!("exit code {code}"),
        ))),
        Ended::Killed(signal) => Err(JobError::Fail(quoting(
            context,
            format!("killed by signal {signal}"),
        ))),
        // Only where the executor's own clock stood still meanwhile.
        Ended::TimedOut => {
            let limit = context.timeout.unwrap_or_default().as_secs();
            Err(JobError::Retry(format!("timed out after {limit} s")))
        }
    }
}

/// What happened, with the last that the command had to say.
fn quoting(context: &Context, what: String) -> String {
    let tail = context.output.stderr_tail();
    if tail.is_empty() {
        what
    } else {
        format!("{what}: {tail}")
    }
}

fn not_started(error: &io::Error) -> JobError {
    JobError::retry(format!("the command could not be run: {error}"))
}

async fn warn_of_artifacts(context: &Context, folder: &RunFolder) {
    let discarded = folder.count_artifacts();
    if discarded == 0 {
        return;
    }
    let data = json!({ "message": "files left in the artifacts folder are not stored", "discarded": discarded });
    context.report(ProgressKind::Warning, data).await;
}
