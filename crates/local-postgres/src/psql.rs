//! Administration of a server through `psql`: databases made, copied and dropped. No password reaches a command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::files::last_lines;
use crate::url::without_password;
use crate::{Error, Programs};

/// A server that can be administered.
#[derive(Clone, Debug)]
pub(crate) struct Psql {
    program: PathBuf,
    path: Option<OsString>,
}

impl Psql {
    pub(crate) fn of(programs: &Programs, path: Option<OsString>) -> Result<Self, Error> {
        Ok(Self {
            program: programs.psql()?.to_path_buf(),
            path,
        })
    }

    /// The `psql` on PATH, for a server that is not ours.
    pub(crate) fn on(path: Option<OsString>) -> Result<Self, Error> {
        let found = path
            .iter()
            .flat_map(std::env::split_paths)
            .chain([PathBuf::from("/usr/bin"), PathBuf::from("/usr/local/bin")]);
        let program = found
            .map(|directory| directory.join("psql"))
            .find(|program| program.is_file());
        match program {
            Some(program) => Ok(Self { program, path }),
            None => Self::of(&Programs::find(None, path.as_deref())?, path),
        }
    }

    /// A command that is connected to the database and ends at the first error.
    pub(crate) fn command(&self, url: &str) -> Command {
        let (url, password) = without_password(url);
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the file that starts psql"
        )]
        let mut command = Command::new(&self.program);
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(url);
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("PGCONNECT_TIMEOUT", "10")
            .env(
                "PATH",
                self.path.clone().unwrap_or_else(|| "/usr/bin:/bin".into()),
            );
        command.envs(password.map(|password| ("PGPASSWORD", password)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs statements, each in its own transaction, and returns what they print.
    pub(crate) fn run(&self, url: &str, statements: &[&str]) -> Result<String, Error> {
        let mut command = self.command(url);
        for statement in statements {
            command.args(["-c", statement]);
        }
        finished(command)
    }

    /// Runs a file in one transaction.
    pub(crate) fn run_file(&self, url: &str, file: &Path) -> Result<(), Error> {
        let mut command = self.command(url);
        command.args(["-1", "-f"]).arg(file);
        finished(command).map(drop)
    }
}

fn finished(mut command: Command) -> Result<String, Error> {
    let output = command.output().map_err(|source| Error::Io {
        doing: "start psql".to_owned(),
        source,
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(Error::Program {
        program: "psql",
        output: last_lines(&String::from_utf8_lossy(&output.stderr)),
    })
}

/// A database name that needs no quotes.
pub(crate) fn checked_name(name: &str) -> Result<&str, Error> {
    let letters = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let begins = name
        .bytes()
        .next()
        .is_some_and(|byte| !byte.is_ascii_digit());
    if letters && begins && name.len() <= 63 {
        Ok(name)
    } else {
        Err(Error::BadName {
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_need_quotes_is_refused() {
        for good in ["a", "ops_jobs", "_1"] {
            assert!(checked_name(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "A", "a-b", "a\"b", "a;drop", &"a".repeat(64)] {
            assert!(checked_name(bad).is_err(), "{bad}");
        }
    }
}
