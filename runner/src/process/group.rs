//! Commands without a shim: a process group, killed as one. Who leaves it, and what a killed runner leaves, goes on.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::task::JoinSet;

use super::{Ended, Program, Reading, start_group};
use crate::interruption::Bell;
use crate::output::Output;

/// Runs a program to its end, or to the bell; when this returns, or is dropped, its process group is dead.
pub(super) async fn run(
    program: Program<'_>,
    output: &Arc<Output>,
    bell: &Bell,
) -> io::Result<Ended> {
    let mut child = start_group(&program)?;
    let group = Group::of(&child);
    let mut feeding = JoinSet::new();
    if let Some(stdin) = child.stdin.take() {
        feeding.spawn(feed(stdin, program.stdin));
    }
    let reading = Reading::of_child(&mut child, output);
    let status = tokio::select! {
        status = child.wait() => status?,
        why = bell.heard() => group.end(&mut child, why.grace()).await?,
    };
    drop(group);
    reading.end().await;
    feeding.shutdown().await;
    Ok(status.into())
}

/// Hands over the payload; a child that does not read it is its own affair.
async fn feed(mut stdin: ChildStdin, bytes: Vec<u8>) {
    let _ = stdin.write_all(&bytes).await;
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
