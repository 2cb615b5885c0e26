//! `opsctl load-test`: rounds of real jobs by several callers at once, what they took, what they left, and a verdict.

mod leftovers;
mod report;
mod round;
mod verdict;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jobs::Name;

use crate::client::ControlPlane;
use crate::dev::Stack;
use crate::error::Error;
use crate::exit::Exit;
use crate::screen::{Output, Screen};
use crate::settings::{Access, Settings};
use leftovers::{Leaked, Temporary};
use report::Report;
use round::Round;
pub(crate) use verdict::Limits;

#[derive(Debug, Args)]
pub(crate) struct LoadTest {
    /// The job type that is run; its command is in docs/operations.md
    #[arg(long = "type", value_name = "TYPE", default_value = "smoke")]
    job_type: Name,
    /// Rounds that count
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Rounds before them, which do not
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    warm_up: u32,
    /// Jobs of a round
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    jobs: u32,
    /// Callers at once; each waits for its job before it sends the next
    #[arg(long, value_name = "COUNT", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1000))]
    concurrency: u32,
    /// A job that has not ended by then counts as not succeeded
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    patience: u32,
    /// Processes of jobs that are still there so long after the last one ended are leaked
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=600))]
    grace: u32,
    /// The folder into which result.json and result.md are written
    #[arg(long, value_name = "DIR", default_value = "load-test")]
    results: PathBuf,
    /// The folder of temporary files that is looked at before and after; without it, TMPDIR
    #[arg(long, value_name = "DIR")]
    temporary: Option<PathBuf>,
    #[command(flatten)]
    limits: verdict::Flags,
}

/// What came of all rounds on a stack that still served.
struct Run {
    rounds: Vec<Round>,
    leaked: Option<Vec<Leaked>>,
}

pub(crate) async fn run(
    test: LoadTest,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let limits = test.limits.or(settings.load_test_limits()?);
    let folder = match &test.temporary {
        Some(folder) => folder.clone(),
        None => settings.surroundings()?.temp_dir,
    };
    // A folder that cannot be written is told before the work, not after it.
    std::fs::create_dir_all(&test.results).map_err(Error::io("make", &test.results))?;
    let work = async |stop: service::Stop| match settings.given_access()? {
        Some(access) => on_given(&test, &folder, limits, access, screen, &stop).await,
        None => on_own(&test, &folder, limits, settings, screen, &stop).await,
    };
    let ended = service::until_signals(work).await;
    ended.map_err(|source| Error::Io {
        doing: "listen for signals".to_owned(),
        source,
    })?
}

async fn on_given(
    test: &LoadTest,
    folder: &Path,
    limits: Limits,
    access: Access,
    screen: &Screen,
    stop: &service::Stop,
) -> Result<Exit, Error> {
    let before = Temporary::of(folder);
    let run = rounds(test, access, screen, stop).await?;
    let after = Temporary::of(folder);
    conclude(test, limits, run, (before, after), &[], screen)
}

/// Here what the whole stack leaves is counted too, its database among it.
async fn on_own(
    test: &LoadTest,
    folder: &Path,
    limits: Limits,
    settings: &Settings,
    screen: &Screen,
    stop: &service::Stop,
) -> Result<Exit, Error> {
    let before = Temporary::of(folder);
    let stack = Stack::start(settings, screen).await?;
    let done = rounds(test, stack.access(), screen, stop).await;
    let troubles = stack.troubles();
    let stopped = stack.stop().await;
    // What went wrong first is what counts.
    let run = done?;
    stopped?;
    let after = Temporary::of(folder);
    conclude(test, limits, run, (before, after), &troubles, screen)
}

async fn rounds(
    test: &LoadTest,
    access: Access,
    screen: &Screen,
    stop: &service::Stop,
) -> Result<Run, Error> {
    tokio::select! {
        biased;
        () = stop.requested() => Err(Error::Failed("stopped before every round was done".to_owned())),
        done = all_rounds(test, access, screen) => done,
    }
}

async fn all_rounds(test: &LoadTest, access: Access, screen: &Screen) -> Result<Run, Error> {
    let control_plane = ControlPlane::new(access)?;
    let mut rounds = Vec::new();
    for number in 1..=test.warm_up + test.rounds {
        let is_warm_up = number <= test.warm_up;
        let round = round::run(test, &control_plane, is_warm_up).await;
        screen.say(&format!("round {number}: {}", round.told()));
        rounds.push(round);
    }
    let ids = rounds.iter().flat_map(Round::ids).collect();
    let grace = Duration::from_secs(test.grace.into());
    let leaked = leftovers::leaked(&ids, grace).await;
    Ok(Run { rounds, leaked })
}

fn conclude(
    test: &LoadTest,
    limits: Limits,
    run: Run,
    temporary: (Temporary, Temporary),
    troubles: &[String],
    screen: &Screen,
) -> Result<Exit, Error> {
    let report = Report::new(test, limits, run, temporary);
    let folder = &test.results;
    report.write(folder)?;
    match screen.output() {
        Output::Json => screen.json(&report.json()),
        Output::Text => screen.line(report.text().trim_end()),
    }
    screen.say(&format!("written to {}", folder.display()));
    let Some(first) = report.look_first() else {
        return Ok(Exit::Ok);
    };
    screen.say(&format!("look first at {first}"));
    if !troubles.is_empty() {
        screen.say("the services logged:");
        troubles.iter().for_each(|line| screen.say(line));
    }
    Ok(Exit::Failed)
}
