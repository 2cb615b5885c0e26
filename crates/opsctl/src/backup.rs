//! `opsctl db backup`: a dump of one snapshot, verified, with counts and fingerprints of exactly that snapshot beside it; then, and
//! only then, what has had its time is removed. Has no SQL; the store has.

pub(crate) mod folder;
pub(crate) mod manifest;
pub(crate) mod objects;

use std::path::PathBuf;
use std::time::Duration;

use files::Depot;
use jobs::{BackupRecord, ObjectRecord, Store, StoreOptions};
use local_postgres::Clients;
use serde_json::json;

use crate::error::Error;
use crate::exit::Exit;
use crate::screen::{Output, Screen};
use crate::settings::{Backups, Settings};
use folder::{BackupFiles, Folder, backups_in, hex, new_file, sum_of, write_whole};
use manifest::{FORMAT, Manifest, Verdict};

/// One that is held, one for what is read meanwhile, one to spare.
const CONNECTIONS: u32 = 3;
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// A store for backups and restores.
pub(crate) fn open(url: &str) -> Result<Store, Error> {
    let mut options = StoreOptions::new(url.to_owned(), CONNECTIONS, "opsctl");
    options.statement_timeout = STATEMENT_TIMEOUT;
    Store::new(&options).map_err(Error::database("use the database"))
}

/// Programs for dumps that go with this server.
pub(crate) fn clients(backups: &Backups, server_major: i32) -> Result<Clients, Error> {
    Ok(Clients::find(
        None,
        backups.path.as_deref(),
        server_major.unsigned_abs(),
    )?)
}

/// The name of this host.
pub(crate) fn host() -> String {
    let host = rustix::system::uname();
    host.nodename().to_string_lossy().into_owned()
}

pub(crate) async fn run(
    to: Option<PathBuf>,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let mut backups = settings.backups()?;
    if let Some(to) = to {
        backups.folder = to;
    }
    let store = open(backups.url.expose())?;
    let done = back_up(&store, &backups, screen).await;
    store.close().await;
    done
}

async fn back_up(store: &Store, backups: &Backups, screen: &Screen) -> Result<Exit, Error> {
    let status = store
        .schema_status()
        .await
        .map_err(Error::database("read the schema's version"))?;
    if !status.is_expected() {
        return Err(Error::Failed(format!(
            "the schema is at version {}, and this opsctl goes with {}: back up with the opsctl of the release that is in use",
            status.current, status.expected
        )));
    }
    let folder = Folder::open(&backups.folder)?;
    if folder.is_open_to_others() {
        screen.say(&format!(
            "{} is open to others, the files in it are not: chmod 700 closes it",
            backups.folder.display()
        ));
    }
    let taken = take(store, backups, &folder).await?;
    let manifest = &taken.manifest;
    let record = BackupRecord {
        started_at: manifest.taken_at,
        file: taken.files.dump().display().to_string(),
        bytes: i64::try_from(manifest.bytes).unwrap_or(i64::MAX),
        sha256: taken.sha256,
        schema_version: manifest.schema_version,
        jobs: manifest.rows("ops_jobs"),
        events: manifest.rows("ops_job_events"),
        objects: i64::try_from(manifest.objects.len()).unwrap_or(i64::MAX),
        host: host(),
    };
    store
        .record_backup(&record)
        .await
        .map_err(Error::database("put the backup on record"))?;
    let now = store
        .now()
        .await
        .map_err(Error::database("read the database's clock"))?;
    let whole = manifest.objects_lost.is_empty();
    // Without a good one there is nothing that the old ones could make room for.
    let removed = if whole {
        folder.remove_expired(now, time::Duration::days(i64::from(backups.retention_days)))?
    } else {
        Vec::new()
    };
    if screen.output() == Output::Json {
        screen.json(&json!({
            "file": record.file, "bytes": manifest.bytes, "sha256": manifest.sha256, "taken_at": record.started_at.unix_timestamp(),
            "jobs": record.jobs, "events": record.events, "objects": record.objects, "findings": manifest.verified.findings,
            "objects_lost": manifest.objects_lost, "removed": removed,
        }));
    } else {
        screen.line(&record.file);
    }
    screen.say(&format!(
        "{} jobs, {} events, {} objects, {} bytes; pg_restore reads it, its SHA-256 stands beside it",
        record.jobs, record.events, record.objects, record.bytes
    ));
    if manifest.verified.findings > 0 {
        screen.say(&format!(
            "{} rows are not explained by their events, here and in the database: see opsctl verify",
            manifest.verified.findings
        ));
    }
    for path in &removed {
        screen.say(&format!(
            "removed {}: older than {} days",
            path.display(),
            backups.retention_days
        ));
    }
    for lost in &manifest.objects_lost {
        screen.say(lost);
    }
    Ok(if whole { Exit::Ok } else { Exit::Failed })
}

/// A backup that stands under its name.
struct Taken {
    files: BackupFiles,
    manifest: Manifest,
    sha256: [u8; 32],
}

async fn take(store: &Store, backups: &Backups, folder: &Folder) -> Result<Taken, Error> {
    let mut snapshot = store
        .snapshot()
        .await
        .map_err(Error::database("hold a snapshot"))?;
    let clients = clients(backups, snapshot.server_major)?;
    let files = folder.backup_of(snapshot.at)?;
    let partial = files.partial();
    let written = async {
        let dump = partial.dump();
        let instant = snapshot.id.clone();
        let url = backups.url.expose();
        let (dumped, tables, verified) = tokio::join!(
            clients.dump(url, &instant, new_file(&dump)?),
            snapshot.tables(),
            store.verify_at(Some(&instant), |_| {}),
        );
        dumped?;
        let tables = tables.map_err(Error::database("count the rows of the snapshot"))?;
        let verified = verified.map_err(Error::database("verify the snapshot"))?;
        let records = snapshot
            .objects()
            .await
            .map_err(Error::database("list the objects of the snapshot"))?;
        let (taken_at, schema_version) = (snapshot.at, snapshot.schema_version);
        let (server_major, bootstrapped) = (snapshot.server_major, snapshot.bootstrapped);
        // Held no longer than needed: it keeps old rows from being cleaned up.
        snapshot
            .end()
            .await
            .map_err(Error::database("let go of the snapshot"))?;
        std::fs::File::open(&dump)
            .and_then(|file| file.sync_all())
            .map_err(Error::io("write", &dump))?;
        let (bytes, sha256) = sum_of(&dump)?;
        let copied = copy_objects(store, backups, &records, &partial).await?;
        let manifest = Manifest {
            format: FORMAT,
            opsctl: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at,
            schema_version,
            server_major,
            pg_dump: clients.version().to_owned(),
            bytes,
            sha256: hex(&sha256),
            bootstrapped,
            tables,
            verified: Verdict::from(verified),
            objects: copied.objects,
            objects_lost: copied.lost,
        };
        let contents = clients.contents(&dump).await?;
        if let Some(missing) = manifest.missing_from(&contents).into_iter().next() {
            return Err(Error::Failed(format!("the dump is not whole: {missing}")));
        }
        manifest.write(&partial.manifest())?;
        let name = files.dump();
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        write_whole(&partial.sha256(), &format!("{}  {name}\n", manifest.sha256))?;
        folder.publish(&files)?;
        Ok((manifest, sha256))
    }
    .await;
    match written {
        Ok((manifest, sha256)) => Ok(Taken {
            files,
            manifest,
            sha256,
        }),
        Err(error) => {
            folder.discard(&files);
            Err(error)
        }
    }
}

async fn copy_objects(
    store: &Store,
    backups: &Backups,
    records: &[ObjectRecord],
    partial: &BackupFiles,
) -> Result<objects::Copied, Error> {
    let depot = depot(store, backups)?;
    let before = backups_in(&backups.folder)?;
    let before = before.first().map(|(_, files)| files);
    objects::copy_out(&depot, records, partial, before).await
}

/// Where the files of jobs are.
pub(crate) fn depot(store: &Store, backups: &Backups) -> Result<Depot, Error> {
    Depot::open(store.clone(), &backups.files).map_err(|error| Error::Failed(error.to_string()))
}
