//! `opsctl smoke`: one real job down every road, on a stack that is there or on one of its own, and what came of each.

mod roads;

use std::time::{Duration, Instant};

use clap::Args;
use jobs::Name;
use serde_json::{Value, json};

use crate::dev::Stack;
use crate::error::{Error, sentence};
use crate::exit::Exit;
use crate::screen::{Output, Screen};
use crate::settings::{Access, Settings};
use crate::table::table;
use roads::{ROADS, Road, Trip};

#[derive(Debug, Args)]
pub(crate) struct Smoke {
    /// The job type that is run; its command is in docs/operations.md
    #[arg(long = "type", value_name = "TYPE", default_value = "smoke")]
    job_type: Name,
    /// A road that takes longer has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    patience: u32,
}

/// What came of one road.
struct Finding {
    road: &'static str,
    took: Duration,
    came: Came,
}

enum Came {
    Right(String),
    Wrong(String),
}

pub(crate) async fn run(smoke: Smoke, settings: &Settings, screen: &Screen) -> Result<Exit, Error> {
    if let Some(access) = settings.given_access()? {
        let findings = take(&smoke, access).await?;
        return Ok(tell(&findings, &[], screen));
    }
    let work = async |stop: service::Stop| {
        let stack = Stack::start(settings, screen).await?;
        let taken = tokio::select! {
            biased;
            () = stop.requested() => Err(Error::Failed("stopped before every road was taken".to_owned())),
            taken = take(&smoke, stack.access()) => taken,
        };
        let troubles = stack.troubles();
        let stopped = stack.stop().await;
        // What went wrong first is what counts.
        let findings = taken?;
        let exit = tell(&findings, &troubles, screen);
        stopped.map(|()| exit)
    };
    service::until_signals(work)
        .await
        .map_err(|source| Error::Io {
            doing: "listen for signals".to_owned(),
            source,
        })?
}

/// Takes one road after the other; without the first there is no use in the others.
async fn take(smoke: &Smoke, access: Access) -> Result<Vec<Finding>, Error> {
    let patience = Duration::from_secs(smoke.patience.into());
    let trip = Trip::new(access, smoke.job_type.clone(), patience)?;
    let mut findings = Vec::new();
    for road in ROADS {
        let begun = Instant::now();
        let came = came(&trip, road, patience).await;
        let is_over = matches!(came, Came::Wrong(_)) && road == Road::Meta;
        findings.push(Finding {
            road: road.word(),
            took: begun.elapsed(),
            came,
        });
        if is_over {
            break;
        }
    }
    Ok(findings)
}

async fn came(trip: &Trip, road: Road, patience: Duration) -> Came {
    match tokio::time::timeout(patience, trip.take(road)).await {
        Ok(Ok(saw)) => Came::Right(saw),
        Ok(Err(error)) => Came::Wrong(sentence(&error)),
        Err(_) => Came::Wrong(format!(
            "no end within {} s{}",
            patience.as_secs(),
            trip.last_seen()
        )),
    }
}

/// Tells what came of the roads, and what to look at first where one was wrong.
fn tell(findings: &[Finding], troubles: &[String], screen: &Screen) -> Exit {
    let first = findings.iter().find_map(|finding| match &finding.came {
        Came::Wrong(why) => Some(format!("{}: {why}", finding.road)),
        Came::Right(_) => None,
    });
    match screen.output() {
        Output::Json => screen.json(&json!({
            "ok": first.is_none(),
            "look_first": first,
            "roads": findings.iter().map(Finding::json).collect::<Vec<_>>(),
        })),
        Output::Text => {
            let rows: Vec<_> = findings.iter().map(Finding::row).collect();
            table(screen, &["ROAD", "CAME", "TOOK", "SAW"], &rows);
        }
    }
    let Some(first) = first else {
        return Exit::Ok;
    };
    screen.say(&format!("look first at {first}"));
    if !troubles.is_empty() {
        screen.say("the services logged:");
        troubles.iter().for_each(|line| screen.say(line));
    }
    Exit::Failed
}

impl Finding {
    fn words(&self) -> (&'static str, &str) {
        match &self.came {
            Came::Right(saw) => ("ok", saw),
            Came::Wrong(why) => ("failed", why),
        }
    }

    fn row(&self) -> Vec<String> {
        let (came, saw) = self.words();
        let took = format!("{:.2} s", self.took.as_secs_f64());
        // The first line is enough for a table; JSON has it whole.
        let saw = saw.lines().next().unwrap_or_default();
        vec![self.road.to_owned(), came.to_owned(), took, saw.to_owned()]
    }

    fn json(&self) -> Value {
        let (came, saw) = self.words();
        json!({"road": self.road, "came": came, "seconds": self.took.as_secs_f64(), "saw": saw})
    }
}
