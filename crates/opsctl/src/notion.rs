//! `opsctl notion`: how publishing to Notion fares, and what is to be published again, over HTTP.

use clap::Subcommand;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::jobs::{cell, rows};
use crate::screen::{Output, Screen, harmless};
use crate::settings::Settings;
use crate::table::table;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what waits, what Notion has refused, and what keeps programs from publishing
    Status,
    /// Publish again what Notion has refused, and look again at a token or a database that was found faulty
    Retry {
        /// Only this job, which has ended, whatever became of it; also one that ended before anybody published
        id: Option<Uuid>,
    },
}

pub(crate) async fn run(
    command: Command,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let control_plane = ControlPlane::new(settings.access()?)?;
    match command {
        Command::Status => show(&control_plane.get("/notion", &[]).await?, screen),
        Command::Retry { id } => {
            let body = id.map_or_else(|| json!({}), |id| json!({ "job_id": id }));
            let answer = control_plane.post("/notion/retry", &body, &[]).await?;
            match screen.output() {
                Output::Json => screen.json(&answer),
                Output::Text => screen.say(&format!(
                    "{} published again",
                    harmless(&cell(&answer["retried"]))
                )),
            }
        }
    }
    Ok(Exit::Ok)
}

fn show(notion: &Value, screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.json(notion);
    }
    for name in [
        "noting",
        "pending",
        "oldest_pending_at",
        "dead",
        "published",
        "last_published_at",
        "last_error",
        "last_error_at",
        "waits_until",
    ] {
        if !notion[name].is_null() {
            screen.line(&format!("{name:<18} {}", harmless(&cell(&notion[name]))));
        }
    }
    let members = ["key", "database_id", "checked_at", "fault"];
    let heading = ["KEY", "DATABASE", "FOUND GOOD", "FAULT"];
    table(screen, &heading, &rows(notion, "keys", &members));
    let members = ["job_id", "status", "at", "error"];
    let heading = ["REFUSED JOB", "ANSWER", "AT", "ERROR"];
    table(screen, &heading, &rows(notion, "refused", &members));
}
