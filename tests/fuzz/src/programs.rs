//! The real programs as child processes, and what the kernel and their own words say of how they are.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// A program that serves; killed when this value goes.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    log: PathBuf,
}

/// A program with exactly this environment.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the fuzzer starts programs"
)]
pub(crate) fn command(name: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(built(name));
    command
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    command
}

/// Where cargo puts programs: beside this one, or beside the folder of the test that runs.
fn built(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("this program's file");
    let mut beside = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name));
    beside.find(|path| path.exists()).unwrap_or_else(|| {
        panic!(
            "{name} is not built beside {}: run `cargo build --workspace --bins` first",
            this.display()
        )
    })
}

impl Program {
    /// Starts it, and waits until it says where it listens.
    pub(crate) async fn start(mut command: Command, name: &'static str, log: &Path) -> Self {
        let file = File::create(log).expect("a log file");
        let mut child = command
            .stdout(file.try_clone().expect("a log file"))
            .stderr(file)
            .spawn()
            .expect("a process");
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(log).unwrap_or_default();
            if let Some(address) = text.lines().find_map(address) {
                return Self {
                    child,
                    name,
                    address,
                    log: log.to_path_buf(),
                };
            }
            let ended = child.try_wait().expect("a status");
            assert!(
                ended.is_none() && begun.elapsed() < START_LIMIT,
                "{name} does not start: {ended:?}\n{text}"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether it still runs: the same process as in the beginning.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_none()
    }

    /// How much memory it holds, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
            .unwrap_or(0)
    }

    /// The lines in which it says that it went wrong.
    pub(crate) fn cries(&self) -> Vec<String> {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let cry = |line: &&str| {
            [
                "panicked",
                "\"internal_error\"",
                "store_failed",
                "\"ERROR\"",
            ]
            .iter()
            .any(|word| line.contains(word))
        };
        text.lines()
            .filter(cry)
            .take(20)
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already, which was told by then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line["event"] == "started").then(|| line["address"].as_str()?.parse().ok())?
}
