//! A set-up of one's own that goes with the command that needs it: database, runner, control plane, every feature on.

use std::path::PathBuf;

use super::database::Database;
use super::keys::Keys;
use super::log_file;
use super::services::{self, Ports, Services, Start};
use service::Secret;

use crate::error::Error;
use crate::screen::Screen;
use crate::settings::{Access, Settings};

/// More of what went wrong would bury what is to be looked at first.
const TROUBLES: usize = 10;

/// Whoever proves something waits for every job: polls and renewals come sooner than usual.
const QUICK: [(&str, &str); 2] = [
    ("RUNNER_POLL_INTERVAL_SECONDS", "1"),
    ("RUNNER_LEASE_SECONDS", "6"),
];

/// Everything that serves, on free ports.
#[derive(Debug)]
pub(crate) struct Stack {
    database: Database,
    services: Services,
    keys: Keys,
    log: PathBuf,
}

impl Stack {
    /// Starts everything; what was started before something failed is stopped again.
    pub(crate) async fn start(settings: &Settings, screen: &Screen) -> Result<Self, Error> {
        Self::start_with(settings, screen, None).await
    }

    /// The same, with a private database whatever is set, and with the job type of `opsctl doctor --canary`.
    pub(crate) async fn start_with_canary(
        settings: &Settings,
        screen: &Screen,
        secret: &Secret,
    ) -> Result<Self, Error> {
        Self::start_with(settings, screen, Some(secret)).await
    }

    async fn start_with(
        settings: &Settings,
        screen: &Screen,
        canary: Option<&Secret>,
    ) -> Result<Self, Error> {
        let surroundings = settings.surroundings()?;
        let given = match canary {
            None => settings.optional_database_url()?,
            Some(_) => None,
        };
        let database = Database::open(None, given, &surroundings, screen).await?;
        let added = canary.map_or(Ok(()), |secret| {
            let table = crate::doctor::canary_type(secret);
            services::with_job_type(&database.folder(), "canary", &table)
        });
        let served = match added {
            Ok(()) => serve(&database, settings, screen).await,
            Err(error) => Err(error),
        };
        match served {
            Ok((services, keys, log)) => Ok(Self {
                database,
                services,
                keys,
                log,
            }),
            Err(error) => {
                // What went wrong first is what counts.
                let _ = database.close().await;
                Err(error)
            }
        }
    }

    pub(crate) fn access(&self) -> Access {
        self.services.access(&self.keys)
    }

    pub(crate) fn database_url(&self) -> &Secret {
        self.database.url()
    }

    /// All that the services have logged.
    pub(crate) fn whole_log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last warnings and errors that the services logged; they are gone with the stack.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        troubles(&log)
    }

    /// Ends everything, and leaves nothing behind.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        let stopped = self.services.stop().await;
        let closed = self.database.close().await;
        stopped.and(closed)
    }
}

async fn serve(
    database: &Database,
    settings: &Settings,
    screen: &Screen,
) -> Result<(Services, Keys, PathBuf), Error> {
    let folder = database.folder();
    let log = log_file::start(&folder, &settings.log()?)?;
    let keys = Keys::of(&folder)?;
    database.migrate(screen).await?;
    let mut handed_on = settings.handed_on()?;
    let quick = QUICK.map(|(name, value)| (name.to_owned(), value.to_owned()));
    handed_on.0.extend(quick);
    let start = Start {
        ports: Ports {
            control_plane: Some(0),
            runner: Some(0),
        },
        keys: &keys,
        database: database.url(),
        folder: &folder,
        work_dir: None,
        handed_on: &handed_on,
        notion: &[],
    };
    let services = Services::start(start, screen).await?;
    Ok((services, keys, log))
}

fn troubles(log: &str) -> Vec<String> {
    let is_trouble =
        |line: &&str| line.contains(r#""level":"WARN""#) || line.contains(r#""level":"ERROR""#);
    let mut last: Vec<String> = log
        .lines()
        .rev()
        .filter(is_trouble)
        .take(TROUBLES)
        .map(str::to_owned)
        .collect();
    last.reverse();
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_the_last_warnings_and_errors_in_their_order() {
        let line = |level: &str, number: usize| format!(r#"{{"level":"{level}","n":{number}}}"#);
        let mut log = vec![line("INFO", 0), line("ERROR", 1)];
        log.extend((2..13).map(|number| line("WARN", number)));
        let told = troubles(&log.join("\n"));
        assert_eq!(told.len(), TROUBLES);
        assert_eq!(told.first(), Some(&line("WARN", 3)));
        assert_eq!(told.last(), Some(&line("WARN", 12)));
    }
}
