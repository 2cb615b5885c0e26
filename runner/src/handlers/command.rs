//! Job types declared with `command`: a program in a folder and an environment of its own. Starts nothing itself:
//! that is `process.rs`.

use std::io::{self, Write as _};
use std::sync::Arc;

use jobs::StageAtWork;
use serde_json::Value;
use tokio::sync::Notify;

use super::Handler;
use crate::config::CommandLine;
use crate::context::Context;
use crate::error::JobError;
use crate::events_file::EventsFile;
use crate::interruption::LEASE_ENDING;
use crate::process::{self, Ended, Exceeded, Limits, Program, Watch};
use crate::run_folder::{RunFolder, private_file};

/// The exit code that asks for another attempt.
const WORTH_RETRYING: i32 = 75;
/// SIGXFSZ: it wrote a file beyond its limit.
const TOO_LARGE: i32 = 25;
const OF_SHELL_TOO_LARGE: i32 = 128 + TOO_LARGE;

/// Runs one process an attempt.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) line: CommandLine,
    /// What every command inherits.
    pub(crate) inherited: Arc<[(String, String)]>,
    pub(crate) watch: Arc<Watch>,
}

impl Handler for Command {
    type Payload = Value;
    type Output = Value;

    async fn run(&self, context: &Context, payload: Value) -> Result<Value, JobError> {
        let stdin = serde_json::to_vec(&payload).map_err(JobError::fail)?;
        let folder = context.folder().await?;
        let events = folder
            .furnish(&stdin)
            .map_err(|error| not_started(&error))?;
        if let Some(stage) = context.stage() {
            write_stages(folder, stage).map_err(|error| not_started(&error))?;
        }
        let program = Program {
            argv: &self.line.argv,
            environment: self.environment(context, folder),
            folder: folder.path(),
            stdin,
            timeout: context.timeout,
            limits: self.line.limits,
            term: context.term.clone(),
        };
        let done = Notify::new();
        let run = async {
            let ended = process::run(&self.watch, program, &context.output, &context.bell).await;
            done.notify_one();
            ended
        };
        let (ended, ()) = tokio::join!(run, EventsFile::new(events).follow(context, &done));
        match ended {
            Ok(ended) => verdict(ended, self.line.limits, context, folder),
            Err(error) => Err(not_started(&error)),
        }
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
            ("OPS_INPUT_DIR", path(folder.inputs())),
            ("OPS_INPUTS_FILE", path(folder.inputs_list())),
            ("OPS_ARTIFACTS_DIR", path(folder.artifacts())),
            ("OPS_EVENTS_FILE", path(folder.events())),
        ];
        let of_job = of_job.map(|(name, value)| (name.to_owned(), value));
        let of_stage = context.stage().into_iter().flat_map(|stage| {
            [
                ("OPS_STAGE", stage.name.to_string()),
                ("OPS_STAGE_ATTEMPT", stage.attempt.to_string()),
                ("OPS_STAGES_FILE", path(folder.stages())),
            ]
            .map(|(name, value)| (name.to_owned(), value))
        });
        let of_trace = context.trace().into_iter().flat_map(|(parent, state)| {
            let state = state.map(|state| ("TRACESTATE".to_owned(), state.to_owned()));
            [("TRACEPARENT".to_owned(), parent.to_owned())]
                .into_iter()
                .chain(state)
        });
        self.inherited
            .iter()
            .cloned()
            .chain(own)
            .chain(of_job)
            .chain(of_stage)
            .chain(of_trace)
            .collect()
    }
}

/// The results of the stages before, as `[{"name": …, "result": …}]`.
fn write_stages(folder: &RunFolder, stage: &StageAtWork) -> io::Result<()> {
    private_file(&folder.stages())?.write_all(&serde_json::to_vec(&stage.earlier)?)
}

fn verdict(
    ended: Ended,
    limits: Limits,
    context: &Context,
    folder: &RunFolder,
) -> Result<Value, JobError> {
    let what = match ended {
        Ended::Exited(0) => return folder.read_result().map_err(JobError::Fail),
        Ended::LeaseOver => return Err(JobError::retry(LEASE_ENDING)),
        // Only where the executor's own clock stood still meanwhile.
        Ended::TimedOut => {
            let limit = context.timeout.unwrap_or_default().as_secs();
            return Err(JobError::Retry(format!("timed out after {limit} s")));
        }
        Ended::Exceeded(exceeded) => over(&limits, exceeded),
        // A shell adds 128 to the signal that ended its command.
        Ended::Killed(TOO_LARGE) | Ended::Exited(OF_SHELL_TOO_LARGE)
            if limits.file_bytes.is_some() =>
        {
            over(&limits, Exceeded::FileSize)
        }
        // Whoever is out of room may have room later, or elsewhere.
        Ended::Exited(_) | Ended::Killed(_) if folder.is_out_of_space() => {
            let what = "no space is left in the work folder of the runner".to_owned();
            return Err(JobError::Retry(quoting(context, what)));
        }
        Ended::Exited(WORTH_RETRYING) => {
            let what = exit_code(WORTH_RETRYING);
            return Err(JobError::Retry(quoting(context, what)));
        }
        Ended::Exited(code) => within(&limits, exit_code(code)),
        Ended::Killed(signal) => within(&limits, format!("killed by signal {signal}")),
    };
    Err(JobError::Fail(quoting(context, what)))
}

fn over(limits: &Limits, exceeded: Exceeded) -> String {
    format!("ended by its limit {}", limits.word(exceeded))
}

/// A refused allocation, fork or open is only seen by the command: its limits are named beside what it says.
fn within(limits: &Limits, what: String) -> String {
    let limits = limits.words();
    if limits.is_empty() {
        what
    } else {
        format!("{what} (within {})", limits.join(", "))
    }
}

/// How the error of a job says that it ended with an exit code.
pub(crate) fn exit_code(code: i32) -> String {
    format!("exit code {code}")
}

/// The exit code that the error of a job tells of.
pub(crate) fn exit_code_in(error: &str) -> Option<i32> {
    let digits = error.strip_prefix("exit code ")?;
    let end = digits.find(|letter: char| !letter.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())].parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_read_as_it_was_written() {
        for code in [1, 2, 4, 75, 255] {
            assert_eq!(exit_code_in(&exit_code(code)), Some(code));
            assert_eq!(
                exit_code_in(&format!("{}: stderr: 7", exit_code(code))),
                Some(code)
            );
            assert_eq!(
                exit_code_in(&format!("{} (within a limit): 7", exit_code(code))),
                Some(code)
            );
        }
        for other in [
            "",
            "timed out after 3 s",
            "killed by signal 9",
            "the exit code 3",
            "exit code x",
        ] {
            assert_eq!(exit_code_in(other), None, "{other}");
        }
    }
}
