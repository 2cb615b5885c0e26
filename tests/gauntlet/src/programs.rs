//! The real programs as child processes: where they are, started, stopped, killed with what they started.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A start may take so long on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Where cargo puts programs: beside this one, or beside the folder of the test that runs.
pub(crate) fn built(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("this program's file");
    let beside = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name));
    beside
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| {
            panic!(
                "{name} is not built beside {}: run `cargo build --workspace --bins` first",
                this.display()
            )
        })
}

/// A program with arguments and exactly this environment.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the suite starts programs"
)]
pub(crate) fn command(name: &str, environment: &[(String, String)]) -> Command {
    let mut command = Command::new(built(name));
    command
        .env_clear()
        .envs(environment.iter().cloned())
        .stdin(Stdio::null());
    command
}

/// A child that serves.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    name: String,
}

impl Program {
    /// Starts it, with its output appended to a file, and waits until it says where it listens.
    pub(crate) async fn start(mut command: Command, name: &str, log: &Path) -> (Self, SocketAddr) {
        let file = || -> File {
            OpenOptions::new()
                .append(true)
                .create(true)
                .open(log)
                .expect("a log file")
        };
        let before = fs::metadata(log).map_or(0, |log| log.len());
        let child = command
            .stdout(file())
            .stderr(file())
            .spawn()
            .expect("a process");
        let mut program = Self {
            child,
            name: name.to_owned(),
        };
        let begun = Instant::now();
        loop {
            let bytes = fs::read(log).unwrap_or_default();
            let new = bytes
                .get(usize::try_from(before).unwrap_or(0)..)
                .unwrap_or_default();
            let text = String::from_utf8_lossy(new);
            if let Some(address) = text.lines().find_map(address) {
                return (program, address);
            }
            let ended = program.child.try_wait().expect("a status");
            assert!(
                ended.is_none() && begun.elapsed() < START_LIMIT,
                "{name} does not start: {ended:?}\n{text}"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a status").is_some()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How many files it has open, and how many threads and processes it has.
    pub(crate) fn holds(&self) -> [(&'static str, u64); 3] {
        let count = |what| {
            let path = format!("/proc/{}/{what}", self.pid());
            fs::read_dir(path).map_or(0, |entries| entries.count() as u64)
        };
        [
            ("open files", count("fd")),
            ("threads", count("task")),
            ("processes", self.at_work().len() as u64),
        ]
    }

    /// Everything below it but the shims at rest: these have nothing below them, and end by themselves.
    fn at_work(&self) -> Vec<Pid> {
        let mut all = below(self.pid());
        all.retain(|pid| !is_shim(*pid) || !below(*pid).is_empty());
        all
    }

    /// It and everything below it.
    pub(crate) fn tree(&self) -> Vec<Pid> {
        let mut all = below(self.pid());
        all.push(self.pid());
        all
    }

    /// Kills it alone.
    pub(crate) fn kill(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it and everything below it, as the end of its host does.
    pub(crate) fn kill_host(&mut self) {
        // Standing still it starts nothing new while its children are counted.
        let _ = kill_process(self.pid(), Signal::STOP);
        let below = below(self.pid());
        self.kill();
        for pid in below {
            // Each began a group of its own, or belongs to one that did.
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Makes it and everything below it stand still, and gives what it was.
    pub(crate) fn stand_still(&self) -> Vec<Pid> {
        let _ = kill_process(self.pid(), Signal::STOP);
        let all = self.tree();
        for pid in &all {
            let _ = kill_process(*pid, Signal::STOP);
        }
        all
    }

    /// Stops it in order, and says whether it ended well.
    pub(crate) async fn stop(mut self) {
        let _ = kill_process(self.pid(), Signal::TERM);
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                assert!(status.success(), "{} ended with {status}", self.name);
                return;
            }
            assert!(begun.elapsed() < STOP_LIMIT, "{} does not stop", self.name);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.kill_host();
        }
    }
}

/// Lets processes go on.
pub(crate) fn go_on(processes: &[Pid]) {
    for pid in processes {
        let _ = kill_process(*pid, Signal::CONT);
    }
}

fn address(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line["event"] == "started").then(|| line["address"].as_str()?.parse().ok())?
}

fn is_shim(pid: Pid) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments
        .split(|byte| *byte == 0)
        .any(|argument| argument == b"exec-shim")
}

/// Every process below this one.
fn below(root: Pid) -> Vec<Pid> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").expect("a /proc to look at").flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in brackets may hold anything; the state and the parent come after it.
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<i32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![root.as_raw_nonzero().get()];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            parents
                .iter()
                .filter(|(_, above)| *above == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found
        .into_iter()
        .skip(1)
        .filter_map(Pid::from_raw)
        .collect()
}
