//! A whole system in this process: a database of its own, control planes and runners on free ports, the clients for
//! them, and the proof at the end that nothing is left.

mod builder;

use std::fs;
use std::path::{Path, PathBuf};

use control_plane::ControlPlane;
use runner::RunningRunner;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::call::{Answer, Client};
use crate::database::Database;
use crate::leftovers::processes_of;
use crate::program::Start;
use crate::wait::wait_until;

pub use builder::Builder;

/// The key that the control planes accept.
pub const API_KEY: &str = "opsk_of_the_system_tests_1";
/// The token that the runners accept.
pub const RUNNER_TOKEN: &str = "opsr_of_the_system_tests_1";
/// Signs cursors.
pub const SECRET_KEY: &str = "secret_key_of_the_system_tests_0123456789";

/// Where the control plane's routes are.
const BASE: &str = "/api/v1/ops";

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

impl System {
    /// A system of one control plane and one runner, with its usual features on.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The control plane of this number (0, 1 …), with the key shown.
    pub fn control_plane(&self, number: usize) -> Client {
        Client::new(&self.control_planes[number].url())
            .at(BASE)
            .with("x-ops-key", API_KEY)
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
        self.ops
            .get(&format!("/jobs/{id}"))
            .await
            .expect(200)
            .json()
    }

    /// The job's events so far, after checking that they are numbered without gaps.
    pub async fn events(&self, id: &str) -> Vec<Value> {
        let answer = self
            .ops
            .get(&format!("/jobs/{id}/events"))
            .await
            .expect(200)
            .json();
        let events = answer["events"].as_array().cloned().expect("events");
        let gapless = events
            .iter()
            .enumerate()
            .all(|(index, event)| event["seq"] == index + 1);
        assert!(gapless, "{events:?}");
        events
    }

    /// The kinds of the job's events so far.
    pub async fn kinds(&self, id: &str) -> Vec<String> {
        self.events(id)
            .await
            .iter()
            .map(|event| event["kind"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// What the job has printed.
    pub async fn log(&self, id: &str) -> String {
        self.ops
            .get(&format!("/jobs/{id}/log"))
            .await
            .expect(200)
            .body
    }

    /// Waits until the job has this status; fails at once when it ends in another.
    pub async fn until(&self, id: &str, status: &str) -> Value {
        wait_until(&format!("job {id} is {status}"), async || {
            let job = self.job(id).await;
            if job["status"] == status {
                return Some(job);
            }
            let ended = matches!(
                job["status"].as_str(),
                Some("succeeded" | "failed" | "aborted")
            );
            assert!(
                !ended,
                "job {id} should become {status}, but: {job}\n{}",
                self.log(id).await
            );
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

    /// Runs the operators' command with everything that the programs are told: its exit code, what it printed, and what it
    /// complained about.
    pub async fn opsctl(&self, arguments: &[&str]) -> (i32, String, String) {
        Start::of("opsctl")
            .environment(self.environment())
            .set("OPS_URL", &self.ops.at("").url(""))
            .arguments(arguments)
            .run()
            .await
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
        let running = self
            .database
            .count("select count(*) from ops_jobs where status = 'running'")
            .await;
        assert_eq!(running, 0, "jobs are left running");
        let folder = self.folder.path().to_path_buf();
        wait_until("no process of a job is left", async || {
            processes_of(&folder).is_empty().then_some(())
        })
        .await;
        let left: Vec<PathBuf> = fs::read_dir(folder.join("work"))
            .map(|entries| {
                entries
                    .filter_map(|entry| Some(entry.ok()?.path()))
                    .collect()
            })
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
