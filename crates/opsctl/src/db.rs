//! `opsctl db`: the schema's version up and down, and the roles; backups and restores have files of their own. Has no SQL; the store has.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use jobs::{JobFilter, Pooler, ROLES, SchemaStatus, Store, StoreOptions};

use crate::error::Error;
use crate::exit::Exit;
use crate::screen::{Output, Screen};
use crate::settings::Settings;
use crate::table::table;
use crate::{backup, drill, restore};

/// A migration may wait for locks and write whole tables, but not for ever.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Apply the migrations that are missing
    Migrate,
    /// Take back the newest migration, or more of them
    Rollback {
        /// Take back every migration newer than this version
        #[arg(long, value_name = "VERSION", conflicts_with = "all")]
        to: Option<i64>,
        /// Take back every migration, and with them every job
        #[arg(long)]
        all: bool,
        /// Yes, also where jobs are lost with it
        #[arg(long)]
        yes: bool,
    },
    /// Show which migrations are applied, and which the programs expect
    Status,
    /// Write a verified dump of one snapshot into BACKUP_DIR, then remove the backups that have had their time
    Backup {
        /// Another folder than BACKUP_DIR
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
    },
    /// Fill an empty database from a backup; the fleet is then paused, and nothing starts before `opsctl fleet resume`
    Restore {
        /// The dump, with what was written beside it
        file: PathBuf,
        /// Yes, in the place of the database that is there; it is kept under another name
        #[arg(long)]
        yes: bool,
    },
    /// Restore the newest backup into a scratch database and prove it equal to what was backed up
    Drill {
        /// This backup instead of the newest in BACKUP_DIR
        file: Option<PathBuf>,
    },
    /// Make the roles ops_control_plane, ops_runner and ops_readonly, and set their rights
    Bootstrap,
    /// Print every right of those roles, a line each, as the database says it
    Rights,
}

/// What is done to the schema and the roles, on one connection.
enum Schema {
    Migrate,
    Rollback { to: Option<i64>, yes: bool },
    Status,
    Bootstrap,
    Rights,
}

pub(crate) async fn run(
    command: Command,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let command = match command {
        Command::Backup { to } => return backup::run(to, settings, screen).await,
        Command::Restore { file, yes } => return restore::run(&file, yes, settings, screen).await,
        Command::Drill { file } => return drill::run(file, settings, screen).await,
        Command::Migrate => Schema::Migrate,
        Command::Rollback { to, all, yes } => Schema::Rollback {
            to: if all { Some(0) } else { to },
            yes,
        },
        Command::Status => Schema::Status,
        Command::Bootstrap => Schema::Bootstrap,
        Command::Rights => Schema::Rights,
    };
    let store = open(settings.database_url()?.expose(), settings.pooler()?)?;
    let done = match command {
        Schema::Migrate => migrate(&store, screen).await,
        Schema::Rollback { to, yes } => rollback(&store, to, yes, screen).await,
        Schema::Status => status(&store).await.map(|status| show(&status, screen)),
        Schema::Bootstrap => bootstrap(&store, screen).await,
        Schema::Rights => rights(&store, screen).await,
    };
    store.close().await;
    done.map(|()| Exit::Ok)
}

/// The store for administration: one connection, long statements.
pub(crate) fn open(url: &str, pooler: service::Pooler) -> Result<Store, Error> {
    let mut options = StoreOptions::new(url.to_owned(), 1, "opsctl");
    options.statement_timeout = STATEMENT_TIMEOUT;
    options.pooler = match pooler {
        service::Pooler::None => Pooler::None,
        service::Pooler::Transaction => Pooler::Transaction,
    };
    Store::new(&options).map_err(Error::database("use the database"))
}

/// Applies what is missing and says what it was.
pub(crate) async fn apply(store: &Store, screen: &Screen) -> Result<SchemaStatus, Error> {
    let before = status(store).await?;
    let after = store
        .migrate()
        .await
        .map_err(Error::database("migrate the database"))?;
    let names = difference(&after, &before);
    if !names.is_empty() {
        screen.say(&format!("applied {}", names.join(", ")));
    }
    Ok(after)
}

async fn migrate(store: &Store, screen: &Screen) -> Result<(), Error> {
    let before = status(store).await?;
    let after = apply(store, screen).await?;
    if before == after {
        screen.say(&format!(
            "nothing to apply: the schema is at version {}",
            after.current
        ));
    }
    show(&after, screen);
    Ok(())
}

async fn rollback(store: &Store, to: Option<i64>, yes: bool, screen: &Screen) -> Result<(), Error> {
    let before = status(store).await?;
    let target = target(&before, to)?;
    if target == before.current {
        screen.say("nothing to take back: no migration is applied");
        show(&before, screen);
        return Ok(());
    }
    // The first migration holds the jobs themselves.
    if target == 0 && !yes && holds_jobs(store).await {
        let why = "this takes every job with it: add --yes if that is meant, or take back fewer with --to";
        return Err(Error::Usage(why.to_owned()));
    }
    let after = store
        .rollback_to(target)
        .await
        .map_err(Error::database("roll back the database"))?;
    screen.say(&format!(
        "took back {}",
        difference(&before, &after).join(", ")
    ));
    show(&after, screen);
    Ok(())
}

/// The version to go back to: the one that was asked for, else the one before the newest.
fn target(status: &SchemaStatus, to: Option<i64>) -> Result<i64, Error> {
    let applied = || {
        status
            .migrations
            .iter()
            .filter(|migration| migration.applied)
            .map(|migration| migration.version)
    };
    match to {
        None => Ok(applied()
            .filter(|version| *version < status.current)
            .max()
            .unwrap_or(0)),
        Some(0) => Ok(0),
        Some(version) if applied().any(|applied| applied == version) => Ok(version),
        Some(version) => Err(Error::Usage(format!(
            "version {version} is not applied: see `opsctl db status`"
        ))),
    }
}

/// Whether there is a job, or whether that cannot be told, which counts as one.
async fn holds_jobs(store: &Store) -> bool {
    let newest = JobFilter {
        limit: 1,
        ..JobFilter::default()
    };
    store
        .list(&newest)
        .await
        .map_or(true, |page| !page.jobs.is_empty())
}

async fn bootstrap(store: &Store, screen: &Screen) -> Result<(), Error> {
    store
        .bootstrap_roles()
        .await
        .map_err(Error::database("make the roles"))?;
    match screen.output() {
        Output::Json => screen.json(&serde_json::json!({ "roles": ROLES })),
        Output::Text => ROLES.iter().for_each(|role| screen.line(role)),
    }
    screen.say(
        "the roles are there; grant them to the logins of the programs: grant ops_runner to LOGIN",
    );
    Ok(())
}

async fn rights(store: &Store, screen: &Screen) -> Result<(), Error> {
    let rights = store
        .rights()
        .await
        .map_err(Error::database("read the rights"))?;
    match screen.output() {
        Output::Json => screen.json(&serde_json::json!({ "rights": rights })),
        Output::Text => rights.iter().for_each(|right| screen.line(right)),
    }
    Ok(())
}

async fn status(store: &Store) -> Result<SchemaStatus, Error> {
    store
        .schema_status()
        .await
        .map_err(Error::database("read the schema's version"))
}

fn show(status: &SchemaStatus, screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.json(status);
    }
    let rows: Vec<Vec<String>> = status
        .migrations
        .iter()
        .map(|migration| {
            let applied = if migration.applied { "yes" } else { "no" };
            vec![
                format!("{:04}", migration.version),
                migration.name.clone(),
                applied.to_owned(),
            ]
        })
        .collect();
    table(screen, &["VERSION", "NAME", "APPLIED"], &rows);
    if !status.is_expected() {
        screen.say(&format!(
            "the schema is at version {}, expected is {}",
            status.current, status.expected
        ));
    }
}

/// The names of the migrations that `more` has applied and `less` has not.
fn difference(more: &SchemaStatus, less: &SchemaStatus) -> Vec<String> {
    let has = |status: &SchemaStatus, version: i64| {
        status
            .migrations
            .iter()
            .any(|migration| migration.version == version && migration.applied)
    };
    let new = more
        .migrations
        .iter()
        .filter(|migration| migration.applied && !has(less, migration.version));
    new.map(|migration| format!("{:04} {}", migration.version, migration.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use jobs::Migration;

    use super::*;

    fn at(current: i64) -> SchemaStatus {
        let migration = |version| Migration {
            version,
            name: format!("m{version}"),
            applied: version <= current,
        };
        SchemaStatus {
            current,
            expected: 5,
            migrations: [1, 2, 5].map(migration).to_vec(),
        }
    }

    #[test]
    fn a_rollback_takes_back_one_migration_unless_told_more() {
        assert_eq!(target(&at(5), None).expect("right"), 2);
        assert_eq!(target(&at(1), None).expect("right"), 0);
        assert_eq!(target(&at(0), None).expect("right"), 0);
        assert_eq!(target(&at(5), Some(1)).expect("right"), 1);
        assert_eq!(target(&at(5), Some(0)).expect("right"), 0);
    }

    #[test]
    fn a_version_that_is_not_applied_is_no_target() {
        for wrong in [3, 5, -1] {
            let error = target(&at(2), Some(wrong)).expect_err("refused");
            assert_eq!(error.exit(), Exit::WrongUsage, "{wrong}");
        }
    }

    #[test]
    fn what_was_done_is_told_by_name() {
        assert_eq!(difference(&at(5), &at(1)), ["0002 m2", "0005 m5"]);
        assert!(difference(&at(1), &at(5)).is_empty());
    }
}
