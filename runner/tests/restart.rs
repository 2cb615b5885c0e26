//! The real program, killed and started again under its name.
#![expect(clippy::expect_used, reason = "a test that cannot be set up must fail")]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jobs::{NewJob, Status, Store, StoreOptions};
use local_postgres::testing::TestDatabase;
use serde_json::json;
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(30);

/// Stays in its first attempt, and is done at once in any later one.
const TYPES: &str = r#"
[job_types.stay]
command = ["sh", "-c", 'if mkdir "$HOME/been-here"; then exec sleep 40; fi']
max_attempts = 3
"#;

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the program under test is a process"
)]
fn start(folder: &Path, url: &str, settings: &[(&str, &str)]) -> Program {
    let file = |name: &str| File::create(folder.join(name)).expect("a file");
    let child = Command::new(env!("CARGO_BIN_EXE_runner"))
        .arg("--config")
        .arg(folder.join("runner.toml"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .env("TMPDIR", folder)
        .env("APP_ENV", "test")
        .env("DATABASE_URL", url)
        .env("RUNNER_TOKEN", "opsr_of_the_restart_test")
        .env("RUNNER_BIND", "127.0.0.1:0")
        .env("RUNNER_ID", "one")
        .env("RUNNER_ALLOWLIST", "stay")
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(file("stdout"))
        .stderr(file("stderr"))
        .spawn()
        .expect("a process");
    Program(child)
}

async fn wait_until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(begun.elapsed() < LIMIT, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until(store: &Store, id: Uuid, status: Status) {
    wait_until(&format!("job {id} is {status}"), async || {
        let job = store.get(id).await.expect("an answer").expect("the job");
        (job.status == status).then_some(())
    })
    .await;
}

async fn database() -> (TestDatabase, Store) {
    let store_on =
        |url: String| Store::new(&StoreOptions::new(url, 2, "test")).expect("an address");
    let database = local_postgres::testing::database(
        &format!("jobs_{}", jobs::schema_fingerprint()),
        async |url| {
            let store = store_on(url);
            store.migrate().await.expect("the migrations apply");
            store.close().await;
            Ok(())
        },
    )
    .await
    .expect("a test database");
    let store = store_on(database.url.clone());
    (database, store)
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("runner.toml"), TYPES).expect("a settings file");
    folder
}

async fn record(store: &Store) -> Uuid {
    let new = NewJob::new("stay".parse().expect("a name"), json!({}));
    let recorded = store.submit(new, "key:test").await.expect("recorded");
    recorded.into_job().id
}

#[tokio::test]
async fn a_runner_that_is_killed_and_started_again_gives_its_jobs_back_at_once() {
    let ((database, store), folder) = (database().await, folder());
    let work = folder.path().join("work").display().to_string();
    let settings = [
        ("RUNNER_WORK_DIR", work.as_str()),
        ("RUNNER_LEASE_SECONDS", "600"),
    ];
    let id = record(&store).await;
    let first = start(folder.path(), &database.url, &settings);
    until(&store, id, Status::Running).await;
    let been_here = folder.path().join("been-here");
    wait_until("the first attempt is at work", async || {
        been_here.exists().then_some(())
    })
    .await;
    drop(first);
    let killed = Instant::now();
    let _second = start(folder.path(), &database.url, &settings);
    until(&store, id, Status::Succeeded).await;
    let took = killed.elapsed();
    assert!(took <= Duration::from_secs(2), "{took:?}");
    let events = store.events(id, 0, 100).await.expect("events");
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "queued",
            "running",
            "lease_expired",
            "retry_scheduled",
            "running",
            "succeeded"
        ]
    );
}

async fn refused(program: &mut Program, folder: &Path) {
    let status = wait_until("the second one ends", async || {
        program.0.try_wait().expect("a status")
    })
    .await;
    let complaint = fs::read_to_string(folder.join("stderr")).expect("its output");
    assert_eq!(status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("bears RUNNER_ID one"), "{complaint}");
}

#[tokio::test]
async fn of_two_with_one_name_the_second_does_not_start() {
    let ((database, store), here, elsewhere) = (database().await, folder(), folder());
    let work = here.path().join("work").display().to_string();
    let settings = [("RUNNER_WORK_DIR", work.as_str())];
    let id = record(&store).await;
    let mut first = start(here.path(), &database.url, &settings);
    until(&store, id, Status::Running).await;
    // In the same folder its lock says so, anywhere else the database does.
    for settings in [settings.as_slice(), &[]] {
        let mut second = start(elsewhere.path(), &database.url, settings);
        refused(&mut second, elsewhere.path()).await;
    }
    assert!(first.0.try_wait().expect("a status").is_none());
    let job = store.get(id).await.expect("an answer").expect("the job");
    assert_eq!((job.status, job.attempt), (Status::Running, 1));
}
