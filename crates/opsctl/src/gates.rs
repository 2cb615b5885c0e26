//! `opsctl gates`: shows what waits for a person, and decides it over HTTP, as any other caller does.

use clap::{Args, Subcommand};
use jobs::Name;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::jobs::rows;
use crate::screen::{Output, Screen, harmless};
use crate::settings::Settings;
use crate::table::table;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the gates that wait, of every job, those that have waited longest first
    List,
    /// Show the gates that a job has reached
    Show {
        /// The job
        id: Uuid,
    },
    /// Approve a gate: the job goes on
    Approve(Decide),
    /// Reject a gate: the stage is run again once the job is resumed
    Reject(Decide),
    /// Make signed links, for a mail: each shows the gate, and decides it once
    Links {
        /// The job
        id: Uuid,
        /// The gate, by the name of its stage
        name: Name,
        /// They are good for so many seconds; a day unless said
        #[arg(long, value_name = "SECONDS")]
        expires_in: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Decide {
    /// The job
    id: Uuid,
    /// The gate, by the name of its stage
    name: Name,
    /// Why
    #[arg(long)]
    reason: Option<String>,
    /// JSON Patch (RFC 6902): to the stage's result when approving, to its payload when rejecting
    #[arg(long, value_name = "JSON", value_parser = json)]
    patch: Option<Value>,
    /// Only if the gate is at this revision
    #[arg(long, value_name = "NUMBER")]
    revision: Option<u32>,
    /// Only if the gate shows the document of this hash
    #[arg(long, value_name = "SHA256")]
    document_hash: Option<String>,
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))
}

impl Decide {
    fn path(&self, verb: &str) -> String {
        format!("/jobs/{}/gates/{}/{verb}", self.id, self.name)
    }

    /// The decision as the control plane takes it: only what was said.
    fn body(self) -> Value {
        let fields = [
            ("reason", self.reason.map(Value::from)),
            ("patch", self.patch),
            ("revision", self.revision.map(Value::from)),
            ("document_hash", self.document_hash.map(Value::from)),
        ];
        let fields: Map<String, Value> = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
        Value::Object(fields)
    }
}

pub(crate) async fn run(
    command: Command,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let control_plane = ControlPlane::new(settings.access()?)?;
    let answer = match command {
        Command::List => control_plane.get("/gates", &[]).await?,
        Command::Show { id } => control_plane.get(&format!("/jobs/{id}/gates"), &[]).await?,
        Command::Approve(decide) => decided(decide, "approve", &control_plane).await?,
        Command::Reject(decide) => decided(decide, "reject", &control_plane).await?,
        Command::Links {
            id,
            name,
            expires_in,
        } => {
            let path = format!("/jobs/{id}/gates/{name}/links");
            let body = expires_in.map_or_else(|| json!({}), |s| json!({ "expires_in_seconds": s }));
            let made = control_plane.post(&path, &body, &[]).await?;
            links(&made, &settings.access()?.url, screen);
            return Ok(Exit::Ok);
        }
    };
    show(&answer, screen);
    Ok(Exit::Ok)
}

async fn decided(decide: Decide, verb: &str, control_plane: &ControlPlane) -> Result<Value, Error> {
    let path = decide.path(verb);
    control_plane.post(&path, &decide.body(), &[]).await
}

/// With the address that the command asked: another way to the control plane may be what the mail needs.
fn links(answer: &Value, url: &str, screen: &Screen) {
    if screen.output() == Output::Json {
        screen.json(answer);
        return;
    }
    let links = answer["links"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = links
        .map(|link| {
            let text = |name: &str| link[name].as_str().unwrap_or_default().to_owned();
            vec![
                text("decision"),
                text("expires_at"),
                format!("{url}{}", text("path")),
            ]
        })
        .collect();
    table(screen, &["DECISION", "EXPIRES", "LINK"], &rows);
}

fn show(answer: &Value, screen: &Screen) {
    if screen.output() == Output::Json {
        screen.json(answer);
        return;
    }
    let list = match answer.get("gate") {
        Some(gate) => json!({ "gates": [gate] }),
        None => answer.clone(),
    };
    let members = [
        "job_id",
        "name",
        "revision",
        "state",
        "opened_at",
        "auto_approve_at",
        "expires_at",
        "decided_by",
        "reason",
    ];
    let heading = [
        "JOB",
        "GATE",
        "REVISION",
        "STATE",
        "OPENED",
        "AUTO APPROVAL",
        "EXPIRES",
        "DECIDED BY",
        "REASON",
    ];
    table(screen, &heading, &rows(&list, "gates", &members));
    for gate in list["gates"].as_array().into_iter().flatten() {
        if gate["state"] == "open" {
            screen.line("");
            screen.line(&harmless(&format!(
                "{} {}: {}",
                gate["job_id"].as_str().unwrap_or_default(),
                gate["name"].as_str().unwrap_or_default(),
                gate["document"]
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_sends_what_was_said_and_nothing_else() {
        let decide = Decide {
            id: Uuid::nil(),
            name: "draft".parse().expect("a name"),
            reason: Some("late".to_owned()),
            patch: Some(json!([])),
            revision: None,
            document_hash: None,
        };
        assert_eq!(
            decide.path("reject"),
            "/jobs/00000000-0000-0000-0000-000000000000/gates/draft/reject"
        );
        assert_eq!(decide.body(), json!({"reason": "late", "patch": []}));
        assert!(super::json("[").is_err());
    }
}
