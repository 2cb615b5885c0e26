//! Starts the program with an environment of exactly what a test gives it. Ends what a test left running.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The program with these arguments, in an environment without settings.
pub(crate) fn opsctl(arguments: &[&str]) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "the program under test is a process"
    )]
    let mut command = Command::new(env!("CARGO_BIN_EXE_opsctl"));
    #[expect(
        clippy::disallowed_methods,
        reason = "programs of PostgreSQL are found by it"
    )]
    let path = std::env::var_os("PATH").unwrap_or_default();
    command
        .args(arguments)
        .env_clear()
        .env("PATH", path)
        .stdin(Stdio::null());
    command
}

/// What a command that ends by itself printed, and its exit code.
pub(crate) fn outcome(command: &mut Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("started");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        status.code().expect("ended by itself"),
        text(stdout),
        text(stderr),
    )
}

/// A folder that PostgreSQL's user can enter too.
pub(crate) struct StateFolder(tempfile::TempDir);

impl StateFolder {
    pub(crate) fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
            .expect("opened");
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `opsctl dev` on this folder, on free ports.
    pub(crate) fn dev(&self, further: &[&str]) -> Command {
        let mut command = opsctl(&[
            "dev",
            "--control-plane-port",
            "0",
            "--runner-port",
            "0",
            "--state",
        ]);
        command.arg(self.0.path()).args(further);
        command
    }

    /// What the services logged of troubles, for the message of a test that failed.
    pub(crate) fn troubles(&self) -> String {
        let log = std::fs::read_to_string(self.path("dev.log")).unwrap_or_default();
        let bad = |line: &&str| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
        log.lines().filter(bad).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }
}

/// The key that `opsctl dev` has made in this folder.
pub(crate) fn api_key(state: &StateFolder) -> String {
    let text = std::fs::read_to_string(state.path("dev.env")).expect("read");
    text.lines()
        .find_map(|line| line.strip_prefix("OPS_API_KEY="))
        .expect("a key")
        .to_owned()
}

/// An `opsctl dev` that serves; killed when a test drops it.
pub(crate) struct Serving {
    child: Child,
    pub(crate) banner: String,
}

impl Serving {
    /// Starts it and reads until it has told everything.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("started");
        let mut banner = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        while !banner.contains("/meta\n") {
            banner.push_str(
                &lines
                    .next()
                    .expect("it ended before it served")
                    .expect("text"),
            );
            banner.push('\n');
        }
        Self { child, banner }
    }

    /// The control plane's address.
    pub(crate) fn url(&self) -> &str {
        let mut lines = self.banner.lines();
        lines
            .find_map(|line| line.strip_prefix("control plane "))
            .expect("an address")
    }

    /// Sends it a signal and waits for its end; `None` is the exit code of a process that was killed.
    pub(crate) fn end_by(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).expect("sent");
        self.child.wait().expect("ended").code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
