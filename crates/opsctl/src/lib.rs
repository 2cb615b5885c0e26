#![doc = include_str!("../README.md")]

mod answer;
mod artifacts;
mod backup;
mod cli;
mod client;
mod completions;
mod db;
mod dev;
mod doctor;
mod drill;
mod error;
mod exit;
mod figures;
mod fleet;
mod follow;
mod gates;
mod jobs;
mod keys;
mod load_test;
mod logs;
mod notion;
mod reference;
mod restore;
mod retention;
mod run;
mod runners;
mod schedules;
mod screen;
mod settings;
mod smoke;
mod table;
mod transfer;
mod verify;
mod views;
mod webhooks;

pub use cli::{Cli, command};
pub use error::Error;
pub use exit::Exit;

use std::ffi::OsString;

use clap::FromArgMatches;
use service::Environment;

use cli::Group;
use screen::Screen;
use settings::Settings;

/// Does what the arguments ask for and says how it ended; everything that is to be said has been.
///
/// `environment` is the process's, or one made up by a test.
pub async fn run(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> Exit {
    let parsed = command()
        .try_get_matches_from(arguments)
        .and_then(|found| Cli::from_arg_matches(&found));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Where nobody reads, the exit code is all that can be said.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::WrongUsage
            } else {
                Exit::Ok
            };
        }
    };
    let settings = Settings::new(cli.config.clone(), environment);
    let screen = match settings.screen(cli.output, cli.color) {
        Ok(screen) => screen,
        Err(error) => return Screen::plain().complain(&error.into()),
    };
    match dispatch(cli.group, &settings, &screen).await {
        Ok(exit) => exit,
        Err(error) => screen.complain(&error),
    }
}

async fn dispatch(group: Group, settings: &Settings, screen: &Screen) -> Result<Exit, Error> {
    match group {
        Group::Dev(command) => dev::run(command, settings, screen).await,
        Group::Db(command) => db::run(command, settings, screen).await,
        Group::Verify => verify::run(settings, screen).await,
        Group::Jobs(command) => self::jobs::run(command, settings, screen).await,
        Group::Gates(command) => gates::run(command, settings, screen).await,
        Group::Logs(command) => logs::run(command, settings, screen).await,
        Group::Artifacts(command) => artifacts::run(command, settings, screen).await,
        Group::Run(command) => self::run::run(command, settings, screen).await,
        Group::Schedules(command) => schedules::run(command, settings, screen).await,
        Group::Webhooks(command) => self::webhooks::run(command, settings, screen).await,
        Group::Notion(command) => self::notion::run(command, settings, screen).await,
        Group::Smoke(command) => smoke::run(command, settings, screen).await,
        Group::LoadTest(command) => load_test::run(command, settings, screen).await,
        Group::Retention(command) => retention::run(command, settings, screen).await,
        Group::Doctor(command) => doctor::run(command, settings, screen).await,
        Group::Fleet(command) => fleet::run(command, settings, screen).await,
        Group::Runners { command } => {
            let command = command.unwrap_or(runners::Command::List);
            runners::run(command, settings, screen).await
        }
        Group::Keys(command) => keys::run(command, settings, screen).await,
        Group::Meta => views::meta(settings, screen).await,
        Group::Reference(command) => reference::run(&command, screen),
        Group::Completions { shell } => completions::completions(shell, screen),
        Group::Man => completions::man(screen),
    }
}
