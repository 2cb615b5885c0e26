//! `opsctl jobs submit`: the arguments to the body of a request. The control plane checks what they mean.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use jobs::Name;
use serde_json::{Map, Value};

use super::{show, wait};
use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::screen::{Output, Screen};

/// The longest payload that is read, in bytes; the control plane takes less.
const LONGEST_PAYLOAD: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// The job's type
    #[arg(value_name = "TYPE")]
    job_type: Name,
    /// What the handler is given: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    payload: Option<String>,
    /// Its queue
    #[arg(long)]
    queue: Option<Name>,
    /// Higher runs first
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i16>,
    /// Not before this instant (RFC 3339)
    #[arg(long, value_name = "INSTANT")]
    run_at: Option<String>,
    /// Fails if it is still queued after so many seconds
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
    /// After so many attempts a failure is final
    #[arg(long, value_name = "COUNT")]
    max_attempts: Option<u32>,
    /// An attempt is killed after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// A label of the caller's own; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// The same key and the same job again give the first one
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Trigger a runner at once
    #[arg(long)]
    trigger: bool,
    /// Wait until the job has ended: exit code 0 if it succeeded, else 1
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(
    job: Submit,
    control_plane: &ControlPlane,
    screen: &Screen,
) -> Result<Exit, Error> {
    let (trigger, wait) = (job.trigger, job.wait);
    let headers: Vec<_> = job
        .idempotency_key
        .clone()
        .map(|key| ("idempotency-key", key))
        .into_iter()
        .collect();
    if headers
        .iter()
        .any(|(_, key)| !key.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
    {
        return Err(Error::Usage(
            "--idempotency-key must be printable ASCII".to_owned(),
        ));
    }
    let path = if trigger { "/trigger_runner" } else { "/jobs" };
    let answer = control_plane.post(path, &job.body()?, &headers).await?;
    let recorded = if trigger {
        answer.get("job").unwrap_or(&answer)
    } else {
        &answer
    };
    if wait {
        return wait::until_it_ends(recorded, control_plane, screen).await;
    }
    match screen.output() {
        Output::Json => screen.json(&answer),
        Output::Text => show::job(recorded, screen),
    }
    if let Some(outcome) = answer.pointer("/trigger/outcome").and_then(Value::as_str) {
        screen.say(&format!("trigger: {outcome}"));
    }
    Ok(Exit::Ok)
}

impl Submit {
    /// The request: what was not said is not in it, so that the control plane's defaults hold.
    fn body(self) -> Result<Value, Error> {
        let payload = self.payload.as_deref().map(payload).transpose()?;
        let labels: Map<String, Value> = self
            .label
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect();
        let fields = [
            ("job_type", Some(Value::from(String::from(self.job_type)))),
            ("payload", payload),
            ("queue", self.queue.map(|queue| String::from(queue).into())),
            ("priority", self.priority.map(Value::from)),
            ("run_at", self.run_at.map(Value::from)),
            ("ttl_seconds", self.ttl.map(Value::from)),
            ("max_attempts", self.max_attempts.map(Value::from)),
            ("timeout_seconds", self.timeout.map(Value::from)),
            (
                "labels",
                (!labels.is_empty()).then_some(Value::Object(labels)),
            ),
        ];
        Ok(fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect())
    }
}

/// `NAME=VALUE`, parted at the first equals sign.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// JSON as it was said, in a file (`@FILE`), or on standard input (`-`).
pub(crate) fn payload(argument: &str) -> Result<Value, Error> {
    let text = match argument.strip_prefix('@') {
        Some(path) => read(&PathBuf::from(path))?,
        None if argument == "-" => read(Path::new("/dev/stdin"))?,
        None => argument.to_owned(),
    };
    serde_json::from_str(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Error::Usage(format!(
            "--payload is not JSON at line {line}, column {column}: correct it"
        ))
    })
}

fn read(path: &Path) -> Result<String, Error> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LONGEST_PAYLOAD).read_to_string(&mut text))
        .map_err(Error::io("read the payload from", path))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        submit: Submit,
    }

    fn body(arguments: &[&str]) -> Result<Value, Error> {
        let all = ["submit"].iter().chain(arguments);
        Only::try_parse_from(all)
            .map_err(|error| Error::Usage(error.to_string()))?
            .submit
            .body()
    }

    #[test]
    fn what_was_not_said_is_not_sent() {
        assert_eq!(
            body(&["hello"]).expect("right"),
            json!({"job_type": "hello"})
        );
    }

    #[test]
    fn everything_that_was_said_is_sent() {
        let arguments = [
            "hello",
            "--payload",
            "[1]",
            "--queue",
            "slow",
            "--priority",
            "-3",
            "--run-at",
            "2030-01-01T00:00:00Z",
            "--ttl",
            "5",
            "--max-attempts",
            "2",
            "--timeout",
            "9",
            "--label",
            "a=b=c",
        ];
        assert_eq!(
            body(&arguments).expect("right"),
            json!({
                "job_type": "hello", "payload": [1], "queue": "slow", "priority": -3, "run_at": "2030-01-01T00:00:00Z",
                "ttl_seconds": 5, "max_attempts": 2, "timeout_seconds": 9, "labels": {"a": "b=c"},
            })
        );
    }

    #[test]
    fn a_payload_comes_from_a_file_too_and_a_broken_one_is_not_quoted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p.json");
        std::fs::write(&path, "{\"a\": 1}").expect("written");
        assert_eq!(
            body(&["hello", "--payload", &format!("@{}", path.display())]).expect("right")["payload"]
                ["a"],
            1
        );
        let error = body(&["hello", "--payload", "{\"canary\": }"]).expect_err("wrong");
        assert_eq!(error.exit(), Exit::WrongUsage);
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
