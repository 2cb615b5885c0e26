//! `local-postgres run`: a command with a fresh, migrated database in DATABASE_URL. Keeps nothing.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use local_postgres::{Cluster, Options};

const USAGE: &str = "usage: local-postgres run [--migrations DIR] -- COMMAND [ARGUMENT...]";
const DATABASE: &str = "ops_jobs";

struct Run {
    migrations: Option<PathBuf>,
    command: OsString,
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    let Some(run) = parse(std::env::args_os().skip(1)) else {
        say(USAGE);
        return ExitCode::from(2);
    };
    let ended = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(execute(run)));
    match ended {
        Ok(status) => ExitCode::from(exit_code(status)),
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                text.push_str(&format!(": {inner}"));
                cause = inner.source();
            }
            say(&text);
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Run> {
    arguments.next().filter(|word| word == "run")?;
    let mut migrations = None;
    loop {
        match arguments.next()?.to_str()? {
            "--migrations" => migrations = Some(PathBuf::from(arguments.next()?)),
            "--" => break,
            _ => return None,
        }
    }
    Some(Run {
        migrations,
        command: arguments.next()?,
        arguments: arguments.collect(),
    })
}

async fn execute(run: Run) -> Result<ExitStatus, Box<dyn Error>> {
    let cluster = Cluster::start(options()).await?;
    cluster.create_database(DATABASE).await?;
    if let Some(directory) = &run.migrations {
        for file in migrations(directory)? {
            cluster.run_file(DATABASE, &file).await?;
        }
    }
    let url = cluster.url(DATABASE);
    #[expect(
        clippy::disallowed_methods,
        reason = "runs the command that it is given"
    )]
    let mut command = Command::new(&run.command);
    command.args(run.arguments).env("DATABASE_URL", url);
    let status = tokio::task::spawn_blocking(move || command.status()).await?;
    cluster.stop().await?;
    status
        .map_err(|error| format!("could not run {}: {error}", run.command.to_string_lossy()).into())
}

fn options() -> Options {
    #[expect(
        clippy::disallowed_methods,
        reason = "a program of its own: it hands its surroundings to the library"
    )]
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let mut options = Options::ephemeral();
    options.path = variable("PATH");
    options.home = variable("HOME").map(PathBuf::from);
    options.xdg_state_home = variable("XDG_STATE_HOME").map(PathBuf::from);
    options.temp_dir = variable("TMPDIR").map_or(options.temp_dir, PathBuf::from);
    options
}

fn migrations(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let entries = fs::read_dir(directory)
        .map_err(|error| format!("could not read {}: {error}", directory.display()))?;
    let mut files = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| file.to_string_lossy().ends_with(".up.sql"));
    if files.is_empty() {
        return Err(format!("{} has no *.up.sql", directory.display()).into());
    }
    files.sort();
    Ok(files)
}

/// As a shell says it: 128 and the signal for a command that was killed.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn say(text: &str) {
    // Nowhere is left to complain to.
    let _ = writeln!(std::io::stderr(), "local-postgres: {text}");
}
