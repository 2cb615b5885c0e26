//! A job is done while the database is away, and the runner ends before it is back.

use std::fs;
use std::path::{Path, PathBuf};

use fault_proxy::{Direction, Fault, Proxy, Reach};
use jobs::{Job, NewJob, Status, Store, StoreOptions};
use runner::{Handlers, RunningRunner};
use service::{Environment, Sources};
use tempfile::TempDir;
use tests::{Database, RUNNER_TOKEN, wait_until};

use crate::database::proxied;

struct Scene {
    database: Database,
    store: Store,
    proxy: Proxy,
    url: String,
    folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let database = Database::migrated().await;
        let (proxy, url) = proxied(&database.url).await;
        let store =
            Store::new(&StoreOptions::new(database.url.clone(), 2, "tests")).expect("a store");
        let folder = TempDir::new().expect("a folder");
        let (began, go) = (folder.path().join("began"), folder.path().join("go"));
        let script = format!(
            "touch {}; while [ ! -e {} ]; do sleep 0.05; done; echo '{{\"n\": 1}}' > \"$OPS_RESULT_FILE\"",
            began.display(),
            go.display()
        );
        let file = format!("[job_types.slow]\ncommand = [\"sh\", \"-c\", '''{script}''']\n");
        fs::write(folder.path().join("runner.toml"), file).expect("a settings file");
        Self {
            database,
            store,
            proxy,
            url,
            folder,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn runner(&self) -> RunningRunner {
        let work = self.file("work").display().to_string();
        let environment = Environment::from_pairs([
            ("APP_ENV", "test"),
            ("DATABASE_URL", &self.url),
            ("RUNNER_TOKEN", RUNNER_TOKEN),
            ("RUNNER_BIND", "127.0.0.1:0"),
            ("RUNNER_ID", "the-runner"),
            ("RUNNER_WORK_DIR", &work),
            ("RUNNER_ALLOWLIST", "slow"),
            ("RUNNER_POLL_INTERVAL_SECONDS", "1"),
            ("RUNNER_DRAIN_SECONDS", "0"),
            ("RUNNER_LEASE_SECONDS", "60"),
        ]);
        let sources = Sources {
            config: Some(self.file("runner.toml")),
            environment,
        };
        let config = runner::Config::load(sources).unwrap_or_else(|error| panic!("{error}"));
        runner::start(config, Handlers::default())
            .await
            .expect("a runner")
    }

    fn kept(&self) -> Vec<PathBuf> {
        let names = fs::read_dir(self.file("work"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        names
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect()
    }

    async fn job(&self, job: &Job) -> Job {
        self.store
            .get(job.id)
            .await
            .expect("an answer")
            .expect("the job")
    }

    /// The job is done, the database does not know, and its runner is gone.
    async fn done_and_not_recorded(&self) -> Job {
        let new = NewJob::new("slow".parse().expect("a name"), serde_json::json!({}));
        let job = self
            .store
            .submit(new, "key:test")
            .await
            .expect("recorded")
            .into_job();
        let runner = self.runner().await;
        let began = self.file("began");
        wait_until("the job runs", async || Path::exists(&began).then_some(())).await;
        self.proxy
            .set(Reach::All, Direction::Both, Fault::BlackHole);
        fs::write(self.file("go"), "").expect("a file");
        wait_until("the outcome is on disk", async || {
            (self.kept().len() == 1).then_some(())
        })
        .await;
        runner.stop_at_once();
        runner.join().await.expect("an end in order");
        assert_eq!(self.job(&job).await.status, Status::Running);
        assert_eq!(self.kept().len(), 1);
        self.proxy.pass();
        job
    }

    async fn handed_in(&self) {
        wait_until("the outcome is handed in", async || {
            self.kept().is_empty().then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_could_not_be_recorded_is_handed_in_by_the_runners_next_life() {
    let scene = Scene::new().await;
    let job = scene.done_and_not_recorded().await;
    let runner = scene.runner().await;
    scene.handed_in().await;
    let job = scene.job(&job).await;
    assert_eq!((job.status, job.attempt), (Status::Succeeded, 1));
    assert_eq!(job.result, Some(serde_json::json!({"n": 1})));
    runner.stop();
    runner.join().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_comes_too_late_is_refused_and_noted() {
    let scene = Scene::new().await;
    let job = scene.done_and_not_recorded().await;
    sqlx::query("update ops_jobs set lease_expires_at = clock_timestamp() - interval '1 second' where id = $1")
        .bind(job.id)
        .execute(&scene.database.psql)
        .await
        .expect("expired");
    assert_eq!(
        scene
            .store
            .sweep("sweep:test")
            .await
            .expect("swept")
            .recovered,
        1
    );
    let runner = scene.runner().await;
    scene.handed_in().await;
    let events = scene.store.events(job.id, 0, 100).await.expect("events");
    assert!(
        events
            .iter()
            .any(|event| event.kind == "stale_result_refused"),
        "{events:?}"
    );
    assert_eq!(scene.job(&job).await.status, Status::Failed);
    runner.stop();
    runner.join().await.expect("an end in order");
}
