//! The shim: the same program, started once more for each command, as the one process between the runner and all that
//! the command starts. It adopts every orphan of that tree, and when the command ends, an order comes, the time is over
//! or the runner is gone, it does not end before the tree has. Knows no jobs.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::{Child, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, set_child_subreaper, setsid, wait,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Sender;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::limits::first_to_go;
use super::protocol::{ARGUMENT, Order, Report, Task, Word};
use super::{start_command, tree};
use crate::interruption::GRACE;

/// The runner's own clock should speak first: it can tell a timeout from an abort.
const AFTER_TIMEOUT: Duration = Duration::from_millis(250);
/// After so long the runner is told that somebody cannot be killed; the shim goes on trying.
const USUAL_KILLING: Duration = Duration::from_secs(5);
/// Between two rounds of killing, doubled each time up to the second figure.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Whether this program can be started as a shim.
static ROUTES: AtomicBool = AtomicBool::new(false);

/// Does a shim's work and gives its exit code, if this process was started as one; `None` in any other process.
///
/// A program that starts a runner calls this before anything else in `main`; [`Builder::run`](crate::Builder::run)
/// does it by itself. From then on commands are watched by copies of this program.
pub fn serve_as_shim() -> Option<ExitCode> {
    ROUTES.store(true, Ordering::Relaxed);
    let asked = std::env::args_os().nth(1).as_deref() == Some(OsStr::new(ARGUMENT));
    asked.then(|| match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Whether [`serve_as_shim`] was called in this process.
pub(crate) fn is_routed() -> bool {
    ROUTES.load(Ordering::Relaxed)
}

fn serve() -> io::Result<()> {
    // Whoever calls this by hand has no socket there.
    let socket = StdUnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.local_addr()?;
    // A session of its own: no terminal, and no signal that is meant for the runner's group.
    setsid()?;
    set_child_subreaper(Some(getpid()))?;
    socket.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(converse(socket))
}

async fn converse(socket: StdUnixStream) -> io::Result<()> {
    let (from_runner, mut to_runner) = UnixStream::from_std(socket)?.into_split();
    let mut from_runner = BufReader::new(from_runner);
    let mut line = String::new();
    from_runner.read_line(&mut line).await?;
    let task: Task = serde_json::from_str(&line)?;
    let mut payload = vec![0; task.payload_bytes];
    from_runner.read_exact(&mut payload).await?;
    let mut tree = Tree::new()?;
    let mut feeding = JoinSet::new();
    let started = task
        .limits
        .apply()
        .and_then(|()| first_to_go(|| start_command(&task.argv, &task.environment)));
    match started {
        Ok(mut child) => {
            if let Some(stdin) = child.stdin.take() {
                let mut stdin = Sender::from_owned_fd(stdin.into())?;
                feeding.spawn(async move { stdin.write_all(&payload).await });
            }
            tree.main = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
            tree.child = Some(child);
        }
        Err(error) => return say(&mut to_runner, &Word::not_started(&error)).await,
    }
    watch(tree, task.timeout_ms, Orders(from_runner), to_runner).await
}

/// Why the tree is to end.
enum Cause {
    CommandEnded,
    TimedOut,
    Ordered(Order),
}

async fn watch(
    mut tree: Tree,
    timeout_ms: Option<u64>,
    mut orders: Orders,
    mut to_runner: OwnedWriteHalf,
) -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let deadline = async {
        match timeout_ms {
            Some(limit) => sleep(Duration::from_millis(limit) + AFTER_TIMEOUT).await,
            None => std::future::pending().await,
        }
    };
    let cause = tokio::select! {
        () = tree.command_ends() => Cause::CommandEnded,
        order = orders.next() => Cause::Ordered(order),
        () = deadline => Cause::TimedOut,
        _ = terminated.recv() => Cause::Ordered(Order::Terminate),
        _ = interrupted.recv() => Cause::Ordered(Order::Terminate),
    };
    let timed_out = matches!(cause, Cause::TimedOut);
    match cause {
        Cause::CommandEnded | Cause::Ordered(Order::Kill) => {}
        Cause::TimedOut | Cause::Ordered(Order::Terminate) => {
            tree.signal(Signal::TERM);
            tokio::select! {
                () = tree.empties() => {}
                () = sleep(GRACE) => {}
                () = orders.kill() => {}
            }
        }
    }
    let is_clean = timeout(USUAL_KILLING, tree.kill()).await.is_ok();
    let report = Report {
        timed_out,
        left: if is_clean { 0 } else { tree.size() },
        ..tree.report()
    };
    // A runner that is gone hears nothing.
    let _ = say(&mut to_runner, &Word::Ended(report)).await;
    if !is_clean {
        tree.kill().await;
    }
    Ok(())
}

async fn say(to_runner: &mut OwnedWriteHalf, word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    to_runner.write_all(&line).await
}

/// What the runner wants; its end is an order too.
struct Orders(BufReader<OwnedReadHalf>);

impl Orders {
    async fn next(&mut self) -> Order {
        match self.0.read_u8().await {
            Ok(byte) => Order::of(byte),
            Err(_) => Order::Terminate,
        }
    }

    /// Ends when the tree may clean up no longer; a runner that is gone has no wish.
    async fn kill(&mut self) {
        while let Ok(byte) = self.0.read_u8().await {
            if Order::of(byte) == Order::Kill {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

/// The command and all that came of it.
struct Tree {
    children: Signals,
    main: Option<Pid>,
    /// Never waited for by itself: everybody is waited for in one place.
    child: Option<Child>,
    ended: Option<WaitStatus>,
}

impl Tree {
    /// Made before the command starts, so that no end is missed.
    fn new() -> io::Result<Self> {
        Ok(Self {
            children: signal(SignalKind::child())?,
            main: None,
            child: None,
            ended: None,
        })
    }

    /// Collects those who have ended. Without a child there is no descendant: orphans become children.
    fn is_empty(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if Some(pid) == self.main {
                        self.ended = Some(status);
                    }
                }
                Ok(None) => return false,
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }

    async fn command_ends(&mut self) {
        while !self.is_empty() && self.ended.is_none() {
            self.children.recv().await;
        }
    }

    async fn empties(&mut self) {
        while !self.is_empty() {
            self.children.recv().await;
        }
    }

    fn signal(&self, signal: Signal) {
        for process in tree::descendants(getpid().as_raw_pid()) {
            process.signal(signal);
        }
    }

    /// Kills until nobody is left.
    async fn kill(&mut self) {
        let mut pause = FIRST_PAUSE;
        while !self.is_empty() {
            self.signal(Signal::KILL);
            // A child's end is worth another look at once.
            let _ = timeout(pause, self.children.recv()).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn size(&self) -> usize {
        tree::descendants(getpid().as_raw_pid()).len()
    }

    fn report(&self) -> Report {
        Report {
            code: self.ended.and_then(WaitStatus::exit_status),
            signal: self.ended.and_then(WaitStatus::terminating_signal),
            ..Report::default()
        }
    }
}
