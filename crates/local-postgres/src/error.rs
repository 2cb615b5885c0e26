//! What can go wrong, each with what to do about it. Must hold no password and no connection string.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

const INSTALL: &str = "install it: `apt install postgresql` (Debian, Ubuntu), `dnf install postgresql-server` (Fedora), \
`apk add postgresql` (Alpine), `brew install postgresql` (macOS); or set DATABASE_URL to a server that you have";

/// Why a private PostgreSQL could not be found, started, used or stopped.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// No directory with both `postgres` and `initdb` of version 14 or newer was found.
    NoPrograms {
        /// The directories that were looked at.
        looked: Vec<PathBuf>,
    },
    /// PostgreSQL is not installed, and it could not be downloaded either.
    Download {
        /// What the download failed on.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The directory that was named does not hold a PostgreSQL that can be used.
    BadPrograms {
        /// The directory.
        directory: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// `psql` is neither beside the server's programs nor on PATH.
    NoPsql,
    /// No `pg_dump`, `pg_restore` and `psql` that go with a server of this version.
    NoClients {
        /// The server's major version.
        server: u32,
        /// The directories that were looked at.
        looked: Vec<PathBuf>,
    },
    /// The data were made by a major version whose programs are not here.
    OtherMajor {
        /// The data directory.
        data: PathBuf,
        /// The major version that made it.
        made_by: u32,
        /// The major versions that were found.
        found: Vec<u32>,
    },
    /// There is no user that the server could run as.
    NoUser {
        /// Who was asked for, or why none fits.
        problem: String,
    },
    /// The user that the server runs as cannot enter a directory.
    CannotEnter {
        /// The user.
        user: String,
        /// The first directory that it cannot enter.
        directory: PathBuf,
        /// The directory that is needed.
        needed: PathBuf,
    },
    /// A directory that must be private to the server's user is not.
    NotPrivate {
        /// The directory.
        directory: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A server that this library did not start runs on the data.
    ForeignServer {
        /// Its process id.
        pid: u32,
        /// The data directory.
        data: PathBuf,
    },
    /// Another living process owns the cluster.
    InUse {
        /// The cluster's folder.
        home: PathBuf,
    },
    /// A program of PostgreSQL failed.
    Program {
        /// Its name.
        program: &'static str,
        /// The end of what it wrote.
        output: String,
    },
    /// The server ended before it was ready, or was not ready in time.
    NotReady {
        /// What happened, and the end of the server's log.
        problem: String,
    },
    /// A database name or template key has other letters than `a-z`, `0-9` and `_`, or is too long.
    BadName {
        /// The name.
        name: String,
    },
    /// The caller's function that fills a template database failed.
    Template {
        /// Its error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A file or process operation failed.
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The work was cut off, because the runtime shut down or the work panicked.
    Interrupted {
        /// Which of the two.
        source: tokio::task::JoinError,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing: format!("{doing} {}", path.display()),
            source,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPrograms { looked } => {
                write!(
                    f,
                    "no PostgreSQL 14 or newer found; {INSTALL}; looked at: {}",
                    list(looked)
                )
            }
            Self::Download { .. } => write!(
                f,
                "PostgreSQL is not installed and could not be downloaded; {INSTALL}"
            ),
            Self::BadPrograms { directory, problem } => {
                write!(
                    f,
                    "{} has no usable PostgreSQL: {problem}",
                    directory.display()
                )
            }
            Self::NoPsql => write!(
                f,
                "psql was not found beside postgres or on PATH; install the PostgreSQL client"
            ),
            Self::NoClients { server, looked } => write!(
                f,
                "no pg_dump, pg_restore and psql of version {server} or newer found; install the client of PostgreSQL {server} \
                 (`apt install postgresql-client-{server}`); looked at: {}",
                list(looked)
            ),
            Self::OtherMajor {
                data,
                made_by,
                found,
            } => write!(
                f,
                "{} was made by PostgreSQL {made_by}, found {}; install {made_by}, or reset the data",
                data.display(),
                majors(found)
            ),
            Self::NoUser { problem } => write!(
                f,
                "PostgreSQL cannot run as root, and {problem}; set DATABASE_URL to a server that you have"
            ),
            Self::CannotEnter {
                user,
                directory,
                needed,
            } => write!(
                f,
                "user {user}, who runs PostgreSQL, cannot enter {} on the way to {}; choose another folder",
                directory.display(),
                needed.display()
            ),
            Self::NotPrivate { directory, problem } => {
                write!(
                    f,
                    "{} must be private to the user who runs PostgreSQL, but {problem}",
                    directory.display()
                )
            }
            Self::ForeignServer { pid, data } => {
                write!(
                    f,
                    "process {pid} is a server on {} that was started by other means; stop it first",
                    data.display()
                )
            }
            Self::InUse { home } => {
                write!(
                    f,
                    "another process is using the cluster in {}; stop it first",
                    home.display()
                )
            }
            Self::Program { program, output } => write!(f, "{program} failed: {output}"),
            Self::NotReady { problem } => write!(f, "PostgreSQL did not become ready: {problem}"),
            Self::BadName { name } => write!(f, "{name:?} is not a short name of a-z, 0-9 and _"),
            Self::Template { .. } => write!(f, "the template database could not be filled"),
            Self::Io { doing, .. } => write!(f, "could not {doing}"),
            Self::Interrupted { .. } => write!(f, "the work was interrupted"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Download { source } | Self::Template { source } => Some(source.as_ref()),
            Self::Io { source, .. } => Some(source),
            Self::Interrupted { source } => Some(source),
            Self::NoPrograms { .. }
            | Self::BadPrograms { .. }
            | Self::NoPsql
            | Self::NoClients { .. }
            | Self::OtherMajor { .. }
            | Self::NoUser { .. }
            | Self::CannotEnter { .. }
            | Self::NotPrivate { .. }
            | Self::ForeignServer { .. }
            | Self::InUse { .. }
            | Self::Program { .. }
            | Self::NotReady { .. }
            | Self::BadName { .. } => None,
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let words: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    words.join(", ")
}

fn majors(found: &[u32]) -> String {
    if found.is_empty() {
        return "none".to_owned();
    }
    let words: Vec<String> = found.iter().map(u32::to_string).collect();
    words.join(", ")
}
