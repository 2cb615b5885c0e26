//! What `postmaster.pid` says about a server, and whether it is true. Changes nothing.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};

use crate::url::PORT;

/// The server's own word on how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ready,
    NotReady,
}

/// The lines of `postmaster.pid` that matter here.
#[derive(Debug)]
pub(crate) struct PidFile {
    pub(crate) pid: u32,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) status: Status,
}

impl PidFile {
    /// Reads the file of a data directory; `None` when there is none, or it is still being written.
    pub(crate) fn read(data: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(data.join("postmaster.pid")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().collect();
        let line = |number: usize| lines.get(number - 1).map(|line| line.trim());
        Some(Self {
            pid: line(1)?.parse().ok()?,
            socket: line(5).filter(|line| !line.is_empty()).map(PathBuf::from),
            status: if line(8) == Some("ready") {
                Status::Ready
            } else {
                Status::NotReady
            },
        })
    }

    /// Whether a process with this id lives, whichever it is: ids are used again.
    pub(crate) fn process_lives(&self) -> bool {
        raw_pid(self.pid).is_some_and(|pid| match test_kill_process(pid) {
            Ok(()) => true,
            // It lives, and is somebody else's.
            Err(error) => error == rustix::io::Errno::PERM,
        })
    }

    /// Whether a server listens where the file says.
    pub(crate) fn answers(&self) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        UnixStream::connect(socket.join(format!(".s.PGSQL.{PORT}"))).is_ok()
    }
}

/// A process id that can be signalled: never 0 or 1.
pub(crate) fn raw_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid)
        .ok()
        .filter(|pid| *pid > 1)
        .and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_ready_on_line_eight_is_ready() {
        let text = "4711\n/data\n1700000000\n5432\n/socket\n\n  123   4\nready   \n";
        let file = PidFile::parse(text).expect("a whole file");
        assert_eq!((file.pid, file.status), (4711, Status::Ready));
        assert_eq!(file.socket.as_deref(), Some(Path::new("/socket")));
        let starting = PidFile::parse(&text.replace("ready", "starting")).expect("a whole file");
        assert_eq!(starting.status, Status::NotReady);
        let short = PidFile::parse("4711\n/data\n").expect("a beginning");
        assert_eq!(short.status, Status::NotReady);
        assert!(PidFile::parse("").is_none());
    }

    #[test]
    fn a_pid_that_would_signal_everybody_is_no_pid() {
        assert!(raw_pid(0).is_none());
        assert!(raw_pid(1).is_none());
        assert!(raw_pid(u32::MAX).is_none());
        assert!(raw_pid(2).is_some());
    }
}
