//! `opsctl logs`: what a job printed, and what it prints while it runs. Lines as they are, or JSON a line.

mod summarize;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;
use uuid::Uuid;

use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::follow::{What, follow};
use crate::screen::{Output, Screen};
use crate::settings::Settings;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Logs {
    /// The job
    #[arg(required = true)]
    id: Option<Uuid>,
    /// Go on until the job has ended
    #[arg(long, short)]
    follow: bool,
    /// Only what came after the line of this number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: u32,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// What the services' own log lines come to: outcomes, status codes, waits and totals, bad lines
    Summarize {
        /// Files of log lines; - is standard input
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

pub(crate) async fn run(logs: Logs, settings: &Settings, screen: &Screen) -> Result<Exit, Error> {
    if let Some(Action::Summarize { files }) = logs.action {
        return summarize::run(&files, screen);
    }
    let Some(id) = logs.id else {
        return Err(Error::Usage(
            "name a job, or `summarize` and files".to_owned(),
        ));
    };
    let control_plane = ControlPlane::new(settings.access()?)?;
    let after = i64::from(logs.after);
    let show = |line: &Value| show(line, screen);
    if logs.follow {
        follow(&control_plane, What::Log, id, after, show).await?;
    } else {
        all(&control_plane, id, after, show).await?;
    }
    Ok(Exit::Ok)
}

/// What there is by now, a page at a time.
async fn all(
    control_plane: &ControlPlane,
    id: Uuid,
    mut after: i64,
    show: impl Fn(&Value),
) -> Result<(), Error> {
    loop {
        let query = [("after", after.to_string())];
        let page = control_plane
            .get(&format!("/jobs/{id}/log"), &query)
            .await?;
        let lines = page.get("lines").and_then(Value::as_array);
        let lines = lines.map(Vec::as_slice).unwrap_or_default();
        lines.iter().for_each(&show);
        let last = page.get("last_seq").and_then(Value::as_i64);
        match last.filter(|last| *last > after) {
            Some(last) => after = last,
            None => return Ok(()),
        }
    }
}

fn show(line: &Value, screen: &Screen) {
    match screen.output() {
        Output::Text => screen.line(line.get("line").and_then(Value::as_str).unwrap_or_default()),
        Output::Json => screen.line(&line.to_string()),
    }
}
