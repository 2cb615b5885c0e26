//! `opsctl jobs`: records, shows and steers jobs over HTTP, as any other caller does. Never touches the database.

mod retry;
mod show;
mod submit;
mod wait;
mod watch;

use clap::{Args, Subcommand};
use jobs::Name;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::screen::{Output, Screen};
use crate::settings::Settings;

pub(crate) use retry::Retry;
pub(crate) use show::{cell, job as show_job, rows};
pub(crate) use submit::{Submit, label, payload};
pub(crate) use wait::{has_ended, status, telling as wait_telling};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Record a job, and, if asked to, trigger it and wait for it
    Submit(Submit),
    /// List jobs, newest first
    List(List),
    /// Show a job
    Get {
        /// The job
        id: Uuid,
    },
    /// Show why a job is where it is, and what would change it
    Why {
        /// The job
        id: Uuid,
    },
    /// Show everything that happened to a job
    Events {
        /// The job
        id: Uuid,
        /// Only what came after the event of this number
        #[arg(long, value_name = "SEQ")]
        after: Option<u32>,
    },
    /// Show what happens to a job, until it has ended
    Watch {
        /// The job
        id: Uuid,
        /// Only what comes after the event of this number
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: u32,
    },
    /// Print what a job printed
    Log {
        /// The job
        id: Uuid,
    },
    /// Stop a job
    Abort {
        /// The job
        id: Uuid,
        /// Why, for its events
        #[arg(long)]
        reason: Option<String>,
    },
    /// Queue a failed or aborted job again, or all that a filter matches
    Retry(Retry),
    /// Let a job go on that is held because its runner was lost, or whose stage was rejected at its gate
    Resume {
        /// The job
        id: Uuid,
        /// Why, for its events
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only of this status
    #[arg(long)]
    status: Option<String>,
    /// Only of this type
    #[arg(long = "type", value_name = "TYPE")]
    job_type: Option<Name>,
    /// Only of this queue
    #[arg(long)]
    queue: Option<Name>,
    /// Only with this label
    #[arg(long, value_name = "NAME=VALUE", value_parser = submit::label)]
    label: Option<(String, String)>,
    /// Only running jobs whose runner is silent
    #[arg(long)]
    stalled: bool,
    /// Recorded at this instant (RFC 3339) or later
    #[arg(long, value_name = "INSTANT")]
    created_after: Option<String>,
    /// Recorded before this instant (RFC 3339)
    #[arg(long, value_name = "INSTANT")]
    created_before: Option<String>,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<u32>,
    /// Where the page before ended: its next_cursor
    #[arg(long)]
    cursor: Option<String>,
}

impl List {
    /// The filters as the control plane takes them.
    fn query(self) -> Vec<(&'static str, String)> {
        let fields = [
            ("status", self.status),
            ("job_type", self.job_type.map(String::from)),
            ("queue", self.queue.map(String::from)),
            (
                "label",
                self.label.map(|(name, value)| format!("{name}={value}")),
            ),
            ("stalled", self.stalled.then(|| "true".to_owned())),
            ("created_after", self.created_after),
            ("created_before", self.created_before),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("cursor", self.cursor),
        ];
        fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

pub(crate) async fn run(
    command: Command,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let control_plane = ControlPlane::new(settings.access()?)?;
    match command {
        Command::Submit(job) => return submit::run(job, &control_plane, screen).await,
        Command::List(list) => {
            show::page(&control_plane.get("/jobs", &list.query()).await?, screen);
        }
        Command::Get { id } => show::job(
            &control_plane.get(&format!("/jobs/{id}"), &[]).await?,
            screen,
        ),
        Command::Why { id } => {
            let answer = control_plane.get(&format!("/jobs/{id}/why"), &[]).await?;
            show::reasons(&answer, screen);
        }
        Command::Events { id, after } => {
            let after: Vec<_> = after
                .map(|seq| ("after", seq.to_string()))
                .into_iter()
                .collect();
            show::events(
                &control_plane
                    .get(&format!("/jobs/{id}/events"), &after)
                    .await?,
                screen,
            );
        }
        Command::Watch { id, after } => {
            return watch::run(&control_plane, id, i64::from(after), screen).await;
        }
        Command::Log { id } => log(&control_plane, id, screen).await?,
        Command::Abort { id, reason } => {
            show::job(&steer(&control_plane, id, "abort", reason).await?, screen);
        }
        Command::Retry(retry) => retry::run(retry, &control_plane, screen).await?,
        Command::Resume { id, reason } => {
            show::job(&steer(&control_plane, id, "resume", reason).await?, screen);
        }
    }
    Ok(Exit::Ok)
}

async fn steer(
    control_plane: &ControlPlane,
    id: Uuid,
    verb: &str,
    reason: Option<String>,
) -> Result<Value, Error> {
    let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    control_plane
        .post(&format!("/jobs/{id}/{verb}"), &body, &[])
        .await
}

async fn log(control_plane: &ControlPlane, id: Uuid, screen: &Screen) -> Result<(), Error> {
    let text = control_plane.get_text(&format!("/jobs/{id}/log")).await?;
    match screen.output() {
        Output::Text => screen.raw(&text),
        Output::Json => {
            screen.json(&json!({ "job_id": id, "log": String::from_utf8_lossy(&text) }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_asks_for_what_was_said_and_nothing_else() {
        let list = List {
            status: Some("queued".to_owned()),
            job_type: None,
            queue: Some(Name::default_queue()),
            label: Some(("team".to_owned(), "a=b".to_owned())),
            stalled: true,
            created_after: None,
            created_before: None,
            limit: Some(7),
            cursor: None,
        };
        let query: Vec<_> = list
            .query()
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            query,
            [
                "status=queued",
                "queue=default",
                "label=team=a=b",
                "stalled=true",
                "limit=7"
            ]
        );
    }
}
