//! `opsctl runners` and `opsctl meta`: two questions to the control plane.

use serde_json::Value;

use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::jobs::{cell, rows};
use crate::screen::{Output, Screen, harmless};
use crate::settings::Settings;
use crate::table::table;

pub(crate) async fn runners(settings: &Settings, screen: &Screen) -> Result<Exit, Error> {
    let answer = ControlPlane::new(settings.access()?)?
        .get("/runners", &[])
        .await?;
    match screen.output() {
        Output::Json => screen.json(&answer),
        Output::Text => {
            let members = [
                "id",
                "version",
                "slots_used",
                "slots_total",
                "draining",
                "last_seen_at",
                "job_types",
            ];
            let heading = [
                "ID",
                "VERSION",
                "USED",
                "SLOTS",
                "DRAINING",
                "LAST SEEN",
                "JOB TYPES",
            ];
            table(screen, &heading, &rows(&answer, "runners", &members));
            crate::fleet::tell_of_pause(&answer, screen);
        }
    }
    Ok(Exit::Ok)
}

pub(crate) async fn meta(settings: &Settings, screen: &Screen) -> Result<Exit, Error> {
    let answer = ControlPlane::new(settings.access()?)?
        .get("/meta", &[])
        .await?;
    match screen.output() {
        Output::Json => screen.json(&answer),
        Output::Text => {
            for (name, value) in answer.as_object().into_iter().flatten() {
                match value {
                    Value::Object(members) => {
                        for (member, value) in members {
                            screen.line(&format!(
                                "{:<40} {}",
                                format!("{name}.{member}"),
                                harmless(&cell(value))
                            ));
                        }
                    }
                    _ => screen.line(&format!("{name:<40} {}", harmless(&cell(value)))),
                }
            }
        }
    }
    Ok(Exit::Ok)
}
