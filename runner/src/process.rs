//! The only place that starts processes, and that kills them: a group at a time, first kindly, then for good.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;

use crate::interruption::Bell;
use crate::output::{Output, Stream};

/// How long the pipes are read once the main process has ended: somebody who left its group may hold them for ever.
const LAST_READ: Duration = Duration::from_secs(1);

/// What is started, and with what.
pub(crate) struct Program<'a> {
    /// The program first; never a shell line.
    pub(crate) argv: &'a [String],
    /// The whole environment: nothing is inherited.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) folder: &'a Path,
    pub(crate) stdin: Vec<u8>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        match status.code() {
            Some(code) => Self::Exited(code),
            None => Self::Killed(status.signal().unwrap_or(0)),
        }
    }
}

/// Runs a program to its end, or to the bell; when this returns, or is dropped, its process group is dead.
///
/// # Errors
/// When it cannot be started.
pub(crate) async fn run(
    program: Program<'_>,
    output: &Arc<Output>,
    bell: &Bell,
) -> io::Result<Ended> {
    let mut child = start(&program)?;
    let group = Group::of(&child);
    let mut feeding = JoinSet::new();
    if let Some(stdin) = child.stdin.take() {
        feeding.spawn(feed(stdin, program.stdin));
    }
    let mut reading = JoinSet::new();
    if let Some(stdout) = child.stdout.take() {
        reading.spawn(drain(stdout, Stream::Stdout, Arc::clone(output)));
    }
    if let Some(stderr) = child.stderr.take() {
        reading.spawn(drain(stderr, Stream::Stderr, Arc::clone(output)));
    }
    let status = tokio::select! {
        status = child.wait() => status?,
        why = bell.heard() => group.end(&mut child, why.grace()).await?,
    };
    drop(group);
    let all_read = async { while reading.join_next().await.is_some() {} };
    // Running out of time is the case this is for.
    let _ = tokio::time::timeout(LAST_READ, all_read).await;
    reading.shutdown().await;
    feeding.shutdown().await;
    Ok(status.into())
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where handlers' processes are started"
)]
fn start(program: &Program<'_>) -> io::Result<Child> {
    let (name, arguments) = program
        .argv
        .split_first()
        .ok_or(io::ErrorKind::InvalidInput)?;
    Command::new(name)
        .args(arguments)
        .env_clear()
        .envs(
            program
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .current_dir(program.folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Hands over the payload; a child that does not read it is its own affair.
async fn feed(mut stdin: ChildStdin, bytes: Vec<u8>) {
    let _ = stdin.write_all(&bytes).await;
}

async fn drain(mut pipe: impl AsyncRead + Unpin, stream: Stream, output: Arc<Output>) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = pipe.read(&mut piece).await {
        output.push(stream, &piece[..read]);
    }
}

/// A process group, killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(
            child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .and_then(Pid::from_raw),
        )
    }

    /// Asks the group to end, waits, and kills what is left of it.
    async fn end(&self, child: &mut Child, grace: Duration) -> io::Result<ExitStatus> {
        if !grace.is_zero() {
            self.signal(Signal::TERM);
            if let Ok(status) = tokio::time::timeout(grace, child.wait()).await {
                return status;
            }
        }
        self.signal(Signal::KILL);
        child.wait().await
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // An error means that nobody is left in it.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interruption::Interruption;

    async fn run_script(script: &str, stdin: &[u8], bell: &Bell, output: &Arc<Output>) -> Ended {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let folder = tempfile::tempdir().expect("a folder");
        let environment = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let program = Program {
            argv: &argv,
            environment,
            folder: folder.path(),
            stdin: stdin.to_vec(),
        };
        run(program, output, bell).await.expect("started")
    }

    /// How it ended, and what it wrote on stderr.
    async fn ended(script: &str, stdin: &[u8]) -> (Ended, String) {
        let output = Arc::new(Output::new());
        let ended = run_script(script, stdin, &Bell::new(), &output).await;
        (ended, output.stderr_tail())
    }

    /// Rings once the script says that it is ready.
    async fn interrupted(script: &str, why: Interruption) -> Ended {
        let (output, bell) = (Arc::new(Output::new()), Bell::new());
        let ring = async {
            while output.stderr_tail() != "ready" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            bell.ring(why);
        };
        let (ended, ()) = tokio::join!(run_script(script, b"", &bell, &output), ring);
        ended
    }

    /// Gone, or dead and only not yet collected by its parent.
    fn is_dead(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ")
    }

    async fn until_dead(pid: &str) {
        assert!(!pid.is_empty());
        let dead = async {
            while !is_dead(pid) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), dead)
            .await
            .expect("dead");
    }

    #[tokio::test]
    async fn a_process_ends_by_its_code_or_its_signal() {
        assert_eq!(ended("exit 75", b"").await.0, Ended::Exited(75));
        assert_eq!(ended("kill -9 $$", b"").await.0, Ended::Killed(9));
    }

    #[tokio::test]
    async fn nothing_is_inherited_but_what_is_given() {
        let (ended, environment) =
            ended("env | grep -v -e '^PWD=' -e '^_=' -e '^SHLVL=' >&2", b"").await;
        assert_eq!(ended, Ended::Exited(0));
        assert_eq!(environment, "PATH=/usr/bin:/bin");
    }

    #[tokio::test]
    async fn a_child_that_never_reads_its_payload_is_not_waited_for() {
        assert_eq!(
            ended("exit 0", &vec![b'x'; 1024 * 1024]).await.0,
            Ended::Exited(0)
        );
    }

    #[tokio::test]
    async fn what_a_process_leaves_running_in_its_group_dies_with_it() {
        let (ended, left) = ended("sleep 600 & echo $! >&2", b"").await;
        assert_eq!(ended, Ended::Exited(0));
        until_dead(&left).await;
    }

    #[tokio::test]
    async fn a_process_without_a_lease_is_killed_even_if_it_ignores_termination() {
        let script = "trap '' TERM; echo ready >&2; while :; do sleep 0.01; done";
        assert_eq!(
            interrupted(script, Interruption::LeaseLost).await,
            Ended::Killed(9)
        );
    }

    #[tokio::test]
    async fn an_aborted_process_may_clean_up() {
        let script = "trap 'exit 7' TERM; echo ready >&2; while :; do sleep 0.01; done";
        assert_eq!(
            interrupted(script, Interruption::Aborted).await,
            Ended::Exited(7)
        );
    }

    #[tokio::test]
    async fn an_aborted_process_that_ignores_it_is_killed() {
        let script = "trap '' TERM; echo ready >&2; while :; do sleep 0.01; done";
        assert_eq!(
            interrupted(script, Interruption::Aborted).await,
            Ended::Killed(9)
        );
    }
}
