//! `opsctl schedules`: makes, changes and steers schedules over HTTP, as any other caller does. Never touches the database.

mod show;

use clap::{Args, Subcommand};
use jobs::Name;
use serde_json::{Map, Value, json};

use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::jobs::{label, payload};
use crate::screen::Screen;
use crate::settings::Settings;

/// What of a schedule is its maker's to say, and so what a change sends again.
const TERMS: [&str; 16] = [
    "cron",
    "timezone",
    "job_type",
    "payload",
    "queue",
    "priority",
    "labels",
    "ttl_seconds",
    "max_attempts",
    "timeout_seconds",
    "catch_up",
    "catch_up_limit",
    "grace_seconds",
    "overlap",
    "jitter_seconds",
    "revision",
];

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List schedules by name, with what fires next
    List {
        /// At most so many
        #[arg(long, value_name = "COUNT")]
        limit: Option<u32>,
        /// Where the page before ended: its next_cursor
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show a schedule
    Show {
        /// The schedule
        name: String,
    },
    /// Make a schedule
    Create {
        /// What it is to be called
        name: String,
        /// Make it paused
        #[arg(long)]
        paused: bool,
        #[command(flatten)]
        terms: Terms,
    },
    /// Change a schedule; what is not said stays as it is
    Update {
        /// The schedule
        name: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// Remove a schedule; its jobs stay
    Delete {
        /// The schedule
        name: String,
    },
    /// Let a schedule make no jobs until it is resumed
    Pause {
        /// The schedule
        name: String,
        /// Why; stays with it
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let a paused schedule fire again
    Resume {
        /// The schedule
        name: String,
    },
    /// Record a job of a schedule now, outside its cron
    Fire {
        /// The schedule
        name: String,
        /// Why, for its ledger
        #[arg(long)]
        reason: Option<String>,
    },
    /// Show when a schedule fires next
    Next {
        /// The schedule
        name: String,
        /// How many instants
        #[arg(long)]
        count: Option<u32>,
    },
    /// Show when a pattern would fire, before it is kept
    Preview {
        /// The pattern, in quotes: minute, hour, day, month, weekday
        cron: String,
        /// An IANA name
        #[arg(long, value_name = "ZONE")]
        timezone: Option<String>,
        /// How many instants
        #[arg(long)]
        count: Option<u32>,
        /// After this instant (RFC 3339) instead of now
        #[arg(long, value_name = "INSTANT")]
        after: Option<String>,
    },
    /// List what became of a schedule's instants, newest first
    Fires {
        /// The schedule
        name: String,
        /// Only fired, skipped, missed or paused
        #[arg(long)]
        outcome: Option<String>,
        /// At most so many
        #[arg(long, value_name = "COUNT")]
        limit: Option<u32>,
        /// Where the page before ended: its next_cursor
        #[arg(long)]
        cursor: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Terms {
    /// The pattern, in quotes: minute, hour, day, month, weekday
    #[arg(long)]
    cron: Option<String>,
    /// The zone of its wall clock, an IANA name
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// What its jobs do
    #[arg(long = "type", value_name = "TYPE")]
    job_type: Option<Name>,
    /// What their handler is given: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    payload: Option<String>,
    /// Their queue
    #[arg(long)]
    queue: Option<Name>,
    /// Their priority
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i16>,
    /// A label of theirs; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// They fail if they are still queued after so many seconds
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
    /// After so many attempts a failure is final
    #[arg(long, value_name = "COUNT")]
    max_attempts: Option<u32>,
    /// An attempt is killed after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// What becomes of late instants: skip, one or all
    #[arg(long, value_name = "POLICY")]
    catch_up: Option<String>,
    /// How many of them `all` makes up for at most
    #[arg(long, value_name = "COUNT")]
    catch_up_limit: Option<u32>,
    /// After so many seconds an instant is late
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u32>,
    /// What becomes of an instant while a job has not ended: skip, queue or allow
    #[arg(long, value_name = "POLICY")]
    overlap: Option<String>,
    /// A job is recorded up to so many seconds later than its instant
    #[arg(long, value_name = "SECONDS")]
    jitter: Option<u32>,
}

impl Terms {
    /// What was said, and nothing else, so that the control plane's defaults hold.
    fn said(self) -> Result<Map<String, Value>, Error> {
        let payload = self.payload.as_deref().map(payload).transpose()?;
        let labels: Map<String, Value> = self
            .label
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect();
        let fields = [
            ("cron", self.cron.map(Value::from)),
            ("timezone", self.timezone.map(Value::from)),
            (
                "job_type",
                self.job_type.map(|name| String::from(name).into()),
            ),
            ("payload", payload),
            ("queue", self.queue.map(|queue| String::from(queue).into())),
            ("priority", self.priority.map(Value::from)),
            (
                "labels",
                (!labels.is_empty()).then_some(Value::Object(labels)),
            ),
            ("ttl_seconds", self.ttl.map(Value::from)),
            ("max_attempts", self.max_attempts.map(Value::from)),
            ("timeout_seconds", self.timeout.map(Value::from)),
            ("catch_up", self.catch_up.map(Value::from)),
            ("catch_up_limit", self.catch_up_limit.map(Value::from)),
            ("grace_seconds", self.grace.map(Value::from)),
            ("overlap", self.overlap.map(Value::from)),
            ("jitter_seconds", self.jitter.map(Value::from)),
        ];
        let said = fields.into_iter();
        Ok(said
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect())
    }
}

pub(crate) async fn run(
    command: Command,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let control_plane = ControlPlane::new(settings.access()?)?;
    match command {
        Command::List { limit, cursor } => {
            let query = query([
                ("limit", limit.map(|limit| limit.to_string())),
                ("cursor", cursor),
            ]);
            show::page(&control_plane.get("/schedules", &query).await?, screen);
        }
        Command::Show { name } => {
            show::one(&control_plane.get(&path(&name, "")?, &[]).await?, screen);
        }
        Command::Create {
            name,
            paused,
            terms,
        } => {
            let mut body = terms.said()?;
            body.insert("name".to_owned(), name.into());
            if paused {
                body.insert("enabled".to_owned(), false.into());
            }
            show::one(
                &control_plane.post("/schedules", &body.into(), &[]).await?,
                screen,
            );
        }
        Command::Update { name, terms } => {
            show::one(&update(&control_plane, &name, terms).await?, screen);
        }
        Command::Delete { name } => {
            control_plane.delete(&path(&name, "")?).await?;
            screen.say(&format!("schedule {name} is removed"));
        }
        Command::Pause { name, reason } => {
            show::one(
                &press(&control_plane, &name, "/pause", reason).await?,
                screen,
            );
        }
        Command::Resume { name } => {
            show::one(
                &press(&control_plane, &name, "/resume", None).await?,
                screen,
            );
        }
        Command::Fire { name, reason } => {
            show::fired(
                &press(&control_plane, &name, "/fire", reason).await?,
                screen,
            );
        }
        Command::Next { name, count } => {
            let query = query([("count", count.map(|count| count.to_string())), ("", None)]);
            show::instants(
                &control_plane.get(&path(&name, "/next")?, &query).await?,
                screen,
            );
        }
        Command::Preview {
            cron,
            timezone,
            count,
            after,
        } => {
            let body =
                json!({ "cron": cron, "timezone": timezone, "count": count, "after": after });
            show::instants(
                &control_plane.post("/schedules/preview", &body, &[]).await?,
                screen,
            );
        }
        Command::Fires {
            name,
            outcome,
            limit,
            cursor,
        } => {
            let query = query([
                ("outcome", outcome),
                ("limit", limit.map(|limit| limit.to_string())),
                ("cursor", cursor),
            ]);
            show::fires(
                &control_plane.get(&path(&name, "/fires")?, &query).await?,
                screen,
            );
        }
    }
    Ok(Exit::Ok)
}

/// Reads the schedule, puts what was said in its place, and sends it back for the revision that was read.
async fn update(control_plane: &ControlPlane, name: &str, terms: Terms) -> Result<Value, Error> {
    let path = path(name, "")?;
    let mut found = control_plane.get(&path, &[]).await?;
    let mut body: Map<String, Value> = TERMS
        .into_iter()
        .filter_map(|term| Some((term.to_owned(), found.get_mut(term)?.take())))
        .collect();
    body.extend(terms.said()?);
    control_plane.put(&path, &body.into()).await
}

async fn press(
    control_plane: &ControlPlane,
    name: &str,
    verb: &str,
    reason: Option<String>,
) -> Result<Value, Error> {
    let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    control_plane.post(&path(name, verb)?, &body, &[]).await
}

/// A name is part of the address, so it is checked here already.
fn path(name: &str, verb: &str) -> Result<String, Error> {
    match name.parse::<jobs::ScheduleName>() {
        Ok(name) => Ok(format!("/schedules/{name}{verb}")),
        Err(why) => Err(Error::Usage(format!("the schedule's name {why}"))),
    }
}

fn query<const N: usize>(
    fields: [(&'static str, Option<String>); N],
) -> Vec<(&'static str, String)> {
    let said = fields.into_iter();
    said.filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn what_was_said_is_sent_and_nothing_else() {
        let line = [
            "x",
            "create",
            "nightly",
            "--cron",
            "0 3 * * *",
            "--timezone",
            "Europe/Berlin",
            "--type",
            "a",
            "--payload",
            "[1]",
            "--catch-up",
            "all",
            "--overlap",
            "skip",
            "--jitter",
            "9",
            "--label",
            "a=b",
            "--grace",
            "60",
        ];
        let Command::Create { terms, paused, .. } = Line::parse_from(line).command else {
            panic!("it is a creation");
        };
        assert!(!paused);
        assert_eq!(
            Value::from(terms.said().expect("right")),
            json!({
                "cron": "0 3 * * *", "timezone": "Europe/Berlin", "job_type": "a", "payload": [1], "catch_up": "all",
                "overlap": "skip", "jitter_seconds": 9, "labels": {"a": "b"}, "grace_seconds": 60,
            })
        );
    }

    #[test]
    fn a_name_that_is_none_never_becomes_part_of_an_address() {
        assert_eq!(
            path("nightly", "/fires").expect("right"),
            "/schedules/nightly/fires"
        );
        for wrong in ["", "a/b", "..", "A", "preview"] {
            assert!(path(wrong, "").is_err(), "{wrong}");
        }
    }
}
