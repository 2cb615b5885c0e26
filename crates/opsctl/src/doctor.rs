//! `opsctl doctor`: looks at everything that a stack stands on, from here, and says what is wrong and what to do. Changes
//! nothing, but for the jobs of `--canary`.

mod canary;
mod certificate;
mod database;
mod notion;
mod reach;
mod settings;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jobs::Name;
use serde_json::{Value, json};

use crate::error::Error;
use crate::exit::Exit;
use crate::screen::{Output, Screen};
use crate::settings::Settings;
use crate::table::table;

pub(crate) use canary::job_type as canary_type;

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Also run jobs with a planted secret and look for it in everything that comes out: on the stack at OPS_URL, else on
    /// one of its own
    #[arg(long)]
    canary: bool,
    /// The job type of --canary; its command is in docs/operations.md
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "canary",
        requires = "canary"
    )]
    job_type: Name,
    /// What the programs have logged, for --canary to look into as well
    #[arg(long = "log", value_name = "FILE", requires = "canary")]
    logs: Vec<PathBuf>,
    /// A look that takes longer has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    patience: u32,
}

/// What came of one look.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    came: Came,
}

/// How something is.
#[derive(Debug)]
enum Came {
    /// As it should be; with what was seen.
    Right(String),
    /// It works, and should be looked at.
    Doubtful(String),
    /// Something will not work, or is not safe; with what to do.
    Wrong(String),
    /// It could not be looked at from here; with what is missing.
    Skipped(String),
}

impl Finding {
    fn new(what: &'static str, came: Came) -> Self {
        Self { what, came }
    }

    fn words(&self) -> (&'static str, &str) {
        match &self.came {
            Came::Right(said) => ("ok", said),
            Came::Doubtful(said) => ("doubtful", said),
            Came::Wrong(said) => ("failed", said),
            Came::Skipped(said) => ("skipped", said),
        }
    }

    fn json(&self) -> Value {
        let (came, said) = self.words();
        json!({"look": self.what, "came": came, "said": said})
    }
}

pub(crate) async fn run(
    doctor: Doctor,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let patience = Duration::from_secs(doctor.patience.into());
    if doctor.canary {
        let findings = canary::look(&doctor, patience, settings, screen).await?;
        return Ok(tell(&findings, screen));
    }
    let mut findings = settings::look(settings);
    findings.extend(bounded(patience, "database", database::look(settings)).await);
    findings.extend(bounded(patience, "stack", reach::look(settings)).await);
    findings.extend(bounded(patience, "Notion", notion::look(settings)).await);
    Ok(tell(&findings, screen))
}

async fn bounded(
    patience: Duration,
    what: &'static str,
    look: impl Future<Output = Vec<Finding>>,
) -> Vec<Finding> {
    let looked = tokio::time::timeout(patience, look).await;
    looked.unwrap_or_else(|_| {
        let said = format!("no answer within {} s", patience.as_secs());
        vec![Finding::new(what, Came::Wrong(said))]
    })
}

fn tell(findings: &[Finding], screen: &Screen) -> Exit {
    let is_wrong = |finding: &&Finding| matches!(finding.came, Came::Wrong(_));
    let first = findings.iter().find(is_wrong);
    match screen.output() {
        Output::Json => screen.json(&json!({
            "ok": first.is_none(),
            "look_first": first.map(|finding| finding.what),
            "looks": findings.iter().map(Finding::json).collect::<Vec<_>>(),
        })),
        Output::Text => {
            let row = |finding: &Finding| {
                let (came, said) = finding.words();
                vec![finding.what.to_owned(), came.to_owned(), said.to_owned()]
            };
            let rows: Vec<_> = findings.iter().map(row).collect();
            table(screen, &["LOOK", "CAME", "SAID"], &rows);
        }
    }
    match first {
        None => Exit::Ok,
        Some(first) => {
            screen.say(&format!(
                "look first at {}: {}",
                first.what,
                first.words().1
            ));
            Exit::Failed
        }
    }
}
