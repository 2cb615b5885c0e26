//! Whether a server lives, and whose it is: waits until that is clear, and ends a server that nobody guards any more.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::Error;
use crate::files::{PAUSE, try_lock};
use crate::launch::START_LIMIT;
use crate::pid_file::{PidFile, Status, raw_pid};
use crate::state::Layout;

/// How long a server may outlive its owner before we stop it ourselves, because its guard must be dead too.
const ORPHAN_LIMIT: Duration = Duration::from_secs(3);

/// What a starter finds.
pub(crate) enum Settled {
    /// No server of ours lives; the lock keeps it so.
    Free(File),
    /// A server is ready, and so is the process that owns it.
    Live,
}

/// Waits until it is clear whether a server lives; the caller holds the start lock.
pub(crate) fn settle(layout: &Layout) -> Result<Settled, Error> {
    let start = Instant::now();
    loop {
        if let Some(alive) = try_lock(&layout.alive_lock())? {
            return Ok(Settled::Free(alive));
        }
        let file = PidFile::read(&layout.data());
        if try_lock(&layout.owner_lock())?.is_none() {
            if file.is_some_and(|file| file.status == Status::Ready && file.answers()) {
                return Ok(Settled::Live);
            }
        } else if start.elapsed() > ORPHAN_LIMIT {
            end_orphan(layout)?;
        }
        if start.elapsed() > START_LIMIT {
            return Err(Error::NotReady {
                problem: format!(
                    "another process holds {} and does not get on",
                    layout.home.display()
                ),
            });
        }
        thread::sleep(PAUSE);
    }
}

/// Ends a server that has no guard any more, and waits until it is gone; nothing to do is the usual case.
pub(crate) fn end_orphan(layout: &Layout) -> Result<(), Error> {
    let start = Instant::now();
    while try_lock(&layout.alive_lock())?.is_none() {
        if start.elapsed() > START_LIMIT {
            return Err(Error::NotReady {
                problem: format!("the old server in {} does not end", layout.home.display()),
            });
        }
        // The pid is true: the lock is held, so the server or a child of it lives. Repeated, as its handler may come late.
        let _ = PidFile::read(&layout.data())
            .and_then(|file| raw_pid(file.pid))
            .map(|pid| kill_process(pid, Signal::INT));
        thread::sleep(PAUSE * 10);
    }
    Ok(())
}
