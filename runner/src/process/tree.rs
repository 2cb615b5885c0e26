//! Who is running, who started whom, and killing exactly those. Looks at /proc only, and waits for nobody but in
//! [`sweep`].

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// A sweep looks again after so long.
const SWEEP_PAUSE: Duration = Duration::from_millis(10);

/// A process, as /proc had it a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    pub(super) session: i32,
    /// With the pid it is a name that no other process ever gets.
    born: u64,
    is_dead: bool,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The program's name stands in brackets and may hold anything, brackets and spaces too.
    fn parse(pid: i32, stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            born: fields.get(19)?.parse().ok()?,
            is_dead: matches!(*fields.first()?, "Z" | "X"),
        })
    }

    /// Signals this process and none that has its pid by now.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        // An error means that it has ended, or belongs to another user.
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) if self.is_still_there() => {
                let _ = pidfd_send_signal(handle, signal);
            }
            Err(Errno::NOSYS | Errno::PERM | Errno::MFILE | Errno::NFILE)
                if self.is_still_there() =>
            {
                let _ = kill_process(pid, signal);
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn is_still_there(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.born == self.born)
    }

    /// Whether a command of this run folder, or of one below it, was given this environment.
    fn is_of(&self, folder: &Path) -> bool {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        let folder = folder.as_os_str().as_bytes();
        environment.split(|byte| *byte == 0).any(|variable| {
            variable
                .strip_prefix(b"OPS_RESULT_FILE=")
                .and_then(|path| path.strip_prefix(folder))
                .is_some_and(|rest| rest.starts_with(b"/"))
        })
    }
}

/// Everybody who has not ended.
fn living() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries
        .filter_map(|entry| Process::read(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .filter(|process| !process.is_dead)
        .collect()
}

/// Those below this one, however far down. Below a subreaper nobody gets out of this.
pub(super) fn descendants(ancestor: i32) -> Vec<Process> {
    below(ancestor, living())
}

fn below(ancestor: i32, mut others: Vec<Process>) -> Vec<Process> {
    let mut family = BTreeSet::from([ancestor]);
    let mut found = Vec::new();
    loop {
        let (children, rest): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|process| family.contains(&process.parent));
        if children.is_empty() {
            return found;
        }
        family.extend(children.iter().map(|child| child.pid));
        found.extend(children);
        others = rest;
    }
}

/// Kills what nobody watches any more: the session, where there is one, and the commands of the folder and of those
/// below it. Gives the number of those who are left when the time is over.
pub(crate) fn sweep(session: Option<i32>, folder: &Path, patience: Duration) -> usize {
    let begun = Instant::now();
    loop {
        let mut left = living();
        left.retain(|process| {
            let in_session = session == Some(process.session) && session != Some(process.pid);
            in_session || process.is_of(folder)
        });
        if left.is_empty() || begun.elapsed() >= patience {
            return left.len();
        }
        for process in &left {
            process.signal(Signal::KILL);
        }
        std::thread::sleep(SWEEP_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process {
            pid,
            parent,
            session: 1,
            born: 0,
            is_dead: false,
        }
    }

    #[test]
    fn a_name_with_brackets_and_spaces_shifts_nothing() {
        let stat = "7 (a) R 1 (b c) S 5 6 4 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0";
        let parsed = Process::parse(7, stat).expect("a process");
        assert_eq!((parsed.parent, parsed.session, parsed.born), (5, 4, 99));
        assert!(!parsed.is_dead);
    }

    #[test]
    fn descendants_are_found_however_far_down_and_in_any_order() {
        let all = vec![
            process(9, 8),
            process(3, 1),
            process(8, 2),
            process(2, 1),
            process(5, 4),
        ];
        let pids: Vec<i32> = below(2, all).iter().map(|process| process.pid).collect();
        assert_eq!(pids, [8, 9]);
    }

    #[test]
    fn a_process_that_has_another_birth_is_another_and_is_left_alone() {
        let mut own =
            Process::read(i32::try_from(std::process::id()).expect("a pid")).expect("ours");
        assert!(own.is_still_there());
        own.born += 1;
        assert!(!own.is_still_there());
        own.signal(Signal::KILL);
    }
}
