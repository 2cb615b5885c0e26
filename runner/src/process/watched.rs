//! The runner's side of a shim: starts it, tells it what to run and when to end it, and cleans up should it be killed
//! itself. The tree is the shim's affair.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::process::Child;
use tokio::sync::oneshot;

use super::cgroup::Leaf;
use super::protocol::{Order, Report, Task, Word};
use super::shims::Shims;
use super::term::Term;
use super::{Ended, Program, Reading, tree};
use crate::interruption::{Bell, Interruption};
use crate::output::Output;

/// What a shim may take beside the grace before it is not waited for any more.
const AFTER_GRACE: Duration = Duration::from_secs(2);
/// What a shim that was killed may take to end.
const LAST_STEPS: Duration = Duration::from_secs(1);
/// How long what a killed shim left behind is killed.
const SWEEP: Duration = Duration::from_secs(2);

/// Runs a program below a shim to its end, or to the bell. When this is dropped instead, the shim ends the tree as for a
/// runner that is gone.
pub(super) async fn run(
    shims: &Shims,
    program: Program<'_>,
    output: &Arc<Output>,
    bell: &Bell,
) -> io::Result<Ended> {
    let folder = program.folder;
    let leaf = shims.cgroup.as_ref().map(|cgroup| cgroup.leaf(folder));
    let (limits, term) = (program.limits, program.term.clone());
    let beginning = beginning(program, leaf.clone())?;
    let (stdout, of_command) = io::pipe()?;
    let (stderr, of_command_too) = io::pipe()?;
    let mut shim = shims.begin(limits, [of_command.as_fd(), of_command_too.as_fd()])?;
    // Where the command alone has them, their end is its end.
    drop((of_command, of_command_too));
    let reading = Reading::of(stdout, stderr, output)?;
    let ended = match converse(&mut shim.line, beginning, term, bell).await? {
        Some(Word::Ended(report)) => {
            // With somebody left it goes on, and the runner does not wait for that.
            if report.left == 0 {
                shims.rest(shim);
            }
            Ok(verdict(&report))
        }
        Some(Word::NotStarted { os_error, why }) => {
            let _ = tokio::time::timeout(LAST_STEPS, shim.child.wait()).await;
            Err(os_error.map_or_else(|| io::Error::other(why), io::Error::from_raw_os_error))
        }
        None => abandon(shim.child, folder, leaf, bell).await,
    };
    reading.end().await;
    ended
}

/// Says what there is to say until the shim has said how it ended, or is gone without a word.
async fn converse(
    line: &mut UnixStream,
    beginning: Vec<u8>,
    term: Term,
    bell: &Bell,
) -> io::Result<Option<Word>> {
    let for_renewals = StdUnixStream::from(line.as_fd().try_clone_to_owned()?);
    let (from_shim, to_shim) = line.split();
    let (give, order) = oneshot::channel();
    let hearing = async {
        let mut words = BufReader::new(from_shim).lines();
        tokio::select! {
            said = hear(&mut words) => said,
            why = bell.heard() => obeyed(&mut words, give, why).await,
        }
    };
    tokio::select! {
        said = hearing => Ok(said),
        () = speak(to_shim, beginning, (term, for_renewals), order) => Ok(None),
    }
}

fn beginning(program: Program<'_>, leaf: Option<Leaf>) -> io::Result<Vec<u8>> {
    let task = Task {
        argv: program.argv.to_vec(),
        environment: program.environment,
        limits: program.limits,
        timeout_ms: program
            .timeout
            .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        folder: program.folder.to_owned(),
        leaf,
        kill_at: program.term.kill_at(),
        payload_bytes: program.stdin.len(),
    };
    let mut bytes = serde_json::to_vec(&task)?;
    bytes.push(b'\n');
    bytes.extend(program.stdin);
    Ok(bytes)
}

/// Says everything, and does not end before it is dropped.
async fn speak(
    mut to_shim: WriteHalf<'_>,
    beginning: Vec<u8>,
    (term, for_renewals): (Term, StdUnixStream),
    order: oneshot::Receiver<Order>,
) {
    // A shim that does not listen has ended, and that is heard at the other half.
    let _ = to_shim.write_all(&beginning).await;
    let _told = term.tell(for_renewals);
    if let Ok(order) = order.await {
        let _ = to_shim.write_all(&order.bytes()).await;
    }
    std::future::pending::<()>().await;
}

/// The shim's word, or `None` when it is gone without one.
async fn hear(words: &mut Lines<BufReader<ReadHalf<'_>>>) -> Option<Word> {
    let line = words.next_line().await.ok()??;
    serde_json::from_str(&line).ok()
}

async fn obeyed(
    words: &mut Lines<BufReader<ReadHalf<'_>>>,
    give: oneshot::Sender<Order>,
    why: Interruption,
) -> Option<Word> {
    let grace = why.grace();
    let order = if grace.is_zero() {
        Order::Kill
    } else {
        Order::Terminate
    };
    // Nobody takes it when the shim is gone.
    let _ = give.send(order);
    tokio::time::timeout(grace + AFTER_GRACE, hear(words))
        .await
        .ok()?
}

fn verdict(report: &Report) -> Ended {
    if let Some(why) = &report.no_leaf {
        tracing::warn!(
            event = "no_cgroup_leaf",
            why,
            "a command ran without its cgroup"
        );
    }
    if report.left > 0 {
        tracing::error!(
            event = "processes_left",
            left = report.left,
            "what a command started cannot be killed; its shim goes on trying"
        );
    }
    if let Some(exceeded) = report.exceeded {
        return Ended::Exceeded(exceeded);
    }
    match report.code {
        _ if report.timed_out => Ended::TimedOut,
        _ if report.lease_ended => Ended::LeaseOver,
        Some(code) => Ended::Exited(code),
        None => Ended::Killed(report.signal.unwrap_or(0)),
    }
}

/// Ends what a shim that was killed, or does not answer, left behind.
async fn abandon(
    mut child: Child,
    folder: &Path,
    leaf: Option<Leaf>,
    bell: &Bell,
) -> io::Result<Ended> {
    let folder = folder.to_owned();
    let session = child.id().and_then(|id| i32::try_from(id).ok());
    // Where it has ended already there is nobody to kill. It is not waited for yet: so its session's name stays its own.
    let _ = child.start_kill();
    let sweep = move || {
        if let Some(leaf) = &leaf {
            leaf.kill();
        }
        let left = tree::sweep(session, &folder, SWEEP);
        if let Some(leaf) = &leaf {
            leaf.remove();
        }
        left
    };
    let swept = tokio::task::spawn_blocking(sweep).await;
    let left = swept.unwrap_or(0);
    let _ = tokio::time::timeout(LAST_STEPS, child.wait()).await;
    tracing::warn!(
        event = "shim_lost",
        left,
        "what it watched was killed instead"
    );
    match bell.rung() {
        Some(_) => Ok(Ended::Killed(9)),
        None => Err(io::Error::other("the process that watched it was killed")),
    }
}
