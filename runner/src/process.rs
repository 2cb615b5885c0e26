//! The only place that starts processes. A command runs below a shim, which kills its whole tree, or, where there is no
//! shim, in a process group.

mod cgroup;
mod fuse;
mod group;
mod handover;
mod limits;
mod protocol;
mod search;
mod shim;
mod shims;
mod term;
mod tree;
mod watched;

pub(crate) use cgroup::Cgroup;
pub(crate) use limits::{Exceeded, Limits};
pub(crate) use shim::is_routed;
pub use shim::serve_as_shim;
pub(crate) use term::{BootTime, Term};
pub(crate) use tree::sweep;

use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::interruption::Bell;
use crate::output::{Output, Stream};
use handover::Outlets;
use shims::Shims;

/// How long the pipes are read once the main process has ended: somebody who left its group may hold them for ever.
const LAST_READ: Duration = Duration::from_secs(1);
/// So much of a pipe is read at once, to begin with and at most.
const FIRST_PIECE: usize = 1024;
const LARGEST_PIECE: usize = 64 * 1024;
/// This program, also when its file was replaced meanwhile: a shim of another version might not understand.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What is started, and with what.
pub(crate) struct Program<'a> {
    /// The program first; never a shell line.
    pub(crate) argv: &'a [String],
    /// The whole environment: nothing is inherited.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) folder: &'a Path,
    pub(crate) stdin: Vec<u8>,
    /// The shim's own deadline; without a shim it is the executor's alone.
    pub(crate) timeout: Option<Duration>,
    pub(crate) limits: Limits,
    /// How long the shim lets it live when nobody tells it more.
    pub(crate) term: Term,
}

/// Who kills what a command leaves behind.
#[derive(Debug)]
pub(crate) enum Watch {
    Shims(Shims),
    /// The runner, and the process group only.
    Group,
}

impl Watch {
    /// The best that this process has: the program that it was given, itself, or nothing.
    pub(crate) fn best(given: Option<PathBuf>, cgroup: Option<Cgroup>) -> Self {
        match given {
            Some(path) => Self::Shims(Shims::new(path, cgroup)),
            None if is_routed() => Self::Shims(Shims::new(PathBuf::from(THIS_PROGRAM), cgroup)),
            None => Self::Group,
        }
    }

    /// Ends shims that nobody has needed for a while.
    pub(crate) async fn retire_idle(&self) {
        match self {
            Self::Shims(shims) => shims.retire_idle().await,
            Self::Group => {}
        }
    }

    /// Ends all shims that have nothing to watch.
    pub(crate) async fn retire_all(&self) {
        match self {
            Self::Shims(shims) => shims.retire_all().await,
            Self::Group => {}
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// By its shim, for its time was over.
    TimedOut,
    /// By its shim, for its lease was about to end.
    LeaseOver,
    /// By a limit of its job type.
    Exceeded(Exceeded),
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        match status.code() {
            Some(code) => Self::Exited(code),
            None => Self::Killed(status.signal().unwrap_or(0)),
        }
    }
}

/// Runs a program to its end, or to the bell; when this returns, what it started is dead as far as `watch` reaches.
///
/// # Errors
/// When it cannot be started, or its shim was killed.
pub(crate) async fn run(
    watch: &Watch,
    program: Program<'_>,
    output: &Arc<Output>,
    bell: &Bell,
) -> io::Result<Ended> {
    match watch {
        Watch::Shims(shims) => watched::run(shims, program, output, bell).await,
        Watch::Group => group::run(program, output, bell).await,
    }
}

fn command(argv: &[String], environment: &[(String, String)]) -> io::Result<std::process::Command> {
    let name = argv.first().ok_or(io::ErrorKind::InvalidInput)?;
    command_at(Path::new(name), argv, environment)
}

/// A command whose program is at a path that its name need not tell.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where handlers' processes are started"
)]
fn command_at(
    program: &Path,
    argv: &[String],
    environment: &[(String, String)],
) -> io::Result<std::process::Command> {
    let (name, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = std::process::Command::new(program);
    command
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .process_group(0);
    Ok(command)
}

/// Starts a command below a shim.
fn start_command(
    argv: &[String],
    environment: &[(String, String)],
    folder: &Path,
    outlets: &Outlets,
) -> io::Result<std::process::Child> {
    let start = |mut command: std::process::Command| {
        command
            .current_dir(folder)
            .stdout(outlets.stdout.try_clone()?)
            .stderr(outlets.stderr.try_clone()?)
            .spawn()
    };
    if let Some(found) = argv
        .first()
        .and_then(|name| search::program(name, environment))
    {
        match start(command_at(&found, argv, environment)?) {
            // A script that does not say by whom it is read: the system's own search starts it by a shell.
            Err(error) if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {}
            started => return started,
        }
    }
    start(command(argv, environment)?)
}

/// Starts a command of which only the group is watched.
fn start_group(program: &Program<'_>) -> io::Result<Child> {
    Command::from(command(program.argv, &program.environment)?)
        .current_dir(program.folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Starts a shim. It is not killed on drop: when this end of its socket goes, it ends its tree, and then itself.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where handlers' processes are started"
)]
fn start_shim(program: &Path, socket: OwnedFd) -> io::Result<Child> {
    let mut command = std::process::Command::new(program);
    if program == Path::new(THIS_PROGRAM) {
        command.arg0("runner");
    }
    command
        .arg(protocol::ARGUMENT)
        .env_clear()
        // It outlives the folders of its runs.
        .current_dir("/")
        .stdin(socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Command::from(command).spawn()
}

/// The tasks that keep what a program prints.
struct Reading(JoinSet<()>);

impl Reading {
    fn of(stdout: PipeReader, stderr: PipeReader, output: &Arc<Output>) -> io::Result<Self> {
        let mut reading = JoinSet::new();
        for (pipe, stream) in [(stdout, Stream::Stdout), (stderr, Stream::Stderr)] {
            let pipe = Receiver::from_owned_fd(pipe.into())?;
            reading.spawn(drain(pipe, stream, Arc::clone(output)));
        }
        Ok(Self(reading))
    }

    fn of_child(child: &mut Child, output: &Arc<Output>) -> Self {
        let mut reading = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            reading.spawn(drain(stdout, Stream::Stdout, Arc::clone(output)));
        }
        if let Some(stderr) = child.stderr.take() {
            reading.spawn(drain(stderr, Stream::Stderr, Arc::clone(output)));
        }
        Self(reading)
    }

    /// Reads what is left, for a while.
    async fn end(mut self) {
        let all_read = async { while self.0.join_next().await.is_some() {} };
        // Running out of time is the case this is for.
        let _ = tokio::time::timeout(LAST_READ, all_read).await;
        self.0.shutdown().await;
    }
}

async fn drain(mut pipe: impl AsyncRead + Unpin, stream: Stream, output: Arc<Output>) {
    // Most commands print little; who fills it gets more room.
    let mut piece = vec![0; FIRST_PIECE];
    while let Ok(read @ 1..) = pipe.read(&mut piece).await {
        output.push(stream, &piece[..read]);
        if read == piece.len() {
            piece.resize(LARGEST_PIECE, 0);
        }
    }
}

#[cfg(test)]
mod tests;
