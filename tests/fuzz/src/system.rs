//! What is attacked: both real programs before a private PostgreSQL, and how they are when it is over.

use std::fs;
use std::net::SocketAddr;

use local_postgres::Mode;
use local_postgres::testing::{PrivateCluster, private_cluster};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::programs::{Program, command};
use crate::request::{Keys, Target};
use crate::tally::{Finding, Tally};

const OPS_KEY: &str = "fuzz-ops-key-0123456789abcdef0123456789";
const TOKEN: &str = "fuzz-runner-token-0123456789abcdef01234";
const DATABASE: &str = "fuzz";

/// However many requests there were, a program may have grown by so much, in KiB.
const MOST_GROWTH: u64 = 256 * 1024;

const JOB_TYPES: &str = r#"
[job_types.works]
command = ["true"]
timeout_seconds = 30

[job_types.fails]
command = ["false"]
max_attempts = 2
timeout_seconds = 30
"#;

/// Whether the runner looks for work by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// As in production.
    Usual,
    /// Only when it is told, so that nothing changes by itself.
    Quiet,
}

/// Both programs and their database.
#[derive(Debug)]
pub struct System {
    /// Where the requests go.
    pub target: Target,
    /// The database's address.
    pub database: String,
    programs: Vec<(Program, u64)>,
    cluster: PrivateCluster,
    _folder: TempDir,
}

impl System {
    /// Starts everything, as in production.
    pub async fn usual() -> Self {
        Self::start(Manner::Usual).await
    }

    /// Starts everything, with a runner that does nothing by itself.
    pub async fn quiet() -> Self {
        Self::start(Manner::Quiet).await
    }

    async fn start(manner: Manner) -> Self {
        let cluster = private_cluster(Mode::Test)
            .await
            .expect("a private PostgreSQL");
        cluster.create_database(DATABASE).await.expect("a database");
        let database = cluster.url(DATABASE);
        let migrated = command("opsctl", &[("DATABASE_URL", &database)])
            .args(["db", "migrate"])
            .output();
        assert!(
            migrated.expect("opsctl").status.success(),
            "opsctl db migrate failed"
        );
        let folder = tempfile::Builder::new()
            .prefix("ops-fuzz-")
            .tempdir()
            .expect("a folder");
        let file = folder.path().join("runner.toml");
        fs::write(&file, JOB_TYPES).expect("a settings file");
        let work = folder.path().join("work").display().to_string();
        let both = [
            ("APP_ENV", "test"),
            ("DATABASE_URL", database.as_str()),
            ("LOG_FORMAT", "json"),
            ("LOG_LEVEL", "info"),
        ];
        let mut settings = both.to_vec();
        settings.extend([
            ("RUNNER_ID", "fuzz"),
            ("RUNNER_TOKEN", TOKEN),
            ("RUNNER_BIND", "127.0.0.1:0"),
            ("RUNNER_WORK_DIR", &work),
            ("RUNNER_ALLOWLIST", "works,fails"),
            (
                "RUNNER_POLL_INTERVAL_SECONDS",
                if manner == Manner::Quiet { "0" } else { "1" },
            ),
            ("PATH", "/usr/bin:/bin"),
        ]);
        let mut runner = command("runner", &settings);
        runner.arg("--config").arg(&file);
        let runner = Program::start(runner, "runner", &folder.path().join("runner.log")).await;
        let runner_url = format!("http://{}", runner.address);
        let mut settings = both.to_vec();
        settings.extend([
            ("SECRET_KEY", OPS_KEY),
            ("OPS_API_KEY", OPS_KEY),
            ("CONTROL_PLANE_BIND", "127.0.0.1:0"),
            ("RUNNER_URL", &runner_url),
            ("RUNNER_TOKEN_OUTBOUND", TOKEN),
            ("JOBS_ENABLED", "1"),
            ("RUNNER_ENABLED", "1"),
            ("FEATURE_METRICS", "1"),
        ]);
        let control_plane = command("control-plane", &settings);
        let log = folder.path().join("control-plane.log");
        let control_plane = Program::start(control_plane, "control-plane", &log).await;
        let target = Target {
            control_plane: control_plane.address,
            runner: runner.address,
            keys: Keys {
                ops: OPS_KEY.to_owned(),
                runner: TOKEN.to_owned(),
            },
        };
        for address in [target.control_plane, target.runner] {
            while !is_ready(address).await {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        let programs = [control_plane, runner];
        Self {
            target,
            database,
            programs: programs
                .into_iter()
                .map(|program| {
                    let memory = program.memory();
                    (program, memory)
                })
                .collect(),
            cluster,
            _folder: folder,
        }
    }

    /// Looks at both programs after an attack, adds what is wrong with them, tells of their memory, and ends them.
    pub async fn examine(mut self, tally: &mut Tally) -> Vec<String> {
        let mut told = Vec::new();
        for (program, before) in &mut self.programs {
            let name = program.name;
            let mut find = |fault: String| {
                tally.find(Finding {
                    case: 0,
                    fault: format!("{name}: {fault}"),
                    request: String::new(),
                });
            };
            if !program.is_alive() {
                find("it has ended".to_owned());
            } else if !is_ready(program.address).await {
                find("it is not ready any more".to_owned());
            }
            let after = program.memory();
            if after > *before + MOST_GROWTH {
                find(format!("it grew from {before} to {after} KiB"));
            }
            for cry in program.cries() {
                find(cry);
            }
            told.push(format!(
                "{name}: {before} KiB of memory in the beginning, {after} KiB in the end"
            ));
        }
        drop(self.programs);
        self.cluster.stop().await.expect("a PostgreSQL that stops");
        told
    }
}

async fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return false;
    };
    let request = b"GET /readyz HTTP/1.1\r\nHost: fuzz\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    stream.write_all(request).await.is_ok()
        && stream.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}
