//! The shim: the same program, started once more, as the one process between the runner and all that a command starts. It
//! adopts every orphan of that tree, and when the command ends, an order comes, the time or the lease is over or
//! the runner is gone, nothing else happens before the tree has ended. Then it serves the next run, since a process without
//! children is as good as new. Knows no jobs.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::{Child, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, getpid, set_child_subreaper,
    set_dumpable_behavior, setsid, wait,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Sender;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::cgroup::Leaf;
use super::fuse::Fuse;
use super::handover::{self, Came, Outlets};
use super::limits::{Exceeded, Limits, OomScore};
use super::protocol::{ARGUMENT, Order, Report, Task, Word};
use super::{start_command, tree};
use crate::interruption::GRACE;

/// The runner's own clock should speak first: it can tell a timeout from an abort.
const AFTER_TIMEOUT: Duration = Duration::from_millis(250);
/// After so long the runner is told that somebody cannot be killed; the shim goes on trying.
const USUAL_KILLING: Duration = Duration::from_secs(5);
/// How often processes are counted where the kernel does not.
const COUNTING_PAUSE: Duration = Duration::from_millis(200);
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
    let oom_score = OomScore::of_shim();
    // A run must not lay hands on the one that watches the next.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    socket.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve_runs(socket, &oom_score))
}

/// Serves one run after another until the runner is gone, or somebody of a run is.
async fn serve_runs(socket: StdUnixStream, oom_score: &OomScore) -> io::Result<()> {
    let mut socket = UnixStream::from_std(socket)?;
    let mut calls = Calls {
        children: signal(SignalKind::child())?,
        terminated: signal(SignalKind::terminate())?,
        interrupted: signal(SignalKind::interrupt())?,
    };
    loop {
        let outlets = tokio::select! {
            outlets = next_run(&socket) => outlets?,
            () = calls.end() => None,
        };
        let Some(outlets) = outlets else {
            return Ok(());
        };
        if converse(&mut socket, outlets, oom_score, &mut calls).await? == Then::End {
            return Ok(());
        }
    }
}

/// Waits for the next run; `None` when there will be none.
async fn next_run(socket: &UnixStream) -> io::Result<Option<Outlets>> {
    loop {
        socket.readable().await?;
        match socket.try_io(Interest::READABLE, || handover::receive(socket)) {
            Ok(Came::Run(outlets)) => return Ok(Some(outlets)),
            Ok(Came::End) => return Ok(None),
            Ok(Came::Late) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The signals that a shim listens to.
struct Calls {
    children: Signals,
    terminated: Signals,
    interrupted: Signals,
}

impl Calls {
    /// Somebody wants it to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminated.recv() => {}
            _ = self.interrupted.recv() => {}
        }
    }
}

/// What a shim does after a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Nobody is left: it can serve another.
    Rest,
    End,
}

async fn converse(
    socket: &mut UnixStream,
    outlets: Outlets,
    oom_score: &OomScore,
    calls: &mut Calls,
) -> io::Result<Then> {
    let (from_runner, mut to_runner) = socket.split();
    let mut from_runner = BufReader::new(from_runner);
    let mut line = String::new();
    from_runner.read_line(&mut line).await?;
    let task: Task = serde_json::from_str(&line)?;
    let mut payload = vec![0; task.payload_bytes];
    from_runner.read_exact(&mut payload).await?;
    let fuse = Fuse::new(task.kill_at)?;
    let mut tree = Tree::new(&task.limits);
    let mut feeding = JoinSet::new();
    let limited = task.limits.apply();
    match limited.and_then(|()| tree.start(&task, outlets, oom_score)) {
        Ok(mut child) => {
            if let Some(stdin) = child.stdin.take() {
                let mut stdin = Sender::from_owned_fd(stdin.into())?;
                feeding.spawn(async move { stdin.write_all(&payload).await });
            }
            tree.main = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
            tree.child = Some(child);
        }
        Err(error) => {
            say(&mut to_runner, &Word::not_started(&error)).await?;
            return Ok(Then::End);
        }
    }
    let orders = Orders {
        from_runner,
        fuse: &fuse,
    };
    watch(tree, task.timeout_ms, orders, to_runner, calls).await
}

/// Why the tree is to end.
enum Cause {
    CommandEnded,
    TimedOut,
    LeaseEnded,
    TooMany,
    Terminate,
    Kill,
}

async fn watch(
    mut tree: Tree,
    timeout_ms: Option<u64>,
    mut orders: Orders<'_>,
    mut to_runner: WriteHalf<'_>,
    calls: &mut Calls,
) -> io::Result<Then> {
    let deadline = async {
        match timeout_ms {
            Some(limit) => sleep(Duration::from_millis(limit) + AFTER_TIMEOUT).await,
            None => std::future::pending().await,
        }
    };
    let fuse = orders.fuse;
    let too_many = too_many(tree.most);
    let cause = tokio::select! {
        () = tree.command_ends(&mut calls.children) => Cause::CommandEnded,
        cause = orders.end() => cause,
        () = fuse.burnt() => Cause::LeaseEnded,
        () = deadline => Cause::TimedOut,
        () = too_many => Cause::TooMany,
        _ = calls.terminated.recv() => Cause::Terminate,
        _ = calls.interrupted.recv() => Cause::Terminate,
    };
    let timed_out = matches!(cause, Cause::TimedOut);
    let lease_ended = matches!(cause, Cause::LeaseEnded);
    let too_many = matches!(cause, Cause::TooMany).then_some(Exceeded::Processes);
    match cause {
        Cause::CommandEnded | Cause::LeaseEnded | Cause::TooMany | Cause::Kill => {}
        Cause::TimedOut | Cause::Terminate => {
            tree.signal(Signal::TERM);
            tokio::select! {
                () = tree.empties(&mut calls.children) => {}
                () = sleep(GRACE) => {}
                () = fuse.burnt() => {}
                () = orders.kill() => {}
            }
        }
    }
    let refused = tree.refused();
    let killing = timeout(USUAL_KILLING, tree.kill(&mut calls.children)).await;
    let then = match killing {
        Ok(()) => Then::Rest,
        Err(_) => Then::End,
    };
    let report = Report {
        timed_out,
        lease_ended,
        exceeded: too_many.or(refused),
        left: match then {
            Then::Rest => 0,
            Then::End => tree.size().max(1),
        },
        ..tree.report()
    };
    if then == Then::Rest {
        // Before the word: whoever hears it finds nothing of the run.
        tree.remove_leaf();
    }
    // A runner that is gone hears nothing.
    let _ = say(&mut to_runner, &Word::Ended(report)).await;
    if then == Then::End {
        tree.kill(&mut calls.children).await;
        tree.remove_leaf();
    }
    Ok(then)
}

/// Ends when the tree has more processes than it may.
async fn too_many(most: Option<u64>) {
    let Some(most) = most else {
        return std::future::pending().await;
    };
    while tree::descendants(getpid().as_raw_pid()).len() as u64 <= most {
        sleep(COUNTING_PAUSE).await;
    }
}

async fn say(to_runner: &mut WriteHalf<'_>, word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    to_runner.write_all(&line).await
}

/// What the runner wants; its end is an order too.
struct Orders<'a> {
    from_runner: BufReader<ReadHalf<'a>>,
    fuse: &'a Fuse,
}

impl Orders<'_> {
    /// The order that ends the tree.
    async fn end(&mut self) -> Cause {
        loop {
            match Order::read(&mut self.from_runner).await {
                Ok(Order::Renewed(at)) if self.fuse.set(at).is_ok() => {}
                Ok(Order::Kill | Order::Renewed(_)) => return Cause::Kill,
                Ok(Order::Terminate) | Err(_) => return Cause::Terminate,
            }
        }
    }

    /// Ends when the tree may clean up no longer; a runner that is gone has no wish.
    async fn kill(&mut self) {
        loop {
            match Order::read(&mut self.from_runner).await {
                Ok(Order::Terminate) => {}
                Ok(Order::Renewed(at)) if self.fuse.set(at).is_ok() => {}
                Ok(Order::Kill | Order::Renewed(_)) => return,
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// The command and all that came of it.
struct Tree {
    main: Option<Pid>,
    /// Never waited for by itself: everybody is waited for in one place.
    child: Option<Child>,
    ended: Option<WaitStatus>,
    leaf: Option<Leaf>,
    no_leaf: Option<String>,
    /// More processes than these end it, where the kernel does not count them.
    most: Option<u64>,
}

impl Tree {
    fn new(limits: &Limits) -> Self {
        Self {
            main: None,
            child: None,
            ended: None,
            leaf: None,
            no_leaf: None,
            most: limits.processes,
        }
    }

    /// Starts the command in its leaf, or without one where there can be none.
    fn start(&mut self, task: &Task, outlets: Outlets, oom_score: &OomScore) -> io::Result<Child> {
        let mut outlets = Some(outlets);
        let mut start = || {
            let outlets = outlets.take().ok_or(io::ErrorKind::AlreadyExists)?;
            oom_score.first_to_go(|| {
                start_command(&task.argv, &task.environment, &task.folder, &outlets)
            })
        };
        let Some(leaf) = task.leaf.clone() else {
            return start();
        };
        let limits = task.limits;
        match leaf.start_in(limits.memory_bytes, limits.processes, &mut start) {
            Ok(started) => {
                if leaf.counts() {
                    self.most = None;
                }
                self.leaf = Some(leaf);
                started
            }
            Err(error) => {
                self.no_leaf = Some(error.to_string());
                start()
            }
        }
    }

    /// What the leaf's kernel had to refuse; nothing where the command has succeeded all the same.
    fn refused(&self) -> Option<Exceeded> {
        let (memory, processes) = self.leaf.as_ref()?.refusals();
        let has_failed = self.ended.and_then(WaitStatus::exit_status) != Some(0);
        match (memory, processes) {
            (1.., _) => Some(Exceeded::Memory),
            (0, 1..) if has_failed => Some(Exceeded::Processes),
            (0, _) => None,
        }
    }

    fn remove_leaf(&self) {
        if let Some(leaf) = &self.leaf {
            leaf.remove();
        }
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

    async fn command_ends(&mut self, children: &mut Signals) {
        while !self.is_empty() && self.ended.is_none() {
            children.recv().await;
        }
    }

    async fn empties(&mut self, children: &mut Signals) {
        while !self.is_empty() {
            children.recv().await;
        }
    }

    fn signal(&self, signal: Signal) {
        for process in tree::descendants(getpid().as_raw_pid()) {
            process.signal(signal);
        }
    }

    /// Kills until nobody is left.
    async fn kill(&mut self, children: &mut Signals) {
        let mut pause = FIRST_PAUSE;
        while !self.is_empty() {
            if let Some(leaf) = &self.leaf {
                leaf.kill();
            }
            self.signal(Signal::KILL);
            // A child's end is worth another look at once.
            let _ = timeout(pause, children.recv()).await;
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
            no_leaf: self.no_leaf.clone(),
            ..Report::default()
        }
    }
}
