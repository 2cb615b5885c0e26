//! A private cluster: started, or adopted from the process that started it. Everything that waits runs off the async threads.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::blocking::blocking;
use crate::files::{self, lock};
use crate::guard::{Guard, Remove, Watch};
use crate::launch::launch;
use crate::pid_file::PidFile;
use crate::programs::Search;
use crate::psql::{Psql, checked_name};
use crate::settle::{Settled, end_orphan, settle};
#[cfg(feature = "download")]
use crate::state::default_state;
use crate::state::{Layout, candidates, must_be_open};
use crate::url::{SUPERUSER, over_socket};
use crate::{Error, Mode, Options, Place, Programs};

/// A PostgreSQL that only this user can reach, over a unix socket.
///
/// The process that started it owns it: when that process stops it, drops it or dies, the server goes away.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    programs: Programs,
    mode: Mode,
    remove: Remove,
    psql: Psql,
    role: Role,
}

#[derive(Debug)]
enum Role {
    /// We started it: `guard` is gone when the server was ended on purpose.
    Owner { guard: Option<Guard>, lock: File },
    /// Another living process did; we never stop it.
    Adopter,
}

impl Cluster {
    /// Finds (or downloads) the programs, makes the data at the first time, and starts a server or adopts the running one.
    ///
    /// Takes half a second for the first time, and then some 50 milliseconds.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let (layout, options) =
            blocking(move || Layout::prepare(&options).map(|layout| (layout, options))).await?;
        let programs = programs_for(&layout, &options).await?;
        blocking(move || Self::start_on(layout, programs, &options)).await
    }

    fn start_on(layout: Layout, programs: Programs, options: &Options) -> Result<Self, Error> {
        let psql = Psql::of(&programs, options.path.clone())?;
        let remove = if options.place == Place::Ephemeral {
            Remove::All
        } else {
            Remove::Nothing
        };
        let _starting = lock(&layout.start_lock())?;
        let role = match settle(&layout)? {
            Settled::Live => Role::Adopter,
            Settled::Free(alive) => {
                let guard = launch(
                    &layout,
                    &programs,
                    options.mode,
                    Watch::Owner,
                    remove,
                    &alive,
                )?;
                // A new file, because an owner whose server died still holds the old one.
                files::remove(&layout.owner_lock())?;
                Role::Owner {
                    guard: Some(guard),
                    lock: lock(&layout.owner_lock())?,
                }
            }
        };
        Ok(Self {
            layout,
            programs,
            mode: options.mode,
            remove,
            psql,
            role,
        })
    }

    /// The address of a database, for libraries and for `psql`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        over_socket(&self.layout.socket, database)
    }

    /// The command for a person who wants to look into a database.
    #[must_use]
    pub fn psql_command(&self, database: &str) -> String {
        // Also right where the server runs as somebody else: it does so only when we are root, who may enter its folder.
        format!(
            "psql -h {} -U {SUPERUSER} {database}",
            self.layout.socket.display()
        )
    }

    /// The programs that run it.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The folder that it lives in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.layout.home
    }

    /// What a person should know about the choice of the folder, if it is not the usual one.
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.layout.note.as_deref()
    }

    /// Whether this process started it, rather than adopting what another one had started.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(self.role, Role::Owner { .. })
    }

    /// Makes a database, unless it is there already.
    pub async fn create_database(&self, name: &str) -> Result<(), Error> {
        let (psql, admin, name) = (
            self.psql.clone(),
            self.url("postgres"),
            checked_name(name)?.to_owned(),
        );
        blocking(move || {
            let there = |psql: &Psql| {
                psql.run(
                    &admin,
                    &[&format!(
                        "select 1 from pg_database where datname = '{name}'"
                    )],
                )
            };
            if there(&psql)? == "1" {
                return Ok(());
            }
            match psql.run(&admin, &[&format!("create database {name}")]) {
                // Another process was quicker.
                Err(_) if there(&psql)? == "1" => Ok(()),
                made => made.map(drop),
            }
        })
        .await
    }

    /// Drops a database with all connections to it; that there is none is fine.
    pub async fn drop_database(&self, name: &str) -> Result<(), Error> {
        let (psql, admin, name) = (
            self.psql.clone(),
            self.url("postgres"),
            checked_name(name)?.to_owned(),
        );
        blocking(move || {
            psql.run(
                &admin,
                &[&format!("drop database if exists {name} with (force)")],
            )
            .map(drop)
        })
        .await
    }

    /// Runs a file of SQL in one transaction.
    pub async fn run_file(&self, database: &str, file: &Path) -> Result<(), Error> {
        let (psql, url, file) = (self.psql.clone(), self.url(database), file.to_path_buf());
        blocking(move || psql.run_file(&url, &file)).await
    }

    /// Stops the server if this process started it, waits until it is gone, and removes what was ephemeral.
    pub async fn stop(mut self) -> Result<(), Error> {
        blocking(move || self.stop_now()).await
    }

    fn stop_now(&mut self) -> Result<(), Error> {
        // The owner's lock goes first, so that nobody adopts a server that is about to stop.
        let Role::Owner { guard, lock: owner } = std::mem::replace(&mut self.role, Role::Adopter)
        else {
            return Ok(());
        };
        drop(owner);
        if let Some(guard) = guard {
            let server = guard.server;
            guard.stop();
            // If somebody killed the guard, the server still runs. If its place was taken by another's, that is not ours.
            if PidFile::read(&self.layout.data()).is_some_and(|file| file.pid == server) {
                let _starting = lock(&self.layout.start_lock())?;
                end_orphan(&self.layout)?;
            }
        }
        if self.remove == Remove::All {
            files::remove(&self.layout.socket)?;
            files::remove(&self.layout.state)?;
        }
        Ok(())
    }

    /// Ends the server by a signal, as an accident or an operator would; `relaunch` brings it back.
    pub(crate) fn end_by(&mut self, signal: Signal) {
        if let Role::Owner { guard, .. } = &mut self.role
            && let Some(guard) = guard.take()
        {
            guard.end_server_by(signal);
        }
    }

    /// Starts the server again on the same data, after `end_by`.
    pub(crate) fn relaunch(&mut self) -> Result<(), Error> {
        let Role::Owner { guard, .. } = &mut self.role else {
            return Ok(());
        };
        let _starting = lock(&self.layout.start_lock())?;
        // Its children notice the server's death and let go of the lock.
        let alive = lock(&self.layout.alive_lock())?;
        *guard = Some(launch(
            &self.layout,
            &self.programs,
            self.mode,
            Watch::Owner,
            self.remove,
            &alive,
        )?);
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The last resort; whoever wants to know of errors calls `stop`.
        let _ = self.stop_now();
    }
}

/// Removes all data of a cluster; fails when another living process uses it.
pub async fn reset(options: Options) -> Result<(), Error> {
    blocking(move || {
        let layout = Layout::prepare(&options)?;
        let _starting = lock(&layout.start_lock())?;
        match settle(&layout)? {
            Settled::Live => Err(Error::InUse { home: layout.home }),
            Settled::Free(_alive) => ["data", "data.new", "log", "log.old"]
                .iter()
                .try_for_each(|name| files::remove(&layout.home.join(name))),
        }
    })
    .await
}

/// Finds the programs that fit the data, or downloads them.
pub(crate) async fn programs_for(layout: &Layout, options: &Options) -> Result<Programs, Error> {
    let find = || {
        let (layout, options) = (layout.clone(), options.clone());
        blocking(move || search(&layout, &options))
    };
    match find().await {
        #[cfg(feature = "download")]
        Err(Error::NoPrograms { .. }) => {
            let state = match options.place {
                Place::At(_) | Place::Default => layout.state.clone(),
                Place::Ephemeral => default_state(options)?.0,
            };
            crate::download::download(&state.join("programs"), layout.made_by()).await?;
            find().await
        }
        found => found,
    }
}

fn search(layout: &Layout, options: &Options) -> Result<Programs, Error> {
    let data = layout.data();
    let found = Programs::search(&Search {
        only: options.programs.as_deref(),
        path: options.path.as_deref(),
        downloads: &downloads(layout, options),
        made: layout.made_by().map(|major| (major, data.as_path())),
    })?;
    must_be_open(&layout.user, found.directory())?;
    Ok(found)
}

/// Downloads are kept where they last, also for clusters that do not.
fn downloads(layout: &Layout, options: &Options) -> Vec<PathBuf> {
    let states = match options.place {
        Place::At(_) | Place::Default => vec![layout.state.clone()],
        Place::Ephemeral => candidates(options),
    };
    states
        .into_iter()
        .map(|state| state.join("programs"))
        .collect()
}
