//! `opsctl db drill`: the newest backup restored into a scratch database, and proved equal to the snapshot that it was made of.
//! Leaves a row in ops_drills, whatever comes of it, and nothing else. Has no SQL; the store has.

use std::path::{Path, PathBuf};
use std::time::Instant;

use jobs::{DrillRecord, Store};
use serde_json::json;
use time::OffsetDateTime;

use crate::backup::folder::{BackupFiles, backups_in};
use crate::backup::manifest::Verdict;
use crate::backup::{clients, host, objects, open};
use crate::error::{Error, sentence};
use crate::exit::Exit;
use crate::restore::{Checked, check, on_database};
use crate::screen::{Output, Screen};
use crate::settings::{Backups, Settings};

/// What scratch databases are called, with the instant behind it.
const SCRATCH: &str = "ops_drill_";

/// What a drill finds out, as far as it comes.
#[derive(Debug, Default)]
struct Proof {
    taken_at: Option<OffsetDateTime>,
    restore_seconds: Option<f64>,
    verdict: Option<Verdict>,
    problems: Vec<String>,
    remarks: Vec<String>,
}

pub(crate) async fn run(
    dump: Option<PathBuf>,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let backups = settings.backups()?;
    let store = open(backups.url.expose())?;
    let done = drill(&store, dump, &backups, screen).await;
    store.close().await;
    done
}

async fn drill(
    store: &Store,
    dump: Option<PathBuf>,
    backups: &Backups,
    screen: &Screen,
) -> Result<Exit, Error> {
    let started_at = store
        .now()
        .await
        .map_err(Error::database("read the database's clock"))?;
    let mut proof = Proof::default();
    let dump = match dump {
        Some(dump) => Some(dump),
        None => newest(backups, &mut proof),
    };
    if let Some(dump) = &dump {
        let proved = tokio::select! {
            proved = prove(store, dump, backups, started_at, &mut proof) => proved,
            _ = tokio::signal::ctrl_c() => Err(Error::Failed("it was broken off".to_owned())),
        };
        // Whatever happened, and whoever was before us and was killed.
        clear_away(store, started_at).await;
        if let Err(error) = proved {
            proof.problems.push(sentence(&error));
        }
    }
    let age = proof
        .taken_at
        .map(|taken_at| (started_at - taken_at).as_seconds_f64());
    let record = DrillRecord {
        started_at,
        file: dump.as_ref().map(|dump| dump.display().to_string()),
        backup_age_seconds: age,
        restore_seconds: proof.restore_seconds,
        jobs: proof
            .verdict
            .and_then(|verdict| i64::try_from(verdict.jobs).ok()),
        events: proof
            .verdict
            .and_then(|verdict| i64::try_from(verdict.events).ok()),
        problems: proof.problems,
        host: host(),
    };
    store
        .record_drill(&record)
        .await
        .map_err(Error::database("put the drill on record"))?;
    Ok(tell(&record, &proof.remarks, screen))
}

fn newest(backups: &Backups, proof: &mut Proof) -> Option<PathBuf> {
    let folder = backups.folder.canonicalize();
    let folder = folder.as_deref().unwrap_or(&backups.folder);
    let found = backups_in(folder).ok();
    let newest = found.and_then(|found| Some(found.first()?.1.dump()));
    if newest.is_none() {
        proof.problems.push(format!(
            "there is no backup in {}: make one with opsctl db backup, or say where they are with BACKUP_DIR",
            folder.display()
        ));
    }
    newest
}

async fn prove(
    store: &Store,
    dump: &Path,
    backups: &Backups,
    started_at: OffsetDateTime,
    proof: &mut Proof,
) -> Result<(), Error> {
    proof.taken_at = BackupFiles::of_dump(dump)?.taken_at();
    let facts = store
        .database_facts()
        .await
        .map_err(Error::database("look at the database"))?;
    let clients = clients(backups, facts.server_major)?;
    let checked = check(dump, &clients, jobs::expected_version()).await?;
    match &checked.manifest {
        Some(manifest) => {
            proof.taken_at = Some(manifest.taken_at);
            proof.problems.extend(objects::check(&checked.files, manifest));
            proof.problems.extend(manifest.objects_lost.iter().cloned());
        }
        None => proof.remarks.push(
            "the dump has no manifest, so that its copy is only verified, and compared with nothing".to_owned(),
        ),
    }
    let scratch = format!("{SCRATCH}{}", started_at.unix_timestamp_nanos());
    store
        .create_database(&scratch)
        .await
        .map_err(Error::database(
            "make a scratch database (the login needs CREATEDB)",
        ))?;
    let url = on_database(backups.url.expose(), &scratch)?;
    let begun = Instant::now();
    clients.restore(dump, &url, String::new()).await?;
    let restored = begun.elapsed();
    let copy = open(&url)?;
    let compared = compare(&copy, &checked, proof).await;
    let begun = Instant::now();
    let held = hold(&copy, &checked).await;
    proof.restore_seconds = Some((restored + begun.elapsed()).as_secs_f64());
    copy.close().await;
    compared?;
    proof.problems.extend(held?);
    Ok(())
}

/// What is restored, as it stands, beside what the snapshot was.
async fn compare(copy: &Store, checked: &Checked, proof: &mut Proof) -> Result<(), Error> {
    if let Some(manifest) = &checked.manifest {
        let mut snapshot = copy
            .snapshot()
            .await
            .map_err(Error::database("look at the copy"))?;
        let tables = snapshot
            .tables()
            .await
            .map_err(Error::database("count the rows of the copy"))?;
        snapshot
            .end()
            .await
            .map_err(Error::database("look at the copy"))?;
        proof.problems.extend(manifest.differences(&tables));
    }
    let mut first = None;
    let verified = copy
        .verify(|finding| {
            first.get_or_insert_with(|| finding.to_string());
        })
        .await
        .map_err(Error::database("verify the copy"))?;
    let verdict = Verdict::from(verified);
    proof.verdict = Some(verdict);
    let then = checked.manifest.as_ref().map(|manifest| manifest.verified);
    match first {
        // What was so before the backup is no fault of it; opsctl verify tells of it.
        Some(first) if then != Some(verdict) => proof.problems.push(format!(
            "{} rows of the copy are not explained by their events, the first: {first}",
            verdict.findings
        )),
        Some(_) => proof.remarks.push(format!(
            "{} rows are not explained by their events, as in the database when the backup was made",
            verdict.findings
        )),
        None if then.is_some_and(|then| then != verdict) => proof.problems.push(
            "opsctl verify counts other jobs, events or seals in the copy than in the snapshot".to_owned(),
        ),
        None => {}
    }
    Ok(())
}

/// Whether the copy, made ready as a restore does it, starts nothing by itself.
async fn hold(copy: &Store, checked: &Checked) -> Result<Vec<String>, Error> {
    if checked.schema_version != jobs::expected_version() {
        return Ok(Vec::new());
    }
    let looking = || Error::database("make the copy ready");
    copy.become_restored("a drill").await.map_err(looking())?;
    let standing = copy.restored_copy().await.map_err(looking())?;
    let mut problems = Vec::new();
    if !standing.held {
        problems.push("the copy is not paused".to_owned());
    }
    if standing.running > 0 {
        problems.push(format!("{} jobs of the copy still run", standing.running));
    }
    if !standing.fence_is_above {
        problems.push("the copy would give out fences that are used".to_owned());
    }
    Ok(problems)
}

async fn clear_away(store: &Store, started_at: OffsetDateTime) {
    let Ok(names) = store.databases(SCRATCH).await else {
        return;
    };
    let ours = format!("{SCRATCH}{}", started_at.unix_timestamp_nanos());
    // One of an hour ago is nobody's any more.
    let old = (started_at - time::Duration::hours(1)).unix_timestamp_nanos();
    for name in names {
        let began = name
            .strip_prefix(SCRATCH)
            .and_then(|at| at.parse::<i128>().ok());
        if name == ours || began.is_some_and(|began| began < old) {
            // What is left is the next drill's to clear away.
            let _ = store.drop_database(&name).await;
        }
    }
}

fn tell(record: &DrillRecord, remarks: &[String], screen: &Screen) -> Exit {
    let ok = record.problems.is_empty();
    if screen.output() == Output::Json {
        screen.json(&json!({
            "ok": ok, "file": record.file, "backup_age_seconds": record.backup_age_seconds, "restore_seconds": record.restore_seconds,
            "jobs": record.jobs, "events": record.events, "problems": record.problems, "remarks": remarks,
        }));
    } else {
        record
            .problems
            .iter()
            .for_each(|problem| screen.line(problem));
    }
    remarks.iter().for_each(|remark| screen.say(remark));
    let seconds = |value: Option<f64>| value.map_or("?".to_owned(), |value| format!("{value:.1}"));
    screen.say(&format!(
        "{}: {}; {} jobs, {} events; {} s old, restored in {} s",
        if ok { "proved equal" } else { "NOT proved" },
        record.file.as_deref().unwrap_or("no backup"),
        record.jobs.unwrap_or(0),
        record.events.unwrap_or(0),
        seconds(record.backup_age_seconds),
        seconds(record.restore_seconds),
    ));
    if ok { Exit::Ok } else { Exit::Failed }
}
