//! What a command may take, and the shim's ways to hold it to that. Whatever is set here is inherited and cannot be undone.

use std::io;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
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
    /// Private memory of each process, in bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// Processes and threads of the user altogether; root is not held to it.
    pub(crate) processes: Option<u64>,
    /// Open files of each process.
    pub(crate) open_files: Option<u64>,
    /// The largest file that may be written, in bytes.
    pub(crate) file_bytes: Option<u64>,
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

/// Runs `start` so that what it starts is killed before this process when memory runs out.
pub(super) fn first_to_go<T>(start: impl FnOnce() -> T) -> T {
    let own = std::fs::read_to_string(OOM_SCORE).unwrap_or_default();
    let is_lower = own
        .trim()
        .parse()
        .is_ok_and(|own: i32| own < OOM_SCORE_OF_JOBS);
    if !is_lower {
        return start();
    }
    // Where the kernel refuses, nothing is worse than before.
    let _ = std::fs::write(OOM_SCORE, OOM_SCORE_OF_JOBS.to_string());
    let started = start();
    let _ = std::fs::write(OOM_SCORE, own);
    started
}
