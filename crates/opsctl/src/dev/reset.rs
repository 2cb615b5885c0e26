//! `opsctl dev reset`: removes what `opsctl dev` keeps. Stops nothing that runs, and touches no given database.

use std::fs;
use std::io::{BufRead, ErrorKind, IsTerminal};
use std::path::PathBuf;

use clap::Args;

use super::database;
use super::keys::{HEADER_FILE, KEYS_FILE};
use super::log_file::{LOG_FILE, OLD_LOG_FILE};
use super::services::{RUNNER_FILE, RUNS, clear};
use super::state::State;
use crate::error::Error;
use crate::exit::Exit;
use crate::screen::Screen;
use crate::settings::Surroundings;

#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// Ask nothing
    #[arg(long)]
    yes: bool,
    /// The state folder, if it is not the usual one
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

pub(super) async fn run(
    reset: Reset,
    surroundings: &Surroundings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let state = State::open(reset.state.as_deref(), surroundings, screen)?;
    let folder = state.folder().to_path_buf();
    if !reset.yes
        && !confirmed(
            &format!(
                "Remove the database, keys and logs in {}? [y/N]",
                folder.display()
            ),
            screen,
        )?
    {
        screen.say("nothing was removed");
        return Ok(Exit::Failed);
    }
    local_postgres::reset(database::options(Some(&state), surroundings)).await?;
    clear(&folder.join(RUNS))?;
    for name in [KEYS_FILE, HEADER_FILE, RUNNER_FILE, LOG_FILE, OLD_LOG_FILE] {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    screen.tell(&format!(
        "removed the database, keys and logs in {}",
        folder.display()
    ));
    Ok(Exit::Ok)
}

fn confirmed(question: &str, screen: &Screen) -> Result<bool, Error> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::Usage(
            "nobody is there to be asked: add --yes if you mean it".to_owned(),
        ));
    }
    screen.say(question);
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.map_err(|source| Error::Io {
        doing: "read the answer".to_owned(),
        source,
    })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
