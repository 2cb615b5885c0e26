//! Everything that is hurt: PostgreSQL, runners and control planes, each link through a proxy of its own.

use std::fs;
use std::path::{Path, PathBuf};

use fault_proxy::{Proxy, Target};
use local_postgres::Mode;
use local_postgres::testing::{PrivateCluster, private_cluster};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::profile::{CONTROL_PLANES, LEASE, POLL, RUNNERS, SLOTS};
use crate::programs::{Program, built, command};
use crate::terms::JOB_TYPES;

const DATABASE: &str = "gauntlet";
/// The key of the suite's clients.
pub(crate) const KEY: &str = "api-canary-5d1f-0123456789abcdef0123456789";
pub(crate) const TOKEN: &str = "token-canary-5d1f-0123456789abcdef01234567";
const SECRET: &str = "secret-canary-5d1f-0123456789abcdef0123456";
/// PostgreSQL does not look at it; a log that quotes it is wrong all the same.
const PASSWORD: &str = "password-canary-5d1f";

/// One of the programs, with the proxies on both sides of it.
#[derive(Debug)]
pub(crate) struct Service {
    /// Its name, which a runner also has in the database.
    pub(crate) name: String,
    program: &'static str,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// Between it and PostgreSQL.
    pub(crate) to_database: Proxy,
    /// Between its callers and it.
    pub(crate) to_it: Proxy,
    log: PathBuf,
    running: Mutex<Option<Program>>,
}

impl Service {
    /// Starts it, wherever it listens this time.
    pub(crate) async fn start(&self) {
        let mut command = command(self.program, &self.environment);
        command.args(&self.arguments);
        let (program, address) = Program::start(command, &self.name, &self.log).await;
        self.to_it.target(Target::Tcp(address));
        *self.running.lock().await = Some(program);
    }

    /// Starts its successor, sends callers there, and stops it in order: what a deploy does with what has no state.
    pub(crate) async fn replace(&self) {
        let before = self.running.lock().await.take();
        self.start().await;
        if let Some(program) = before {
            program.stop().await;
        }
    }

    /// What runs now, for as long as the guard is held.
    pub(crate) async fn running(&self) -> tokio::sync::MutexGuard<'_, Option<Program>> {
        self.running.lock().await
    }

    /// Stops it in order.
    pub(crate) async fn stop(&self) {
        if let Some(program) = self.running.lock().await.take() {
            program.stop().await;
        }
    }

    /// The end of what it logged.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// The whole system.
#[derive(Debug)]
pub(crate) struct System {
    /// PostgreSQL; nobody while it is being restarted.
    pub(crate) cluster: Mutex<Option<PrivateCluster>>,
    /// Its address for the suite itself, past all proxies.
    pub(crate) database_url: String,
    pub(crate) runners: Vec<Service>,
    pub(crate) control_planes: Vec<Service>,
    folder: TempDir,
}

impl System {
    /// Starts everything.
    pub(crate) async fn start() -> Self {
        let cluster = private_cluster(Mode::Durable)
            .await
            .expect("a private PostgreSQL");
        cluster.create_database(DATABASE).await.expect("a database");
        let database_url = cluster.url(DATABASE);
        let migrated = command(
            "opsctl",
            &[("DATABASE_URL".to_owned(), database_url.clone())],
        )
        .args(["db", "migrate"])
        .output()
        .expect("opsctl");
        assert!(
            migrated.status.success(),
            "{}",
            String::from_utf8_lossy(&migrated.stderr)
        );
        let folder = tempfile::Builder::new()
            .prefix("ops-gauntlet-")
            .tempdir()
            .expect("a folder");
        fs::write(folder.path().join("runner.toml"), job_types(folder.path()))
            .expect("a settings file");
        let socket = socket_of(&database_url);
        let mut runners = Vec::new();
        for number in 1..=RUNNERS {
            runners.push(runner(number, folder.path(), &socket).await);
        }
        let mut control_planes = Vec::new();
        for number in 1..=CONTROL_PLANES {
            let runner = &runners[(number - 1) % RUNNERS];
            control_planes.push(control_plane(number, folder.path(), &socket, runner).await);
        }
        let system = Self {
            cluster: Mutex::new(Some(cluster)),
            database_url,
            runners,
            control_planes,
            folder,
        };
        for service in system.services() {
            service.start().await;
        }
        system
    }

    /// Runners first.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Service> {
        self.runners.iter().chain(&self.control_planes)
    }

    /// Every link, so that the faults of all of them can be ended at once.
    pub(crate) fn links(&self) -> Vec<&Proxy> {
        self.services()
            .flat_map(|service| [&service.to_database, &service.to_it])
            .collect()
    }

    /// Where ledger, sink and run folders are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where this runner has its run folders.
    pub(crate) fn work_folders(&self) -> Vec<PathBuf> {
        self.runners
            .iter()
            .map(|runner| self.folder().join(&runner.name))
            .collect()
    }
}

fn socket_of(url: &str) -> PathBuf {
    let folder = url
        .split_once("?host=")
        .map(|(_, folder)| folder.to_owned())
        .expect("a socket's folder");
    assert!(
        !folder.contains('%'),
        "a folder with a plain name: {folder}"
    );
    Path::new(&folder).join(".s.PGSQL.5432")
}

fn job_types(folder: &Path) -> String {
    let handler = built("gauntlet-handler").display().to_string();
    let folder = folder.display().to_string();
    let mut text = String::new();
    for job_type in JOB_TYPES {
        text.push_str(&format!(
            "[job_types.{}]\ncommand = {:?}\nenv = {{ GAUNTLET_DIR = {folder:?} }}\nmax_attempts = {}\ntimeout_seconds = {}\n",
            job_type.name,
            job_type.command(&handler),
            job_type.max_attempts,
            job_type.timeout.as_secs(),
        ));
        if let Some(concurrency) = job_type.concurrency {
            text.push_str(&format!("concurrency = {concurrency}\n"));
        }
    }
    text
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

async fn links(socket: &Path) -> (Proxy, Proxy, String) {
    let to_database = Proxy::start(Target::Unix(socket.to_path_buf()))
        .await
        .expect("a proxy");
    // Nobody is there until the program says where it listens.
    let to_it = Proxy::start(Target::Tcp(([127, 0, 0, 1], 1).into()))
        .await
        .expect("a proxy");
    let url = format!(
        "postgres://postgres:{PASSWORD}@{}/{DATABASE}?sslmode=disable",
        to_database.address()
    );
    (to_database, to_it, url)
}

async fn runner(number: usize, folder: &Path, socket: &Path) -> Service {
    let name = format!("runner-{number}");
    let (to_database, to_it, url) = links(socket).await;
    let allowed = JOB_TYPES.map(|job_type| job_type.name).join(",");
    let environment = pairs(&[
        ("APP_ENV", "test"),
        ("DATABASE_URL", &url),
        ("DATABASE_MAX_CONNECTIONS", "6"),
        ("LOG_FORMAT", "json"),
        ("RUNNER_ID", &name),
        ("RUNNER_TOKEN", TOKEN),
        ("RUNNER_BIND", "127.0.0.1:0"),
        ("RUNNER_WORK_DIR", &folder.join(&name).display().to_string()),
        ("RUNNER_ALLOWLIST", &allowed),
        ("RUNNER_CONCURRENCY", &SLOTS.to_string()),
        ("RUNNER_LEASE_SECONDS", &LEASE.to_string()),
        ("RUNNER_POLL_INTERVAL_SECONDS", &POLL.to_string()),
        ("RUNNER_DRAIN_SECONDS", "1"),
        ("PATH", "/usr/bin:/bin"),
    ]);
    let log = folder.join(format!("{name}.log"));
    let arguments = vec![
        "--config".to_owned(),
        folder.join("runner.toml").display().to_string(),
    ];
    Service {
        name,
        program: "runner",
        arguments,
        environment,
        to_database,
        to_it,
        log,
        running: Mutex::default(),
    }
}

async fn control_plane(number: usize, folder: &Path, socket: &Path, runner: &Service) -> Service {
    let name = format!("control-plane-{number}");
    let (to_database, to_it, url) = links(socket).await;
    let environment = pairs(&[
        ("APP_ENV", "test"),
        ("DATABASE_URL", &url),
        ("DATABASE_MAX_CONNECTIONS", "8"),
        ("LOG_FORMAT", "json"),
        ("SECRET_KEY", SECRET),
        ("OPS_API_KEY", KEY),
        ("CONTROL_PLANE_BIND", "127.0.0.1:0"),
        ("RUNNER_URL", &format!("http://{}", runner.to_it.address())),
        ("RUNNER_TOKEN_OUTBOUND", TOKEN),
        ("RUNNER_TRIGGER_TIMEOUT_SECONDS", "3"),
        ("JOBS_ENABLED", "1"),
        ("RUNNER_ENABLED", "1"),
    ]);
    let log = folder.join(format!("{name}.log"));
    Service {
        name,
        program: "control-plane",
        arguments: Vec::new(),
        environment,
        to_database,
        to_it,
        log,
        running: Mutex::default(),
    }
}
