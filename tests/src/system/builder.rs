//! How a system is put together: what is usual, what a test changes, and the order in which all is started.

use std::fs;
use std::path::Path;

use control_plane::ControlPlane;
use runner::{Handlers, RunningRunner};
use service::{Environment, Sources};

use super::{API_KEY, BASE, RUNNER_TOKEN, SECRET_KEY, System};
use crate::call::Client;
use crate::database::Database;

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
    unmasked: bool,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            settings: Vec::new(),
            job_types: String::new(),
            files: Vec::new(),
            allowed: Vec::new(),
            handlers: Handlers::default,
            control_planes: 1,
            runners: 1,
            database_url: None,
            unmasked: false,
        }
    }

    /// Sets a setting of both services; the later of two values holds.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Declares and allows a job type: the lines of its table in the runner's settings file.
    pub fn job_type(mut self, name: &str, table: &str) -> Self {
        self.job_types
            .push_str(&format!("[job_types.{name}]\n{table}\n"));
        self.allow(name)
    }

    /// Declares and allows a job type that runs a line of shell.
    pub fn shell(self, name: &str, script: &str, terms: &str) -> Self {
        self.job_type(
            name,
            &format!("command = [\"sh\", \"-c\", '''\n{script}\n''']\n{terms}"),
        )
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

    /// Runners that mask no secret: to prove that one would be found.
    pub fn unmasked(mut self) -> Self {
        self.unmasked = true;
        self
    }

    /// Starts everything.
    pub async fn start(self) -> System {
        let database = Database::migrated().await;
        let folder = tempfile::Builder::new()
            .prefix("ops-system-")
            .tempdir()
            .expect("a folder");
        fs::write(folder.path().join("runner.toml"), &self.job_types).expect("a settings file");
        for (name, content) in &self.files {
            fs::write(folder.path().join(name), content).expect("a file");
        }
        let url = self
            .database_url
            .clone()
            .unwrap_or_else(|| database.url.clone());
        let mut environment = self.environment(&url, folder.path());
        let mut runners = Vec::new();
        for number in 1..=self.runners {
            let mut own = environment.clone();
            own.push(("RUNNER_ID".to_owned(), format!("runner-{number}")));
            runners.push(start_runner(own, folder.path(), (self.handlers)(), self.unmasked).await);
        }
        if let Some(first) = runners.first() {
            environment.insert(0, ("RUNNER_URL".to_owned(), first.url().to_owned()));
        }
        let mut control_planes = Vec::new();
        for _ in 0..self.control_planes {
            control_planes.push(start_control_plane(environment.clone()).await);
        }
        let ops = control_planes
            .first()
            .map_or_else(|| "http://127.0.0.1:1".to_owned(), ControlPlane::url);
        let ops = Client::new(&ops).at(BASE).with("x-ops-key", API_KEY);
        System {
            ops,
            database,
            control_planes,
            runners,
            environment,
            folder,
            stopped: false,
        }
    }

    fn environment(&self, database_url: &str, folder: &Path) -> Vec<(String, String)> {
        let allowed = self.allowed.join(",")
            + if self.allowed.is_empty() { "" } else { "," }
            + "metrics_refresh";
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
        usual
            .into_iter()
            .skip(usize::from(self.runners > 0))
            .chain(self.settings.iter().cloned())
            .collect()
    }
}

async fn start_runner(
    environment: Vec<(String, String)>,
    folder: &Path,
    handlers: Handlers,
    unmasked: bool,
) -> RunningRunner {
    let sources = Sources {
        config: Some(folder.join("runner.toml")),
        environment: Environment::from_pairs(environment),
    };
    let mut config =
        runner::Config::load(sources).unwrap_or_else(|error| panic!("runner: {error}"));
    // A test program cannot serve as the shim of its commands; the runner's own can.
    config.set_shim_program(crate::program::built("runner"));
    if unmasked {
        config.leave_secrets_unmasked();
    }
    runner::start(config, handlers).await.expect("a runner")
}

async fn start_control_plane(environment: Vec<(String, String)>) -> ControlPlane {
    let sources = Sources {
        config: None,
        environment: Environment::from_pairs(environment),
    };
    let config = control_plane::Config::load(sources)
        .unwrap_or_else(|error| panic!("control plane: {error}"));
    service::install_crypto();
    control_plane::start(config).await.expect("a control plane")
}
