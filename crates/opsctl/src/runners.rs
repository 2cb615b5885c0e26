//! `opsctl runners`: who runs jobs, and which of them are given some, over HTTP.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::jobs::{cell, rows};
use crate::screen::{Output, Screen, harmless};
use crate::settings::Settings;
use crate::table::table;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the runners, their slots and when they were last seen; also without this word
    List,
    /// Give a runner no job until it is undrained, over its restarts too; what it runs goes on
    Drain {
        /// RUNNER_ID
        id: String,
        /// Why; told to everybody who asks
        #[arg(long)]
        reason: Option<String>,
    },
    /// Give a drained runner jobs again
    Undrain {
        /// RUNNER_ID
        id: String,
        /// Why, for the record
        #[arg(long)]
        reason: Option<String>,
    },
    /// Forget a runner that has been silent for a minute: its jobs come back at once, as from any that is lost
    Forget {
        /// RUNNER_ID
        id: String,
        /// Why, for the record
        #[arg(long)]
        reason: Option<String>,
    },
}

pub(crate) async fn run(
    command: Command,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let control_plane = ControlPlane::new(settings.access()?)?;
    match command {
        Command::List => show(&control_plane.get("/runners", &[]).await?, screen),
        Command::Drain { id, reason } => {
            let path = format!("/runners/{id}/drain");
            show(
                &control_plane.post(&path, &body(reason), &[]).await?,
                screen,
            );
        }
        Command::Undrain { id, reason } => {
            let path = format!("/runners/{id}/undrain");
            show(
                &control_plane.post(&path, &body(reason), &[]).await?,
                screen,
            );
        }
        Command::Forget { id, reason } => {
            let request = control_plane.request(reqwest::Method::DELETE, &format!("/runners/{id}"));
            let answer = control_plane.json(request.json(&body(reason))).await?;
            match screen.output() {
                Output::Json => screen.json(&answer),
                Output::Text => screen.line(&format!(
                    "forgotten: {id}; jobs taken back: {}",
                    harmless(&cell(&answer["taken_back"]))
                )),
            }
        }
    }
    Ok(Exit::Ok)
}

fn body(reason: Option<String>) -> Value {
    reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }))
}

fn show(answer: &Value, screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.json(answer);
    }
    let list = match answer.get("runners") {
        Some(_) => answer.clone(),
        None => json!({ "runners": [answer] }),
    };
    let members = [
        "id",
        "version",
        "slots_used",
        "slots_total",
        "draining",
        "drain_requested_by",
        "fits",
        "last_seen_at",
        "job_types",
    ];
    let heading = [
        "ID",
        "VERSION",
        "USED",
        "SLOTS",
        "DRAINING",
        "DRAINED BY",
        "FITS",
        "LAST SEEN",
        "JOB TYPES",
    ];
    table(screen, &heading, &rows(&list, "runners", &members));
    crate::fleet::tell_of_pause(answer, screen);
}
