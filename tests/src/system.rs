//! A whole system in this process: a database of its own, control planes and runners on free ports, the clients for
//! them, and the proof at the end that nothing is left.

use std::fs;
use std::path::{Path, PathBuf};

use control_plane::ControlPlane;
use runner::{Handlers, RunningRunner};
use serde_json::{Value, json};
use service::{Environment, Sources};
use tempfile::TempDir;

use crate::call::{Answer, Client};
use crate::database::Database;
use crate::leftovers::processes_of;
use crate::wait::wait_until;

/// The key that the control planes accept.
pub const API_KEY: &str = "opsk_of_the_system_tests_1";
/// The token that the runners accept.
pub const RUNNER_TOKEN: &str = "opsr_of_the_system_tests_1";
/// Signs cursors.
pub const SECRET_KEY: &str = "secret_key_of_the_system_tests_0123456789";

/// Where the control plane's routes are.
const BASE: &str = "/api/v1/ops";

/// A system to start.
#[must_use = "a system runs when it is started"]
pub struct Builder {
    settings: Vec<(String, String)>,
    job_types: String,
    files: Vec<(String, String)>,
    allowed: Vec<String>,
    handlers: fn() -> Handlers,
    control_planes: usize,
    runners: usize,
    database_url: Option<String>,
}

/// A system that runs. It must be stopped: only then is it proved that nothing is left of it.
pub struct System {
    /// The control plane, with the key shown.
    pub ops: Client,
    /// Its database.
    pub database: Database,
    control_planes: Vec<ControlPlane>,
    runners: Vec<RunningRunner>,
    environment: Vec<(String, String)>,
    folder: TempDir,
    stopped: bool,
}

impl Builder {
    /// Sets a setting of both services; the later of two values holds.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Declares and allows a job type: the lines of its table in the runner's settings file.
    pub fn job_type(mut self, name: &str, table: &str) -> Self {
        self.job_types.push_str(&format!("[job_types.{name}]\n{table}\n"));
        self.allow(name)
    }

    /// Declares and allows a job type that runs a line of shell.
    pub fn shell(self, name: &str, script: &str, terms: &str) -> Self {
        self.job_type(name, &format!("command = [\"sh\", \"-c\", '''\n{script}\n''']\n{terms}"))
    }

    /// Puts a file beside the runner's settings file.
    pub fn file(mut self, name: &str, content: &str) -> Self {
        self.files.push((name.to_owned(), content.to_owned()));
        self
    }

    /// Allows a job type.
    pub fn allow(mut self, name: &str) -> Self {
        self.allowed.push(name.to_owned());
        self
    }

    /// Gives the runners handlers of the test's own.
    pub fn handlers(mut self, handlers: fn() -> Handlers) -> Self {
        self.handlers = handlers;
        self
    }

    /// So many control planes, one unless said.
    pub fn control_planes(mut self, count: usize) -> Self {
        self.control_planes = count;
        self
    }

    /// So many runners, one unless said.
    pub fn runners(mut self, count: usize) -> Self {
        self.runners = count;
        self
    }

    /// Services on another database than the test's own.
    pub fn on(mut self, database_url: &str) -> Self {
        self.database_url = Some(database_url.to_owned());
        self
    }

    /// Starts everything.
    pub async fn start(self) -> System {
        let database = Database::migrated().await;
        let folder = tempfile::Builder::new().prefix("ops-system-").tempdir().expect("a folder");
        fs::write(folder.path().join("runner.toml"), &self.job_types).expect("a settings file");
        for (name, content) in &self.files {
            fs::write(folder.path().join(name), content).expect("a file");
        }
        let url = self.database_url.clone().unwrap_or_else(|| database.url.clone());
        let mut environment = self.environment(&url, folder.path());
        let mut runners = Vec::new();
        for number in 1..=self.runners {
            let mut own = environment.clone();
            own.push(("RUNNER_ID".to_owned(), format!("runner-{number}")));
            runners.push(start_runner(own, folder.path(), (self.handlers)()).await);
        }
        if let Some(first) = runners.first() {
            environment.insert(0, ("RUNNER_URL".to_owned(), first.url().to_owned()));
        }
        let mut control_planes = Vec::new();
        for _ in 0..self.control_planes {
            control_planes.push(start_control_plane(environment.clone()).await);
        }
        let ops = control_planes.first().map_or_else(|| "http://127.0.0.1:1".to_owned(), ControlPlane::url);
        let ops = Client::new(&ops).at(BASE).with("x-ops-key", API_KEY);
        System { ops, database, control_planes, runners, environment, folder, stopped: false }
    }

    fn environment(&self, database_url: &str, folder: &Path) -> Vec<(String, String)> {
        let allowed = self.allowed.join(",") + if self.allowed.is_empty() { "" } else { "," } + "metrics_refresh";
        let work = folder.join("work").display().to_string();
        let usual = [
            // Where nobody listens; the first runner's address, where there is one, goes before this.
            ("RUNNER_URL", "http://127.0.0.1:1"),
            ("APP_ENV", "test"),
            ("DATABASE_URL", database_url),
            ("DATABASE_MAX_CONNECTIONS", "5"),
            ("SECRET_KEY", SECRET_KEY),
            ("OPS_API_KEY", API_KEY),
            ("CONTROL_PLANE_BIND", "127.0.0.1:0"),
            ("RUNNER_TOKEN_OUTBOUND", RUNNER_TOKEN),
            ("RUNNER_TOKEN", RUNNER_TOKEN),
            ("RUNNER_BIND", "127.0.0.1:0"),
            ("RUNNER_WORK_DIR", &work),
            ("RUNNER_ALLOWLIST", &allowed),
            ("RUNNER_POLL_INTERVAL_SECONDS", "1"),
            ("RUNNER_DRAIN_SECONDS", "0"),
            ("JOBS_ENABLED", "1"),
            ("RUNNER_ENABLED", "1"),
            ("FEATURE_METRICS", "1"),
        ];
        let usual = usual.map(|(name, value)| (name.to_owned(), value.to_owned()));
        usual.into_iter().skip(usize::from(self.runners > 0)).chain(self.settings.iter().cloned()).collect()
    }
}

async fn start_runner(environment: Vec<(String, String)>, folder: &Path, handlers: Handlers) -> RunningRunner {
    let sources = Sources {
        config: Some(folder.join("runner.toml")),
        environment: Environment::from_pairs(environment),
    };
    let config = runner::Config::load(sources).unwrap_or_else(|error| panic!("runner: {error}"));
    runner::start(config, handlers).await.expect("a runner")
}

async fn start_control_plane(environment: Vec<(String, String)>) -> ControlPlane {
    let sources = Sources { config: None, environment: Environment::from_pairs(environment) };
    let config = control_plane::Config::load(sources).unwrap_or_else(|error| panic!("control plane: {error}"));
    service::install_crypto();
    control_plane::start(config).await.expect("a control plane")
}

impl System {
    /// A system of one control plane and one runner, with its usual features on.
    pub fn builder() -> Builder {
        Builder {
            settings: Vec::new(),
            job_types: String::new(),
            files: Vec::new(),
            allowed: Vec::new(),
            handlers: Handlers::default,
            control_planes: 1,
            runners: 1,
            database_url: None,
        }
    }

    /// The control plane of this number (0, 1 …), with the key shown.
    pub fn control_plane(&self, number: usize) -> Client {
        Client::new(&self.control_planes[number].url()).at(BASE).with("x-ops-key", API_KEY)
    }

    /// The runner of this number (0, 1 …), with the token shown.
    pub fn runner(&self, number: usize) -> Client {
        Client::new(self.runners[number].url()).with("x-runner-token", RUNNER_TOKEN)
    }

    /// The runner of this number, as the process that holds it sees it.
    pub fn running_runner(&self, number: usize) -> &RunningRunner {
        &self.runners[number]
    }

    /// What both services were told, for real programs beside them.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.environment.clone()
    }

    /// A folder that goes with the system.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file in which the job types are declared.
    pub fn runner_file(&self) -> PathBuf {
        self.folder().join("runner.toml")
    }

    /// Records a job and gives its id.
    pub async fn submit(&self, body: &Value) -> String {
        let job = self.ops.post("/jobs", body).await.expect(201).json();
        job["id"].as_str().expect("an id").to_owned()
    }

    /// Records a job of a type with an empty payload and gives its id.
    pub async fn submit_type(&self, job_type: &str) -> String {
        self.submit(&json!({ "job_type": job_type })).await
    }

    /// The job as it is now.
    pub async fn job(&self, id: &str) -> Value {
        self.ops.get(&format!("/jobs/{id}")).await.expect(200).json()
    }

    /// The job's events so far, after checking that they are numbered without gaps.
    pub async fn events(&self, id: &str) -> Vec<Value> {
        let answer = self.ops.get(&format!("/jobs/{id}/events")).await.expect(200).json();
        let events = answer["events"].as_array().cloned().expect("events");
        let gapless = events.iter().enumerate().all(|(index, event)| event["seq"] == index + 1);
        assert!(gapless, "{events:?}");
        events
    }

    /// The kinds of the job's events so far.
    pub async fn kinds(&self, id: &str) -> Vec<String> {
        self.events(id).await.iter().map(|event| event["kind"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What the job has printed.
    pub async fn log(&self, id: &str) -> String {
        self.ops.get(&format!("/jobs/{id}/log")).await.expect(200).body
    }

    /// Waits until the job has this status; fails at once when it ends in another.
    pub async fn until(&self, id: &str, status: &str) -> Value {
        wait_until(&format!("job {id} is {status}"), async || {
            let job = self.job(id).await;
            if job["status"] == status {
                return Some(job);
            }
            let ended = matches!(job["status"].as_str(), Some("succeeded" | "failed" | "aborted"));
            assert!(!ended, "job {id} should become {status}, but: {job}\n{}", self.log(id).await);
            None
        })
        .await
    }

    /// Records a job and waits until it has this status.
    pub async fn run_until(&self, body: &Value, status: &str) -> Value {
        let id = self.submit(body).await;
        self.until(&id, status).await
    }

    /// Asks for a job's end.
    pub async fn abort(&self, id: &str) -> Answer {
        self.ops.press(&format!("/jobs/{id}/abort")).await
    }

    /// Stops everything and proves that nothing is left: no running job, no process of a job, no folder of a run.
    pub async fn stop(mut self) {
        self.stopped = true;
        for control_plane in std::mem::take(&mut self.control_planes) {
            control_plane.stop().await;
        }
        for runner in &self.runners {
            runner.stop();
        }
        for runner in std::mem::take(&mut self.runners) {
            runner.join().await.expect("a runner that ends in order");
        }
        let running = self.database.count("select count(*) from ops_jobs where status = 'running'").await;
        assert_eq!(running, 0, "jobs are left running");
        let folder = self.folder.path().to_path_buf();
        wait_until("no process of a job is left", async || processes_of(&folder).is_empty().then_some(())).await;
        let left: Vec<PathBuf> = fs::read_dir(folder.join("work"))
            .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
            .unwrap_or_default();
        assert!(left.is_empty(), "folders of runs are left: {left:?}");
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // A test that fails already says why.
        if !self.stopped && !std::thread::panicking() {
            panic!("a system was not stopped, so nothing proves that it leaves nothing behind");
        }
    }
}
