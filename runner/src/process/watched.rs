//! The runner's side of a shim: starts it, tells it what to run and when to end it, and cleans up should it be killed
//! itself. The tree is the shim's affair.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::protocol::{Order, Report, Task, Word};
use super::{Ended, Program, Reading, ShimProgram, start_shim, tree};
use crate::interruption::{Bell, Interruption};
use crate::output::Output;

/// What a shim may take beside the grace before it is not waited for any more.
const AFTER_GRACE: Duration = Duration::from_secs(2);
/// What a shim that has said its last word may take to end.
const LAST_STEPS: Duration = Duration::from_secs(1);
/// How long what a killed shim left behind is killed.
const SWEEP: Duration = Duration::from_secs(2);

/// Runs a program below a shim to its end, or to the bell. When this is dropped instead, the shim ends the tree as for a
/// runner that is gone.
pub(super) async fn run(
    shim: &ShimProgram,
    program: Program<'_>,
    output: &Arc<Output>,
    bell: &Bell,
) -> io::Result<Ended> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut child = start_shim(shim, program.folder, OwnedFd::from(theirs))?;
    let reading = Reading::of(&mut child, output);
    let (from_shim, to_shim) = UnixStream::from_std(ours)?.into_split();
    let mut words = BufReader::new(from_shim).lines();
    let folder = program.folder;
    let (give, order) = oneshot::channel();
    let mut speaking = JoinSet::new();
    speaking.spawn(speak(to_shim, beginning(program)?, order));
    let said = tokio::select! {
        said = hear(&mut words) => said,
        why = bell.heard() => obeyed(&mut words, give, why).await,
    };
    let ended = match said {
        Some(Word::Ended(report)) => {
            // With somebody left it goes on, and the runner does not wait for that.
            let _ = tokio::time::timeout(LAST_STEPS, child.wait()).await;
            Ok(verdict(report))
        }
        Some(Word::NotStarted { os_error, why }) => {
            let _ = tokio::time::timeout(LAST_STEPS, child.wait()).await;
            Err(os_error.map_or_else(|| io::Error::other(why), io::Error::from_raw_os_error))
        }
        None => abandon(child, folder, bell).await,
    };
    reading.end().await;
    speaking.shutdown().await;
    ended
}

fn beginning(program: Program<'_>) -> io::Result<Vec<u8>> {
    let task = Task {
        argv: program.argv.to_vec(),
        environment: program.environment,
        limits: program.limits,
        timeout_ms: program
            .timeout
            .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        payload_bytes: program.stdin.len(),
    };
    let mut bytes = serde_json::to_vec(&task)?;
    bytes.push(b'\n');
    bytes.extend(program.stdin);
    Ok(bytes)
}

/// Says everything, and holds the line until it is dropped: its end would be an order.
async fn speak(mut to_shim: OwnedWriteHalf, beginning: Vec<u8>, order: oneshot::Receiver<Order>) {
    // A shim that does not listen has ended, and that is heard at the other half.
    let _ = to_shim.write_all(&beginning).await;
    if let Ok(order) = order.await {
        let _ = to_shim.write_all(&[order.byte()]).await;
    }
    std::future::pending::<()>().await;
}

/// The shim's word, or `None` when it is gone without one.
async fn hear(words: &mut Lines<BufReader<OwnedReadHalf>>) -> Option<Word> {
    let line = words.next_line().await.ok()??;
    serde_json::from_str(&line).ok()
}

async fn obeyed(
    words: &mut Lines<BufReader<OwnedReadHalf>>,
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

fn verdict(report: Report) -> Ended {
    if report.left > 0 {
        tracing::error!(
            event = "processes_left",
            left = report.left,
            "what a command started cannot be killed; its shim goes on trying"
        );
    }
    match report.code {
        _ if report.timed_out => Ended::TimedOut,
        Some(code) => Ended::Exited(code),
        None => Ended::Killed(report.signal.unwrap_or(0)),
    }
}

/// Ends what a shim that was killed, or does not answer, left behind.
async fn abandon(mut child: Child, folder: &Path, bell: &Bell) -> io::Result<Ended> {
    let folder = folder.to_owned();
    let session = child.id().and_then(|id| i32::try_from(id).ok());
    // Where it has ended already there is nobody to kill. It is not waited for yet: so its session's name stays its own.
    let _ = child.start_kill();
    let swept = tokio::task::spawn_blocking(move || tree::sweep(session, &folder, SWEEP)).await;
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
