//! `opsctl dev`: everything on this machine, with a real first job. Puts the pieces in order; each piece has its file.

mod banner;
mod database;
mod first_job;
mod keys;
mod log_file;
mod reset;
mod services;
mod stack;
mod state;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Subcommand};
use serde_json::Value;
use service::Stop;

use crate::error::Error;
use crate::exit::Exit;
use crate::jobs::status;
use crate::screen::{Output, Screen};
use crate::settings::{Settings, Surroundings};
use database::Database;
use keys::{KeyFiles, Keys};
use services::{Ports, RUNS, Services, Start};
pub(crate) use stack::Stack;
use state::State;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Dev {
    /// Keep nothing: a database of its own that goes with the command
    #[arg(long, conflicts_with = "state")]
    ephemeral: bool,
    /// End after the first job: exit code 0 if it succeeded, else 1
    #[arg(long)]
    exit: bool,
    /// The control plane's port; without it 8000, or a free one; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    control_plane_port: Option<u16>,
    /// The runner's port; without it 8010, or a free one; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    runner_port: Option<u16>,
    /// Where database, keys and logs are kept: /var/lib/ops-jobs for root, else ops-jobs in the user's state folder
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Remove the private database, the keys and the logs
    Reset(reset::Reset),
}

pub(crate) async fn run(dev: Dev, settings: &Settings, screen: &Screen) -> Result<Exit, Error> {
    let surroundings = settings.surroundings()?;
    if let Some(Action::Reset(reset)) = dev.action {
        return reset::run(reset, &surroundings, screen).await;
    }
    let work = |stop| work(&dev, settings, &surroundings, screen, stop);
    let ended = service::until_signals(work).await;
    ended.map_err(|source| Error::Io {
        doing: "listen for signals".to_owned(),
        source,
    })?
}

/// Starts the database, works on it, and stops it, whatever came of the work.
async fn work(
    dev: &Dev,
    settings: &Settings,
    surroundings: &Surroundings,
    screen: &Screen,
    stop: Stop,
) -> Result<Exit, Error> {
    let begun = Instant::now();
    let state = if dev.ephemeral {
        None
    } else {
        Some(State::open(dev.state.as_deref(), surroundings, screen)?)
    };
    let given = settings.optional_database_url()?;
    let database = Database::open(state.as_ref(), given, surroundings, screen).await?;
    let folder = state
        .as_ref()
        .map_or_else(|| database.folder(), |state| state.folder().to_path_buf());
    let done = match SetUp::start(dev, settings, &database, folder, screen).await {
        Ok(set_up) => set_up.serve(dev, begun, screen, &stop).await,
        Err(error) => Err(error),
    };
    let closed = database.close().await;
    // What went wrong first is what counts.
    let exit = done?;
    closed.map(|()| exit)
}

/// A development set-up that serves.
struct SetUp {
    services: Services,
    keys: Keys,
    files: KeyFiles,
    log: PathBuf,
    psql: String,
}

impl SetUp {
    async fn start(
        dev: &Dev,
        settings: &Settings,
        database: &Database,
        folder: PathBuf,
        screen: &Screen,
    ) -> Result<Self, Error> {
        let log = log_file::start(&folder, &settings.log()?)?;
        let keys = Keys::of(&folder)?;
        database.migrate(screen).await?;
        let start = Start {
            ports: Ports {
                control_plane: dev.control_plane_port,
                runner: dev.runner_port,
            },
            keys: &keys,
            database: database.url(),
            folder: &folder,
            work_dir: (!dev.ephemeral).then(|| folder.join(RUNS)),
            handed_on: &settings.handed_on()?,
            notion: &settings.notion_of_dev()?,
        };
        let services = Services::start(start, screen).await?;
        let files = keys.keep(&folder, &services)?;
        let psql = database.psql();
        Ok(Self {
            services,
            keys,
            files,
            log,
            psql,
        })
    }

    /// Shows the first job, then serves until stopping is requested, unless that job was all that was wanted.
    async fn serve(
        self,
        dev: &Dev,
        begun: Instant,
        screen: &Screen,
        stop: &Stop,
    ) -> Result<Exit, Error> {
        let access = self.services.access(&self.keys);
        let first = tokio::select! {
            biased;
            () = stop.requested() => None,
            first = first_job::run(access, screen) => Some(first),
        };
        if dev.exit {
            self.services.stop().await?;
            return end_with(first, screen);
        }
        // A first job that could not be sent is told, and leaves everything there to look at.
        if let Some(Err(error)) = &first {
            screen.complain(error);
        }
        if !stop.is_requested() {
            banner::show(&self, begun.elapsed(), screen);
        }
        self.services.run_until(stop).await?;
        screen.say("stopped");
        Ok(Exit::Ok)
    }
}

/// How `--exit` ends: well, if the first job did.
fn end_with(first: Option<Result<Value, Error>>, screen: &Screen) -> Result<Exit, Error> {
    let Some(job) = first.transpose()? else {
        return Ok(Exit::Failed);
    };
    if screen.output() == Output::Json {
        screen.json(&job);
    }
    Ok(if status(&job) == "succeeded" {
        Exit::Ok
    } else {
        Exit::Failed
    })
}
