//! The database of `opsctl dev`: the one that DATABASE_URL names, or a private PostgreSQL. Never shows a password.

use std::path::PathBuf;

use jobs::Store;
use local_postgres::{Cluster, Mode, Options, Place};
use service::Secret;
use url::Url;

use super::state::State;
use crate::db;
use crate::error::Error;
use crate::screen::Screen;
use crate::settings::Surroundings;

const NAME: &str = "ops_jobs";

/// A database that answers.
#[derive(Debug)]
pub(super) enum Database {
    /// Somebody else's, which is left running.
    Given(Secret),
    /// Ours, which is stopped when the work ends.
    Private { cluster: Box<Cluster>, url: Secret },
}

impl Database {
    /// Opens the database; without a state folder it is one that goes with the command.
    pub(super) async fn open(
        state: Option<&State>,
        given: Option<Secret>,
        surroundings: &Surroundings,
        screen: &Screen,
    ) -> Result<Self, Error> {
        match (state, given) {
            (Some(_), Some(url)) => {
                screen.tell(&format!(
                    "database      {} (DATABASE_URL), which is migrated now",
                    shown(&url)
                ));
                return Ok(Self::Given(url));
            }
            (None, Some(_)) => {
                screen.tell("DATABASE_URL is left alone: --ephemeral has a database of its own");
            }
            (_, None) => {}
        }
        let cluster = Cluster::start(options(state, surroundings)).await?;
        cluster.create_database(NAME).await?;
        screen.tell(&format!(
            "database      PostgreSQL of its own in {}",
            cluster.folder().display()
        ));
        if let Some(note) = cluster.note() {
            screen.say(note);
        }
        let url = Secret::new(cluster.url(NAME));
        Ok(Self::Private {
            cluster: Box::new(cluster),
            url,
        })
    }

    /// Its address.
    pub(super) fn url(&self) -> &Secret {
        match self {
            Self::Given(url) | Self::Private { url, .. } => url,
        }
    }

    /// The folder that goes with it when it goes.
    pub(super) fn folder(&self) -> PathBuf {
        match self {
            Self::Given(_) => PathBuf::from("."),
            Self::Private { cluster, .. } => cluster.folder().to_path_buf(),
        }
    }

    /// What a person types to look into it.
    pub(super) fn psql(&self) -> String {
        match self {
            Self::Given(_) => "psql \"$DATABASE_URL\"".to_owned(),
            Self::Private { cluster, .. } => cluster.psql_command(NAME),
        }
    }

    /// Brings its schema to the version that the services expect.
    pub(super) async fn migrate(&self, screen: &Screen) -> Result<(), Error> {
        let store: Store = db::open(self.url().expose(), service::Pooler::None)?;
        let done = db::apply(&store, screen).await;
        store.close().await;
        let schema = done?;
        if schema.is_expected() {
            return Ok(());
        }
        let (current, expected) = (schema.current, schema.expected);
        Err(Error::Failed(format!(
            "the schema is at version {current}, this program needs {expected}: \
             use a program that fits, or another folder with --state"
        )))
    }

    /// Stops it if it is ours.
    pub(super) async fn close(self) -> Result<(), Error> {
        match self {
            Self::Given(_) => Ok(()),
            Self::Private { cluster, .. } => Ok(cluster.stop().await?),
        }
    }
}

/// What the private PostgreSQL is told; `None` is one that leaves nothing behind.
pub(super) fn options(state: Option<&State>, surroundings: &Surroundings) -> Options {
    let (mode, place) = match state {
        Some(state) => (Mode::Durable, Place::At(state.folder().to_path_buf())),
        None => (Mode::Test, Place::Ephemeral),
    };
    Options {
        mode,
        place,
        home: surroundings.home.clone(),
        xdg_state_home: surroundings.xdg_state_home.clone(),
        path: surroundings.path.clone(),
        temp_dir: surroundings.temp_dir.clone(),
        programs: None,
        run_as: None,
    }
}

/// Host and database, without user and password.
fn shown(url: &Secret) -> String {
    Url::parse(url.expose()).map_or_else(
        |_| "a database".to_owned(),
        |url| {
            let port = url
                .port()
                .map(|port| format!(":{port}"))
                .unwrap_or_default();
            format!("{}{port}{}", url.host_str().unwrap_or_default(), url.path())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_database_is_shown_without_its_password() {
        let url = Secret::new("postgres://me:canary@db.internal:6432/ops?password=canary");
        assert_eq!(shown(&url), "db.internal:6432/ops");
    }
}
