//! What can go wrong with a command: one sentence each, and what to do next. Holds no secret.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

use jobs::StoreError;
use service::SettingsError;

use crate::answer::Refusal;
use crate::exit::Exit;

/// Why a command did not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting is missing or wrong.
    Settings(SettingsError),
    /// The arguments do not make sense; says which, and what would.
    Usage(String),
    /// The control plane did not answer.
    Unreachable {
        /// Its address.
        url: String,
        /// Why it did not.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The control plane refused.
    Refused(Refusal),
    /// The control plane answered something that is not its own.
    Foreign {
        /// Its address.
        url: String,
    },
    /// The database refused or did not answer.
    Database {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: StoreError,
    },
    /// The private PostgreSQL could not be used.
    Postgres(local_postgres::Error),
    /// A file could not be used.
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A service could not be started, or ended by itself.
    Service {
        /// Which.
        name: &'static str,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Something else, said whole.
    Failed(String),
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing: format!("{doing} {}", path.display()),
            source,
        }
    }

    pub(crate) fn database(doing: &'static str) -> impl FnOnce(StoreError) -> Self {
        move |source| Self::Database { doing, source }
    }

    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Settings(_) | Self::Usage(_) => Exit::WrongUsage,
            Self::Unreachable { .. } => Exit::Unavailable,
            Self::Refused(refusal) => refusal.exit(),
            Self::Database {
                source: StoreError::Unavailable(_),
                ..
            } => Exit::Unavailable,
            Self::Foreign { .. }
            | Self::Database { .. }
            | Self::Postgres(_)
            | Self::Io { .. }
            | Self::Service { .. }
            | Self::Failed(_) => Exit::Failed,
        }
    }

    /// What a person does next, where the sentence itself does not say it.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { .. } => Some("check OPS_URL, and that the control plane runs"),
            Self::Foreign { .. } => Some("check that OPS_URL is the control plane's address"),
            Self::Refused(refusal) if refusal.status == 401 => Some("check OPS_API_KEY"),
            Self::Database {
                source: StoreError::Unavailable(_),
                ..
            } => Some("check DATABASE_URL, and that PostgreSQL runs"),
            Self::Database { .. } => Some("check DATABASE_URL, and the rights of its role"),
            Self::Settings(_)
            | Self::Usage(_)
            | Self::Refused(_)
            | Self::Postgres(_)
            | Self::Io { .. }
            | Self::Service { .. }
            | Self::Failed(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(error) => write!(f, "{error}"),
            Self::Usage(text) | Self::Failed(text) => f.write_str(text),
            Self::Unreachable { url, .. } => {
                write!(f, "the control plane at {url} does not answer")
            }
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Foreign { url } => {
                write!(f, "the answer of {url} is not that of a control plane")
            }
            Self::Database { doing, .. } => write!(f, "could not {doing}"),
            Self::Postgres(error) => write!(f, "{error}"),
            Self::Io { doing, .. } => write!(f, "could not {doing}"),
            Self::Service { name, .. } => write!(f, "the {name} could not serve"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Unreachable { source, .. } | Self::Service { source, .. } => {
                Some(source.as_ref())
            }
            Self::Database { source, .. } => Some(source),
            // It is shown whole, so its cause comes next.
            Self::Postgres(error) => error.source(),
            Self::Io { source, .. } => Some(source),
            Self::Settings(_)
            | Self::Usage(_)
            | Self::Refused(_)
            | Self::Foreign { .. }
            | Self::Failed(_) => None,
        }
    }
}

impl From<SettingsError> for Error {
    fn from(error: SettingsError) -> Self {
        Self::Settings(error)
    }
}

impl From<local_postgres::Error> for Error {
    fn from(error: local_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// The whole error in one line: the sentence, its innermost cause, and what to do next.
pub(crate) fn sentence(error: &Error) -> String {
    let mut text = error.to_string();
    let cause = if matches!(error, Error::Service { .. }) {
        every_cause(error)
    } else {
        innermost(error)
    };
    if let Some(cause) = cause {
        text.push_str(": ");
        text.push_str(&cause);
    }
    if let Some(advice) = error.advice() {
        text.push_str("; ");
        text.push_str(advice);
    }
    if let Error::Refused(refusal) = error {
        refusal
            .details()
            .iter()
            .for_each(|line| text.push_str(&format!("\n  {line}")));
    }
    text
}

/// Our own services say something new in every layer.
fn every_cause(error: &Error) -> Option<String> {
    let mut cause = error.source()?;
    let mut text = cause.to_string();
    while let Some(inner) = cause.source() {
        text.push_str(&format!(": {inner}"));
        cause = inner;
    }
    Some(text)
}

/// Libraries repeat a cause in every layer, so only the innermost is told.
fn innermost(error: &Error) -> Option<String> {
    let mut cause = error.source()?;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Some(without_source_line(&cause.to_string()).to_owned())
}

/// PostgreSQL's errors end with a line of its own source code, which tells a person nothing.
fn without_source_line(text: &str) -> &str {
    match text.rsplit_once(" at line ") {
        Some((message, line)) if line.bytes().all(|byte| byte.is_ascii_digit()) => message,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_cause_and_what_to_do() {
        let error = Error::Database {
            doing: "migrate the database",
            source: StoreError::Refused("no".to_owned()),
        };
        assert_eq!(
            sentence(&error),
            "could not migrate the database: the database refused the values: no; \
             check DATABASE_URL, and the rights of its role"
        );
    }

    #[test]
    fn the_line_of_postgresqls_own_source_is_left_out() {
        assert_eq!(
            without_source_line("database \"x\" does not exist at line 948"),
            "database \"x\" does not exist"
        );
        assert_eq!(
            without_source_line("expected at line end"),
            "expected at line end"
        );
    }

    #[test]
    fn what_passes_by_itself_has_a_code_of_its_own() {
        let gone = Error::Unreachable {
            url: "http://h".to_owned(),
            source: "refused".into(),
        };
        assert_eq!(gone.exit(), Exit::Unavailable);
        assert_eq!(Error::Usage(String::new()).exit(), Exit::WrongUsage);
        assert_eq!(Error::Failed(String::new()).exit(), Exit::Failed);
    }
}
