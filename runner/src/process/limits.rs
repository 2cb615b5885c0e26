//! What a command may take, and the shim's ways to hold it to that. Whatever is set here is inherited and cannot be undone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use rustix::thread::set_no_new_privs;
use serde::{Deserialize, Serialize};

/// Where the kernel says how readily it kills a process when memory runs out.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";
/// Jobs go before the runner does.
const OOM_SCORE_OF_JOBS: i32 = 500;

/// Below these the shim itself could not work.
const LEAST_MEMORY: u64 = 16 * 1024 * 1024;
const LEAST_OPEN_FILES: u64 = 32;

/// Limits of a job type; `None`: as the runner has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Private memory of each process, in bytes; where there is a cgroup, also of all together.
    pub(crate) memory_bytes: Option<u64>,
    /// Processes of the tree; with threads, and of the user altogether, where the kernel counts and it is not root.
    pub(crate) processes: Option<u64>,
    /// Open files of each process.
    pub(crate) open_files: Option<u64>,
    /// The largest file that may be written, in bytes.
    pub(crate) file_bytes: Option<u64>,
    /// Whether programs such as `sudo` may give it more rights than the runner has.
    #[serde(default)]
    pub(crate) new_privileges: bool,
}

impl Limits {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The settings that are too small, each with the least that it may be.
    pub(crate) fn too_small(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let floors = [
            ("limits.memory_bytes", self.memory_bytes, LEAST_MEMORY),
            ("limits.processes", self.processes, 1),
            ("limits.open_files", self.open_files, LEAST_OPEN_FILES),
            ("limits.file_bytes", self.file_bytes, 1),
        ];
        floors
            .into_iter()
            .filter_map(|(key, limit, least)| (limit? < least).then_some((key, least)))
    }

    /// Holds this process, and all that it starts, to the limits.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub(super) fn apply(&self) -> io::Result<()> {
        umask(Mode::from_raw_mode(0o077));
        if !self.new_privileges {
            set_no_new_privs(true)?;
        }
        let limits = [
            (Resource::Core, Some(0)),
            (Resource::Data, self.memory_bytes),
            (Resource::Nproc, self.processes),
            (Resource::Nofile, self.open_files),
            (Resource::Fsize, self.file_bytes),
        ];
        for (resource, limit) in limits {
            if let Some(limit) = limit {
                // Nobody but root may go above what was inherited.
                let highest = getrlimit(resource).maximum.unwrap_or(u64::MAX);
                let limit = Some(limit.min(highest));
                setrlimit(
                    resource,
                    Rlimit {
                        current: limit,
                        maximum: limit,
                    },
                )?;
            }
        }
        Ok(())
    }
}

/// A limit that ended a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exceeded {
    Memory,
    Processes,
    FileSize,
}

impl Limits {
    /// The limits in force, as their settings are called.
    pub(crate) fn words(&self) -> Vec<String> {
        let limits = [
            ("memory_bytes", self.memory_bytes),
            ("processes", self.processes),
            ("open_files", self.open_files),
            ("file_bytes", self.file_bytes),
        ];
        let set = limits
            .into_iter()
            .filter_map(|(name, limit)| limit.map(|limit| format!("limits.{name} = {limit}")));
        set.collect()
    }

    /// One of them, as its setting is called.
    pub(crate) fn word(&self, exceeded: Exceeded) -> String {
        let (name, limit) = match exceeded {
            Exceeded::Memory => ("memory_bytes", self.memory_bytes),
            Exceeded::Processes => ("processes", self.processes),
            Exceeded::FileSize => ("file_bytes", self.file_bytes),
        };
        match limit {
            Some(limit) => format!("limits.{name} = {limit}"),
            None => format!("limits.{name}"),
        }
    }
}

/// How readily this process is killed when memory runs out.
pub(super) struct OomScore {
    /// Opened before the shim closes itself to others, since its files in /proc are root's from then on.
    file: Option<File>,
    own: String,
}

impl OomScore {
    /// As it is when the shim starts.
    pub(super) fn of_shim() -> Self {
        let own = std::fs::read_to_string(OOM_SCORE).unwrap_or_default();
        let is_lower = own
            .trim()
            .parse()
            .is_ok_and(|own: i32| own < OOM_SCORE_OF_JOBS);
        let file = is_lower.then(|| OpenOptions::new().write(true).open(OOM_SCORE));
        Self {
            file: file.and_then(Result::ok),
            own,
        }
    }

    /// Runs `start` so that what it starts is killed before this process.
    pub(super) fn first_to_go<T>(&self, start: impl FnOnce() -> T) -> T {
        let Some(file) = &self.file else {
            return start();
        };
        // Where the kernel refuses, nothing is worse than before.
        let _ = file.write_all_at(OOM_SCORE_OF_JOBS.to_string().as_bytes(), 0);
        let started = start();
        let _ = file.write_all_at(self.own.as_bytes(), 0);
        started
    }
}
