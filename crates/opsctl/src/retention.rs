//! `opsctl retention`: how long ended jobs are kept, and their removal, straight from the database. Has no SQL; the store has.

use std::time::Duration;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use jobs::{Keep, Name, Removed, RetentionTerm, Status, Store};
use serde_json::json;

use crate::db;
use crate::error::Error;
use crate::exit::Exit;
use crate::screen::{Output, Screen, harmless};
use crate::settings::Settings;
use crate::table::table;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how long ended jobs are kept, what is due to go, and what has gone
    Show,
    /// Keep jobs that ended so for so long from now on
    Set {
        /// Of which status; may be given again
        #[arg(long = "status", required = true, value_name = "STATUS", value_parser = PossibleValuesParser::new(["succeeded", "failed", "aborted"]))]
        statuses: Vec<String>,
        /// Of this job type only; without it, of every type that has no time of its own
        #[arg(long = "type", value_name = "JOB_TYPE")]
        job_type: Option<Name>,
        /// For so long after the end: a number and s, m, h, d or w (30d); `forever`; `default`: as types without a time of their own
        #[arg(long, value_name = "TIME", value_parser = parse_keep)]
        keep: Keep,
    },
    /// Remove now what has been kept for long enough, all of it; runners do so by themselves
    Run {
        /// Only count what would go
        #[arg(long)]
        dry_run: bool,
    },
}

pub(crate) async fn run(
    command: Command,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let store = db::open(settings.database_url()?.expose(), settings.pooler()?)?;
    let done = match command {
        Command::Show => show(&store, screen).await,
        Command::Set {
            statuses,
            job_type,
            keep,
        } => set(&store, &statuses, job_type.as_ref(), keep, screen).await,
        Command::Run { dry_run: true } => due(&store, screen).await,
        Command::Run { dry_run: false } => apply(&store, screen).await,
    };
    store.close().await;
    done.map(|()| Exit::Ok)
}

async fn show(store: &Store, screen: &Screen) -> Result<(), Error> {
    let terms = store.retention().await.map_err(reading())?;
    let due = store.retention_due().await.map_err(reading())?;
    let removed = store.removals().await.map_err(reading())?;
    if screen.output() == Output::Json {
        screen.json(&json!({ "terms": terms, "due": due, "removed": removed }));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = terms.iter().map(row).collect();
    table(screen, &["TYPE", "STATUS", "KEPT FOR", "SET BY"], &rows);
    let jobs: i64 = due.iter().map(|expired| expired.jobs).sum();
    screen.say(&format!(
        "due to go: {jobs} jobs; gone so far: {}",
        told(&removed)
    ));
    Ok(())
}

fn row(term: &RetentionTerm) -> Vec<String> {
    vec![
        term.job_type.clone(),
        term.status.clone(),
        term.keep_seconds.map_or("ever".to_owned(), length),
        harmless(&term.set_by),
    ]
}

async fn set(
    store: &Store,
    statuses: &[String],
    job_type: Option<&Name>,
    keep: Keep,
    screen: &Screen,
) -> Result<(), Error> {
    for status in statuses {
        let status: Status = status
            .parse()
            .map_err(|_| Error::Usage(format!("{status} is no status")))?;
        store
            .set_retention(job_type, status, keep)
            .await
            .map_err(Error::database("set how long jobs are kept"))?;
    }
    show(store, screen).await
}

async fn due(store: &Store, screen: &Screen) -> Result<(), Error> {
    let due = store.retention_due().await.map_err(reading())?;
    let jobs: i64 = due.iter().map(|expired| expired.jobs).sum();
    let events: i64 = due.iter().map(|expired| expired.events).sum();
    if screen.output() == Output::Json {
        screen.json(&json!({ "dry_run": true, "jobs": jobs, "events": events, "due": due }));
    } else {
        let rows: Vec<Vec<String>> = due
            .iter()
            .map(|expired| {
                vec![
                    expired.job_type.clone(),
                    expired.status.clone(),
                    expired.jobs.to_string(),
                    expired.events.to_string(),
                ]
            })
            .collect();
        table(screen, &["TYPE", "STATUS", "JOBS", "EVENTS"], &rows);
    }
    screen.say(&format!(
        "would remove {jobs} jobs with {events} events; without --dry-run they go"
    ));
    Ok(())
}

async fn apply(store: &Store, screen: &Screen) -> Result<(), Error> {
    // An empty name: the database puts the login there.
    let removed = store
        .apply_retention("", Duration::MAX)
        .await
        .map_err(Error::database("remove what has been kept for long enough"))?;
    if screen.output() == Output::Json {
        screen.json(&json!({ "dry_run": false, "jobs": removed.jobs, "events": removed.events, "log_chunks": removed.log_chunks, "files": removed.files }));
    }
    screen.say(&format!("removed {}", told(&removed)));
    Ok(())
}

fn told(removed: &Removed) -> String {
    format!(
        "{} jobs with {} events, {} pieces of log, {} files",
        removed.jobs, removed.events, removed.log_chunks, removed.files
    )
}

fn reading() -> impl FnOnce(jobs::StoreError) -> Error {
    Error::database("read how long jobs are kept")
}

const UNITS: [(&str, u64); 5] = [
    ("w", 7 * 86_400),
    ("d", 86_400),
    ("h", 3600),
    ("m", 60),
    ("s", 1),
];
/// Ten centuries: what the database takes, in days.
const MOST_DAYS: u64 = 365_000;

fn parse_keep(text: &str) -> Result<Keep, String> {
    match text {
        "forever" => return Ok(Keep::ForEver),
        "default" => return Ok(Keep::AsOthers),
        _ => {}
    }
    let wrong =
        || "give a number and s, m, h, d or w, as in 30d; or forever; or default".to_owned();
    let (unit, each) = UNITS
        .iter()
        .find(|(unit, _)| text.ends_with(unit))
        .ok_or_else(wrong)?;
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    number
        .checked_mul(*each)
        .filter(|length| *length <= MOST_DAYS * 86_400)
        .map(|length| Keep::For(Duration::from_secs(length)))
        .ok_or_else(|| format!("{text} is too long: say forever"))
}

/// In the largest unit that is whole.
fn length(seconds: f64) -> String {
    let unit = UNITS.iter().skip(1).find(|(_, each)| {
        seconds >= Duration::from_secs(*each).as_secs_f64()
            && seconds % Duration::from_secs(*each).as_secs_f64() == 0.0
    });
    match unit {
        Some((unit, each)) => format!(
            "{}{unit}",
            seconds / Duration::from_secs(*each).as_secs_f64()
        ),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_told_in_days_hours_and_smaller() {
        for (text, seconds) in [
            ("30d", 2_592_000),
            ("2w", 1_209_600),
            ("12h", 43_200),
            ("0s", 0),
            ("90m", 5400),
        ] {
            assert_eq!(
                parse_keep(text),
                Ok(Keep::For(Duration::from_secs(seconds))),
                "{text}"
            );
        }
        assert_eq!(parse_keep("forever"), Ok(Keep::ForEver));
        assert_eq!(parse_keep("default"), Ok(Keep::AsOthers));
        for wrong in [
            "",
            "d",
            "30",
            "-1d",
            "1.5d",
            "30 d",
            "1y",
            "99999999999999999w",
        ] {
            assert!(parse_keep(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            [2_592_000.0, 5400.0, 0.0, 0.5].map(length),
            ["30d", "90m", "0s", "0.5s"]
        );
    }
}
