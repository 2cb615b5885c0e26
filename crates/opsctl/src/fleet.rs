//! `opsctl fleet`: whether the runners take jobs at all, and the switch for it, over HTTP.

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
    /// Show whether the fleet is paused, by whom and why, and who paused and resumed it before
    Show,
    /// Let no runner take a job until the fleet is resumed; jobs that run go on
    Pause {
        /// Why; told to everybody who asks
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let runners take jobs again
    Resume {
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
    let fleet = match command {
        Command::Show => control_plane.get("/fleet", &[]).await?,
        Command::Pause { reason } => press(&control_plane, "/fleet/pause", reason).await?,
        Command::Resume { reason } => press(&control_plane, "/fleet/resume", reason).await?,
    };
    show(&fleet, screen);
    Ok(Exit::Ok)
}

async fn press(
    control_plane: &ControlPlane,
    path: &str,
    reason: Option<String>,
) -> Result<Value, Error> {
    let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    control_plane.post(path, &body, &[]).await
}

fn show(fleet: &Value, screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.json(fleet);
    }
    for name in ["paused", "paused_at", "paused_by", "reason"] {
        if !fleet[name].is_null() {
            screen.line(&format!("{name:<18} {}", harmless(&cell(&fleet[name]))));
        }
    }
    let members = ["at", "change", "actor", "reason"];
    let heading = ["AT", "CHANGE", "ACTOR", "REASON"];
    table(screen, &heading, &rows(fleet, "changes", &members));
}

/// Said above a list of runners that take nothing.
pub(crate) fn tell_of_pause(answer: &Value, screen: &Screen) {
    let pause = &answer["pause"];
    if !pause.is_null() {
        let said = |name: &str| harmless(&cell(&pause[name]));
        screen.say(&format!(
            "the fleet is paused by {} since {}: {}",
            said("paused_by"),
            said("paused_at"),
            said("reason")
        ));
    }
}
