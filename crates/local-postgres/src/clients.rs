//! The programs that make and read dumps: `pg_dump`, `pg_restore`, and `psql`, which takes what the latter writes. No password
//! reaches a command line. They need no server here, and run as whoever calls.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use crate::Error;
use crate::blocking::blocking;
use crate::files::last_lines;
use crate::programs::{known_places, major};
use crate::url::without_password;

/// The three of one version.
#[derive(Clone, Debug)]
pub struct Clients {
    directory: PathBuf,
    version: String,
    path: Option<OsString>,
}

impl Clients {
    /// Finds programs that can dump a server of this major version: the same version if there is one, else the oldest newer.
    ///
    /// Looks in `only` if given, else on `path` and in the places where packages put them.
    pub fn find(only: Option<&Path>, path: Option<&OsStr>, server: u32) -> Result<Self, Error> {
        let places: Vec<PathBuf> = match only {
            Some(only) => vec![only.to_path_buf()],
            None => path
                .iter()
                .flat_map(std::env::split_paths)
                .filter(|entry| entry.is_absolute())
                .chain(known_places())
                .collect(),
        };
        let mut found: Vec<(u32, Self)> = places
            .iter()
            .filter_map(|place| Self::look_at(place, path))
            .collect();
        found.retain(|(major, _)| *major >= server);
        // What a newer one writes, an older server may not take.
        found.sort_by_key(|(major, _)| *major);
        match found.into_iter().next() {
            Some((_, clients)) => Ok(clients),
            None => Err(Error::NoClients {
                server,
                looked: places,
            }),
        }
    }

    fn look_at(place: &Path, path: Option<&OsStr>) -> Option<(u32, Self)> {
        let has = |name: &str| place.join(name).is_file();
        if !(has("pg_dump") && has("pg_restore") && has("psql")) {
            return None;
        }
        let mut clients = Self {
            directory: place.to_path_buf(),
            version: String::new(),
            path: path.map(OsStr::to_os_string),
        };
        let output = clients.command("pg_dump").arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        clients.version = text.split_whitespace().nth(2)?.to_owned();
        Some((major(&clients.version)?, clients))
    }

    /// The version in the program's own words, like `15.18`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Writes a dump of one snapshot, which somebody holds, into this file.
    pub async fn dump(&self, url: &str, snapshot: &str, to: File) -> Result<(), Error> {
        let mut command = self.connected("pg_dump", url);
        command
            .args(["--format=custom", "--compress=3", "--no-password"])
            .args(["--lock-wait-timeout=10s", "--snapshot", snapshot])
            .stdout(Stdio::from(to));
        blocking(move || finished("pg_dump", command).map(drop)).await
    }

    /// The lines of the dump's table of contents.
    pub async fn contents(&self, dump: &Path) -> Result<Vec<String>, Error> {
        let mut command = self.command("pg_restore");
        command.arg("--list").arg(dump);
        let text = blocking(move || finished("pg_restore", command)).await?;
        let lines = text.lines().filter(|line| !line.starts_with(';'));
        Ok(lines.map(str::to_owned).collect())
    }

    /// The rows of one table in the dump, as `copy` writes them.
    pub async fn rows(&self, dump: &Path, table: &str) -> Result<Vec<String>, Error> {
        let mut command = self.command("pg_restore");
        command
            .args(["--data-only", "--file=-", "--table", table])
            .arg(dump);
        let text = blocking(move || finished("pg_restore", command)).await?;
        let rows = text
            .lines()
            .skip_while(|line| !line.starts_with("COPY "))
            .skip(1)
            .take_while(|line| *line != "\\.");
        Ok(rows.map(str::to_owned).collect())
    }

    /// Fills an empty database from a dump and then runs `after`, all in one transaction: nobody ever sees it without that.
    /// Gives what `after` printed. Owners and grants are not taken over.
    pub async fn restore(&self, dump: &Path, url: &str, after: String) -> Result<String, Error> {
        let mut reading = self.command("pg_restore");
        reading
            .args([
                "--no-owner",
                "--no-privileges",
                "--exit-on-error",
                "--file=-",
            ])
            .arg(dump)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut writing = self.connected("psql", url);
        writing
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        blocking(move || restored(reading, writing, &after)).await
    }

    /// A program that is connected to the database.
    fn connected(&self, program: &str, url: &str) -> Command {
        let (url, password) = without_password(url);
        let mut command = self.command(program);
        command.arg("-d").arg(url).env("PGCONNECT_TIMEOUT", "10");
        command.envs(password.map(|password| ("PGPASSWORD", password)));
        command
    }

    fn command(&self, program: &str) -> Command {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the file that starts the programs of dumps"
        )]
        let mut command = Command::new(self.directory.join(program));
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env(
                "PATH",
                self.path.clone().unwrap_or_else(|| "/usr/bin:/bin".into()),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }
}

fn finished(program: &'static str, mut command: Command) -> Result<String, Error> {
    let output = command
        .stderr(Stdio::piped())
        .spawn()
        .and_then(Child::wait_with_output)
        .map_err(started(program))?;
    judged(program, &output)
}

fn started(program: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Io {
        doing: format!("run {program}"),
        source,
    }
}

fn judged(program: &'static str, output: &Output) -> Result<String, Error> {
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::Program {
            program,
            output: last_lines(&String::from_utf8_lossy(&output.stderr)),
        })
    }
}

/// Lets `psql` commit only once `pg_restore` has come to its end in order.
fn restored(mut reading: Command, mut writing: Command, after: &str) -> Result<String, Error> {
    let mut writer = writing.spawn().map_err(started("psql"))?;
    let mut reader = match reading.spawn() {
        Ok(reader) => reader,
        Err(source) => {
            end(writer);
            return Err(started("pg_restore")(source));
        }
    };
    let (Some(mut from), Some(mut to)) = (reader.stdout.take(), writer.stdin.take()) else {
        end(reader);
        end(writer);
        return Err(started("psql")(std::io::ErrorKind::BrokenPipe.into()));
    };
    // What they say is read while they work, so that neither waits for us.
    let said_by_reader = reader.stderr.take().map(|mut said| {
        thread::spawn(move || {
            let mut text = String::new();
            said.read_to_string(&mut text)
                .map(|_| text)
                .unwrap_or_default()
        })
    });
    let answering = thread::scope(|scope| {
        let copying = scope.spawn(move || {
            let copied = to
                .write_all(b"begin;\n")
                .and_then(|()| std::io::copy(&mut from, &mut to).map(drop));
            drop(from);
            let read = reader.wait();
            let complaint = said_by_reader
                .and_then(|said| said.join().ok())
                .unwrap_or_default();
            match (copied, read) {
                (Ok(()), Ok(status)) if status.success() => {
                    let ended = to.write_all(format!("\n{after}\ncommit;\n").as_bytes());
                    (ended, None)
                }
                // Not a word more: what was begun and never committed is rolled back.
                (Ok(()), _) => (Ok(()), Some(complaint)),
                (Err(broken), _) => (Err(broken), None),
            }
        });
        let output = writer.wait_with_output();
        (copying.join(), output)
    });
    let (copied, output) = answering;
    let output = output.map_err(started("psql"))?;
    match copied {
        Ok((_, Some(complaint))) => Err(Error::Program {
            program: "pg_restore",
            output: last_lines(&complaint),
        }),
        Ok((Ok(()), None)) => judged("psql", &output),
        Ok((Err(broken), None)) => judged("psql", &output).and(Err(started("psql")(broken))),
        Err(_) => Err(started("psql")(std::io::ErrorKind::Other.into())),
    }
}

/// Whatever it was at, nobody waits for it any more.
fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}
