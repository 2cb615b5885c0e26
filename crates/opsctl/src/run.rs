//! `opsctl run FILE…`: records a job with files, and, if asked to, waits for it and fetches what it left.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use jobs::Name;
use serde_json::Value;

use crate::artifacts;
use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::jobs::{payload, show_job, wait_telling};
use crate::screen::{Output, Screen, harmless};
use crate::settings::Settings;

/// Characters of the bar.
const WIDTH: usize = 24;

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The files that the job is given
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The job's type
    #[arg(long = "type", value_name = "TYPE", default_value = "document_render")]
    job_type: Name,
    /// What the handler is given: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    payload: Option<String>,
    /// Wait until the job has ended: exit code 0 if it succeeded, else 1
    #[arg(long)]
    wait: bool,
    /// With --wait: fetch what the job left as a ZIP archive into this file
    #[arg(long, value_name = "FILE", requires = "wait")]
    zip: Option<PathBuf>,
}

pub(crate) async fn run(run: Run, settings: &Settings, screen: &Screen) -> Result<Exit, Error> {
    let control_plane = ControlPlane::new(settings.access()?)?;
    let mut job = serde_json::json!({ "job_type": String::from(run.job_type) });
    if let Some(said) = &run.payload {
        job["payload"] = payload(said)?;
    }
    let recorded = control_plane.upload(&job, &run.files).await?;
    if !run.wait {
        show_job(&recorded, screen);
        return Ok(Exit::Ok);
    }
    let mut bar = Bar::new();
    let job = wait_telling(&recorded, &control_plane, screen, |job| {
        bar.show(job, screen);
    })
    .await;
    bar.end();
    let job = job?;
    show_job(&job, screen);
    let id = job.get("id").and_then(Value::as_str).unwrap_or_default();
    if let Some(to) = run.zip {
        let size = control_plane
            .download(&format!("/jobs/{id}/artifacts.zip"), &to)
            .await?;
        screen.say(&format!("{} ({size} bytes)", to.display()));
    } else if screen.output() == Output::Text {
        artifacts::list(
            &control_plane
                .get(&format!("/jobs/{id}/artifacts"), &[])
                .await?,
            screen,
        );
    }
    Ok(if crate::jobs::status(&job) == "succeeded" {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

/// How far the job is: a bar that moves on a terminal, else a line whenever it changes.
struct Bar {
    is_terminal: bool,
    last: String,
}

impl Bar {
    fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            last: String::new(),
        }
    }

    fn show(&mut self, job: &Value, screen: &Screen) {
        let line = line(job, self.is_terminal);
        if line == self.last {
            return;
        }
        if self.is_terminal {
            let mut out = std::io::stderr().lock();
            // Where standard error is closed, nobody looks.
            let _ = write!(out, "\r\u{1b}[2K{line}").and_then(|()| out.flush());
        } else {
            screen.say(&line);
        }
        self.last = line;
    }

    fn end(&self) {
        if self.is_terminal && !self.last.is_empty() {
            // As above.
            let _ = writeln!(std::io::stderr().lock());
        }
    }
}

fn line(job: &Value, with_bar: bool) -> String {
    let status = crate::jobs::status(job);
    let progress = job.get("progress").unwrap_or(&Value::Null);
    let Some(fraction) = progress.get("progress").and_then(Value::as_f64) else {
        return harmless(status);
    };
    let fraction = fraction.clamp(0.0, 1.0);
    let message = progress
        .get("message")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let percent = format!("{:3.0} %", fraction * 100.0);
    let text = format!("{status} {percent} {}", harmless(message));
    if !with_bar {
        return text.trim_end().to_owned();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to the width"
    )]
    let full = (fraction * WIDTH as f64).round() as usize;
    format!("[{}{}] {text}", "#".repeat(full), "-".repeat(WIDTH - full))
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn progress_is_a_bar_on_a_terminal_and_a_line_elsewhere() {
        let job =
            json!({"status": "running", "progress": {"progress": 0.5, "message": "half\u{1b}[2J"}});
        assert_eq!(line(&job, false), "running  50 % half\u{fffd}[2J");
        assert_eq!(
            line(&job, true),
            "[############------------] running  50 % half\u{fffd}[2J"
        );
        assert_eq!(
            line(&json!({"status": "queued", "progress": null}), true),
            "queued"
        );
    }
}
