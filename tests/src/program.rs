//! The real programs as child processes: started with nothing but what a test gives them, listened to, killed.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::wait::wait_until;

/// A program to start.
#[derive(Debug)]
#[must_use = "a program runs when it is started"]
pub struct Start {
    path: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// A program that runs, or has run; killed when this value goes.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    output: TempDir,
}

/// The repository's folder.
pub fn repository() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("a folder above").to_path_buf()
}

/// Where cargo puts a program, beside the folder of the test that runs. Cargo builds it for the tests of its own
/// package only, so that it may be missing or old here, and an old one would prove nothing.
pub(crate) fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test's file");
    let folder = test
        .parent()
        .and_then(Path::parent)
        .expect("cargo's target folder");
    let path = folder.join(name);
    let advice = "run `cargo build --workspace --bins --examples` first";
    let Some(at) = changed(&path) else {
        panic!("{} is not built: {advice}", path.display())
    };
    let sources =
        fs::read_to_string(path.with_extension("d")).expect("cargo's list of its sources");
    let newer = sources
        .split_whitespace()
        .skip(1)
        .find(|source| changed(Path::new(source)) > Some(at));
    assert!(
        newer.is_none(),
        "{} is older than {newer:?}: {advice}",
        path.display()
    );
    path
}

/// A program of the machine's own.
#[expect(
    clippy::disallowed_methods,
    reason = "it is where a shell would find it, and no setting of ours"
)]
fn found(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: run .ci/install"))
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}

impl Start {
    /// One of the programs: `control-plane`, `runner`, `opsctl`, or `examples/…`.
    pub fn of(name: &str) -> Self {
        Self {
            path: built(name),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Adds arguments.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Adds to the environment, which is empty else; the later of two values holds.
    pub fn environment(mut self, pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(pairs);
        self
    }

    /// Sets one variable.
    pub fn set(self, name: &str, value: &str) -> Self {
        self.environment([(name.to_owned(), value.to_owned())])
    }

    /// Has it see a clock that is so many seconds fast, or slow where they are negative; how time passes stays as it is.
    pub async fn clock_off_by(self, seconds: i32) -> Self {
        // The tool starts a child of its own, which signals would not reach; what it tells its child is enough.
        let tool = Self {
            path: found("faketime"),
            arguments: Vec::new(),
            environment: Vec::new(),
        };
        let offset = format!("{seconds:+}s");
        let (code, printed, complaint) = tool
            .arguments(&["-m", "--exclude-monotonic", "-f", &offset])
            .arguments(&[&found("env").display().to_string()])
            .run()
            .await;
        assert_eq!(code, 0, "faketime: {complaint}");
        let told = printed.lines().filter_map(|line| line.split_once('='));
        let told = told.filter(|(name, _)| {
            let preloads = ["LD_PRELOAD", "DYLD_INSERT_LIBRARIES"].contains(name);
            // A clock that is shared is the tool's own, and gone with it.
            preloads || name.starts_with("FAKETIME") && *name != "FAKETIME_SHARED"
        });
        self.environment(told.map(|(name, value)| (name.to_owned(), value.to_owned())))
    }

    /// Starts it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the tests start the programs"
    )]
    pub fn start(self) -> Program {
        let output = TempDir::new().expect("a folder");
        let file = |name: &str| File::create(output.path().join(name)).expect("a file");
        let child = Command::new(&self.path)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("a process");
        let name = self
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Program {
            name,
            child,
            output,
        }
    }

    /// Starts it, waits for its end, and gives its exit code, what it printed, and what it complained about.
    pub async fn run(self) -> (i32, String, String) {
        let mut program = self.start();
        let code = program.exit_code().await;
        (code, program.stdout(), program.stderr())
    }
}

impl Program {
    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        self.printed("stdout")
    }

    /// What it has complained about so far.
    pub fn stderr(&self) -> String {
        self.printed("stderr")
    }

    fn printed(&self, stream: &str) -> String {
        let bytes = fs::read(self.output.path().join(stream)).expect("its output");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The log lines of an event.
    pub fn logged(&self, event: &str) -> Vec<Value> {
        let lines: Vec<Value> = self
            .stdout()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        lines
            .into_iter()
            .filter(|line| line["event"] == event)
            .collect()
    }

    /// Where it serves, once it logs that.
    pub async fn address(&mut self) -> SocketAddr {
        let what = format!("{} logs its address", self.name);
        wait_until(&what, async || {
            self.must_be_running();
            let lines = self.logged("started").into_iter();
            lines
                .filter_map(|line| line["address"].as_str()?.parse().ok())
                .next()
        })
        .await
    }

    /// Waits for a text on its standard output.
    pub async fn says(&mut self, text: &str) {
        let what = format!("{} prints {text:?}", self.name);
        wait_until(&what, async || {
            let said = self.stdout().contains(text);
            if !said {
                self.must_be_running();
            }
            said.then_some(())
        })
        .await;
    }

    fn must_be_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a status") {
            panic!(
                "{} ended: {status}\n{}{}",
                self.name,
                self.stdout(),
                self.stderr()
            );
        }
    }

    /// Waits for its end.
    pub async fn exit_code(&mut self) -> i32 {
        let what = format!("{} (process {}) ends", self.name, self.id());
        let status = wait_until(&what, async || self.child.try_wait().expect("a status")).await;
        status
            .code()
            .unwrap_or_else(|| panic!("{} was ended by a signal: {status}", self.name))
    }

    /// Waits until a signal has ended it.
    pub async fn is_killed(&mut self) {
        let what = format!("{} (process {}) is killed", self.name, self.id());
        let status = wait_until(&what, async || self.child.try_wait().expect("a status")).await;
        assert_eq!(status.code(), None, "{} has ended by itself", self.name);
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Stops it where it is, as a machine that hangs does, until it is told to go on.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it without a word to it.
    pub async fn kill9(mut self) {
        self.signal(Signal::KILL);
        let what = format!("{} is gone", self.name);
        wait_until(&what, async || self.child.try_wait().expect("a status")).await;
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        kill_process(id, signal).expect("a process to signal");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
