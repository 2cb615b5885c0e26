//! Backups, restores and drills, on a server of the test's own, with the programs of PostgreSQL.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use jobs::{ClaimRequest, NewJob, Outcome, RunnerIdentity, Store, StoreOptions, TypeTerms};
use local_postgres::testing::{self, PrivateCluster};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::program::{opsctl, outcome};

/// A migrated database on a server of its own, and a folder for its backups.
pub(crate) struct Server {
    pub(crate) cluster: PrivateCluster,
    pub(crate) folder: TempDir,
    pub(crate) url: String,
}

impl Server {
    pub(crate) async fn new() -> Self {
        let cluster = testing::private_cluster(local_postgres::Mode::Test)
            .await
            .expect("a cluster");
        cluster
            .create_database("ops_jobs")
            .await
            .expect("a database");
        let server = Self {
            url: cluster.url("ops_jobs"),
            cluster,
            folder: tempfile::tempdir().expect("a folder"),
        };
        assert_eq!(server.db(&["migrate"]).0, 0);
        assert_eq!(server.db(&["bootstrap"]).0, 0);
        server
    }

    pub(crate) fn backups(&self) -> PathBuf {
        self.folder.path().join("backups")
    }

    pub(crate) fn opsctl(&self, arguments: &[&str]) -> Command {
        let mut command = opsctl(arguments);
        command
            .env("DATABASE_URL", &self.url)
            .env("BACKUP_DIR", self.backups());
        command
    }

    fn db(&self, arguments: &[&str]) -> (i32, Value, String) {
        let all: Vec<&str> = ["--output", "json", "db"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let (code, out, err) = outcome(&mut self.opsctl(&all));
        (code, serde_json::from_str(&out).unwrap_or_default(), err)
    }

    fn psql(&self, sql: &str) -> String {
        let program_path = self.cluster.programs().psql().expect("psql");
        run(program(program_path).args([
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            &self.url,
            "-c",
            sql,
        ]))
    }

    /// Makes a backup and gives its dump.
    fn back_up(&self) -> PathBuf {
        let (code, said, err) = self.db(&["backup"]);
        assert_eq!(code, 0, "{err}");
        PathBuf::from(said["file"].as_str().expect("a path"))
    }

    /// What a drill of this dump finds wrong.
    fn problems(&self, dump: &Path) -> Vec<String> {
        let (code, said, err) = self.db(&["drill", &dump.display().to_string()]);
        let problems: Vec<String> =
            serde_json::from_value(said["problems"].clone()).expect("a list");
        assert_eq!(code, i32::from(!problems.is_empty()), "{err}");
        let recorded =
            self.psql("select ok, problems from ops_drills order by finished_at desc limit 1");
        assert!(
            recorded.starts_with(if problems.is_empty() { 't' } else { 'f' }),
            "{recorded}"
        );
        assert_eq!(
            self.psql("select count(*) from pg_database where datname like 'ops\\_drill%'"),
            "0"
        );
        problems
    }

    pub(crate) async fn live(&self) {
        live(&self.url).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what people and scripts start beside opsctl"
)]
fn program(path: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(path)
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("started");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

/// Some jobs: ended, queued, and one that runs.
async fn live(url: &str) {
    let store =
        Store::new(&StoreOptions::new(url.to_owned(), 2, "opsctl-tests")).expect("an address");
    let types = [TypeTerms::new("hello".parse().expect("a name"))];
    let runner = RunnerIdentity {
        id: "r1".to_owned(),
        boot_id: uuid::Uuid::nil(),
    };
    for number in 0..5 {
        let new = NewJob::new(
            "hello".parse().expect("a name"),
            json!({ "n": number, "text": "ä\u{1F600}\\N\t" }),
        );
        let job = store
            .submit(new, "test")
            .await
            .expect("recorded")
            .into_job();
        if number < 4 {
            let request = ClaimRequest {
                runner: &runner,
                types: &types,
                lease: std::time::Duration::from_secs(600),
                at_work: 0,
                stages: false,
            };
            let leased = store.claim_by_id(request, job.id).await.expect("claimed");
            if number < 3 {
                store
                    .finish(leased.lease, Outcome::Succeeded(json!({ "n": number })))
                    .await
                    .expect("recorded");
            }
        }
    }
    store.close().await;
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("there").mode() & 0o777
}

fn beside(dump: &Path, end: &str) -> PathBuf {
    PathBuf::from(dump.display().to_string().replace(".dump", end))
}

/// Says of a dump that it is what was written, as somebody would who changed it.
fn vouch_for(dump: &Path) {
    let bytes = fs::read(dump).expect("read");
    let sum: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let name = dump.file_name().expect("a name").to_string_lossy();
    fs::write(beside(dump, ".dump.sha256"), format!("{sum}  {name}\n")).expect("written");
    let path = beside(dump, ".manifest.json");
    let mut manifest: Value =
        serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    manifest["sha256"] = json!(sum);
    manifest["bytes"] = json!(bytes.len());
    fs::write(&path, manifest.to_string()).expect("written");
}

#[tokio::test]
async fn a_backup_is_private_verified_on_record_and_proved_by_a_drill() {
    let server = Server::new().await;
    server.live().await;
    let dump = server.back_up();
    assert_eq!(mode(&server.backups()), 0o700);
    for end in [".dump", ".dump.sha256", ".manifest.json"] {
        assert_eq!(mode(&beside(&dump, end)), 0o600, "{end}");
    }
    let sums = run(program("sha256sum")
        .arg("--check")
        .arg(beside(&dump, ".dump.sha256"))
        .current_dir(server.backups()));
    assert!(sums.ends_with("OK"), "{sums}");
    let row = server.psql("select jobs, events, encode(sha256, 'hex'), file from ops_backups");
    let manifest: Value =
        serde_json::from_slice(&fs::read(beside(&dump, ".manifest.json")).expect("read"))
            .expect("JSON");
    assert_eq!(
        row,
        format!(
            "5|12|{}|{}",
            manifest["sha256"].as_str().expect("text"),
            dump.display()
        )
    );
    assert_eq!(manifest["verified"]["findings"], 0);

    // The newest is drilled, and the live system may go on meanwhile.
    server.live().await;
    let (code, said, err) = server.db(&["drill"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        (&said["ok"], &said["jobs"], &said["file"]),
        (&json!(true), &json!(5), &json!(dump))
    );
    assert!(
        said["backup_age_seconds"].as_f64().is_some() && said["restore_seconds"].as_f64().is_some(),
        "{said}"
    );
    assert_eq!(
        server.psql("select ok, jobs, events from ops_drills"),
        "t|5|12"
    );
    assert_eq!(
        server.psql("select count(*) from pg_database where datname like 'ops\\_drill%'"),
        "0"
    );
    server.cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn what_is_wrong_with_a_backup_fails_its_drill_and_is_named() {
    let server = Server::new().await;
    let problems = server.db(&["drill"]).1;
    assert!(
        problems["problems"][0]
            .as_str()
            .expect("one")
            .contains("no backup"),
        "{problems}"
    );
    server.live().await;
    let dump = server.back_up();
    assert_eq!(server.problems(&dump), Vec::<String>::new());
    let whole = fs::read(&dump).expect("read");
    let says = |what: &str, word: &str| {
        let problems = server.problems(&dump);
        assert!(
            problems.iter().any(|problem| problem.contains(word)),
            "{what}: {problems:?}"
        );
    };

    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(&dump, &flipped).expect("written");
    says("a flipped byte", "is not what was written: its SHA-256");
    fs::write(&dump, &whole[..whole.len() - 100]).expect("written");
    says("a truncated file", "is not what was written: its SHA-256");
    vouch_for(&dump);
    says("a truncated file that somebody vouched for", "pg_restore");

    let dump_without = |option: &str| {
        let pg_dump = server.cluster.programs().directory().join("pg_dump");
        run(program(pg_dump)
            .args(["-Fc", option, "-d", &server.url, "-f"])
            .arg(&dump));
        vouch_for(&dump);
    };
    dump_without("--exclude-table=ops_job_log");
    says(
        "a missing table",
        "table ops_job_log (0 rows) is missing from the dump",
    );
    dump_without("--exclude-table-data=ops_job_events");
    says(
        "a table without its rows",
        "table ops_job_events (12 rows) is missing from the dump",
    );
    server.psql("set session_replication_role = replica; delete from ops_job_events where kind = 'succeeded' and job_id = (select min(id::text)::uuid from ops_jobs)");
    dump_without("--no-comments");
    says(
        "a missing row",
        "table ops_job_events has 11 rows, and had 12 in the snapshot",
    );
    says("a missing row", "not explained by their events");
    server.psql("set session_replication_role = replica; update ops_jobs set payload = '{}'");
    dump_without("--no-comments");
    says(
        "another content",
        "table ops_jobs has the 5 rows of the snapshot, but not their content",
    );

    fs::write(&dump, "not a dump").expect("written");
    vouch_for(&dump);
    says("something else", "pg_restore");
    fs::remove_file(beside(&dump, ".dump.sha256")).expect("removed");
    says("no sum beside it", "dump.sha256");
    server.cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_restore_goes_into_an_empty_database_or_puts_the_present_one_aside() {
    let server = Server::new().await;
    server.live().await;
    let dump = server.back_up().display().to_string();
    let highest = server.psql("select max(fence) from ops_jobs");
    server.live().await;

    let (code, _, err) = server.db(&["restore", &dump]);
    assert_eq!(code, 2);
    assert!(err.contains("not empty") && err.contains("--yes"), "{err}");
    let (code, said, err) = server.db(&["restore", &dump, "--yes"]);
    assert_eq!((code, &said["lost"]), (0, &json!(1)), "{err}");
    assert_eq!(server.psql("select count(*) from ops_jobs"), "5");
    assert_eq!(
        server.psql("select status, count(*) from ops_jobs group by 1 order by 1"),
        "failed|1\nqueued|1\nsucceeded|3"
    );
    assert!(server.psql("select reason from ops_fleet where paused_at is not null and restored_at is not null").contains("restored from ops-jobs-"));
    assert!(
        server
            .psql("select last_value from ops_fence")
            .parse::<i64>()
            .expect("a number")
            > highest.parse::<i64>().expect("a number") + 1_000_000
    );
    assert_eq!(server.psql("select has_function_privilege('ops_runner', 'ops_apply_retention(text, int)', 'execute'), has_table_privilege('ops_runner', 'ops_job_events', 'delete')"), "t|f");
    assert_eq!(outcome(&mut server.opsctl(&["verify"])).0, 0);

    // What was there is kept as it was.
    let aside = said["kept_as"].as_str().expect("a name");
    let kept = Server {
        url: server.cluster.url(aside),
        folder: tempfile::tempdir().expect("a folder"),
        ..server
    };
    assert_eq!(
        kept.psql("select count(*), count(*) filter (where status = 'running') from ops_jobs"),
        "10|2"
    );

    kept.cluster
        .create_database("fresh")
        .await
        .expect("a database");
    let fresh = Server {
        url: kept.cluster.url("fresh"),
        ..kept
    };
    let (code, said, err) = fresh.db(&["restore", &dump]);
    assert_eq!((code, &said["kept_as"]), (0, &Value::Null), "{err}");
    assert_eq!(fresh.psql("select count(*) from ops_jobs"), "5");

    // A broken one changes nothing, wherever it was to go.
    let before = fresh.psql("select string_agg(datname, ' ' order by datname) from pg_database");
    let bytes = fs::read(&dump).expect("read");
    fs::write(&dump, &bytes[..bytes.len() - 100]).expect("written");
    assert_eq!(fresh.db(&["restore", &dump, "--yes"]).0, 1);
    vouch_for(Path::new(&dump));
    assert_eq!(fresh.db(&["restore", &dump, "--yes"]).0, 1);
    assert_eq!(
        fresh.psql("select string_agg(datname, ' ' order by datname) from pg_database"),
        before
    );
    assert_eq!(fresh.psql("select count(*) from ops_jobs"), "5");
    fresh.cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn objects_go_with_the_dump_and_come_back_and_a_failed_backup_removes_nothing() {
    let server = Server::new().await;
    server.live().await;
    let place = server.folder.path().join("objects");
    fs::create_dir(&place).expect("made");
    let address = format!("file://{}", place.display());
    let key = "0190163d-8694-739b-aea5-966c26f8ad90";
    fs::write(place.join(key), "what a job left").expect("written");
    let insert = |key: &str, text: &str| {
        let sum: String = Sha256::digest(text)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        server.psql(&format!(
            "insert into ops_files (id, job_id, kind, name, content_type, size, sha256, crc32, object)
             select gen_random_uuid(), id, 'input', md5('{key}'), 'text/plain', {}, '\\x{sum}', 1, '{key}' from ops_jobs limit 1",
            text.len()
        ));
    };
    insert(key, "what a job left");
    // Old ones, which would have had their time.
    fs::create_dir(server.backups()).expect("made");
    fs::set_permissions(server.backups(), fs::Permissions::from_mode(0o700)).expect("closed");
    for day in 1..=5 {
        fs::write(
            server
                .backups()
                .join(format!("ops-jobs-2020010{day}T000000Z.dump")),
            "old",
        )
        .expect("written");
    }
    let entries = || {
        let mut names: Vec<String> = fs::read_dir(server.backups())
            .expect("read")
            .map(|entry| {
                entry
                    .expect("one")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    };
    let (code, _, err) = server.db(&["backup"]);
    assert_eq!(code, 2);
    assert!(err.contains("ARTIFACT_STORE"), "{err}");
    assert_eq!(entries().len(), 6, "the five and the lock: {:?}", entries());
    assert_eq!(server.psql("select count(*) from ops_backups"), "0");

    let with_objects = |arguments: &[&str]| {
        let all: Vec<&str> = ["--output", "json", "db"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let (code, out, err) = outcome(server.opsctl(&all).env("ARTIFACT_STORE", &address));
        (
            code,
            serde_json::from_str::<Value>(&out).unwrap_or_default(),
            err,
        )
    };
    let (code, said, err) = with_objects(&["backup"]);
    assert_eq!((code, &said["objects"]), (0, &json!(1)), "{err}");
    assert_eq!(
        said["removed"].as_array().expect("a list").len(),
        3,
        "the newest three stay: {said}"
    );
    let dump = said["file"].as_str().expect("a path").to_owned();
    let copy = beside(Path::new(&dump), ".objects").join(key);
    assert_eq!(
        fs::read_to_string(&copy).expect("copied"),
        "what a job left"
    );

    fs::remove_file(place.join(key)).expect("removed");
    let (code, _, err) = with_objects(&["restore", &dump, "--yes"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        fs::read_to_string(place.join(key)).expect("back"),
        "what a job left"
    );
    fs::write(&copy, "what a job lost").expect("written");
    assert!(server.problems(Path::new(&dump))[0].contains(key));
    assert_eq!(with_objects(&["restore", &dump, "--yes"]).0, 1);

    // One that is gone is named, and the rest is kept all the same.
    insert("0190163d-8694-739b-aea5-000000000000", "gone");
    let before = entries()
        .iter()
        .filter(|name| name.ends_with(".dump"))
        .count();
    let (code, said, _) = with_objects(&["backup"]);
    assert_eq!((code, said["objects"].as_u64()), (1, Some(1)));
    assert!(
        said["objects_lost"][0]
            .as_str()
            .expect("one")
            .contains("000000000000")
    );
    assert_eq!(
        entries()
            .iter()
            .filter(|name| name.ends_with(".dump"))
            .count(),
        before + 1
    );
    server.cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn the_script_makes_the_same_with_opsctl_and_by_pg_dump_alone() {
    let server = Server::new().await;
    server.live().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/backup_db.sh");
    let back_up = |opsctl: &str, url: &str| {
        let mut command = program("bash");
        command
            .arg(&script)
            .env("OPSCTL", opsctl)
            .env("DATABASE_URL", url)
            .env("BACKUP_DIR", server.backups());
        outcome(&mut command)
    };
    let (code, out, err) = back_up(env!("CARGO_BIN_EXE_opsctl"), &server.url);
    assert_eq!(code, 0, "{err}");
    let first = PathBuf::from(out.trim());
    assert!(beside(&first, ".manifest.json").exists());
    fs::remove_file(&first).expect("its second may be that of the next");
    for day in 1..=5 {
        fs::write(
            server
                .backups()
                .join(format!("ops-jobs-2020010{day}T000000Z.dump")),
            "old",
        )
        .expect("written");
        fs::write(
            server
                .backups()
                .join(format!("ops-jobs-2020010{day}T000000Z.dump.old")),
            "foreign",
        )
        .expect("written");
    }
    let (code, out, err) = back_up("none", &server.url);
    assert_eq!(code, 0, "{err}");
    let second = PathBuf::from(out.trim());
    assert_eq!(mode(&second), 0o600);
    let dumps = fs::read_dir(server.backups())
        .expect("read")
        .filter(|entry| {
            entry
                .as_ref()
                .expect("one")
                .path()
                .extension()
                .is_some_and(|end| end == "dump")
        });
    assert_eq!(dumps.count(), 3);
    fs::remove_file(beside(&second, ".manifest.json")).ok();
    assert_eq!(server.problems(&second), Vec::<String>::new());
    let (code, said, err) = server.db(&["restore", &second.display().to_string(), "--yes"]);
    assert_eq!((code, &said["lost"]), (0, &json!(1)), "{err}");

    let (code, _, err) = back_up("none", "postgres://u:canary@127.0.0.1:1/x");
    assert_ne!(code, 0);
    assert!(!err.contains("canary"), "{err}");
    assert_eq!(back_up("none", "").0, 2);
    server.cluster.stop().await.expect("stopped");
}
