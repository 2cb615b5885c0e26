//! What the suite's jobs are and what holds for them, and what its secrets look like. Starts nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::Terms;
use crate::profile::SLOTS;

/// A part of every secret of the system under test; found anywhere else, a secret has leaked.
pub const CANARY: &str = "canary-5d1f";

/// A handler that is asked to end has so long before it is killed.
pub const GRACE: Duration = Duration::from_secs(2);

/// A kind of job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobType {
    pub(crate) name: &'static str,
    /// How many of all shares; those without one are asked for by name.
    pub(crate) share: usize,
    pub(crate) timeout: Duration,
    pub(crate) max_attempts: u32,
    /// Over the fleet.
    pub(crate) concurrency: Option<usize>,
    how: How,
}

/// How its handler is started.
#[derive(Clone, Copy, Debug)]
enum How {
    Plainly,
    /// It does not hear SIGTERM.
    Deaf,
    /// Nor does a child that it starts in a session of its own, twice removed.
    DeafWithShadow,
}

const fn plain(name: &'static str, share: usize) -> JobType {
    JobType {
        name,
        share,
        timeout: Duration::from_secs(60),
        max_attempts: 3,
        concurrency: None,
        how: How::Plainly,
    }
}

const fn endless(name: &'static str, how: How) -> JobType {
    JobType {
        timeout: Duration::from_secs(2),
        max_attempts: 1,
        how,
        ..plain(name, 0)
    }
}

/// All kinds. `linger` outlives a lease, so that one which its runner left behind meets its successor.
pub(crate) const JOB_TYPES: [JobType; 9] = [
    plain("noop", 18),
    plain("short", 10),
    plain("flaky", 6),
    plain("long", 5),
    JobType {
        concurrency: Some(2),
        ..plain("paired", 1)
    },
    plain("linger", 1),
    plain("loud", 0),
    endless("endless", How::Deaf),
    endless("shadowed", How::DeafWithShadow),
];

impl JobType {
    /// Its command, for a handler in this file.
    pub(crate) fn command(&self, handler: &str) -> Vec<String> {
        let words: &[&str] = match self.how {
            How::Plainly => &[handler, self.name],
            How::Deaf => &[
                "/bin/sh",
                "-c",
                "trap '' TERM; exec \"$0\" endless",
                handler,
            ],
            How::DeafWithShadow => &[
                "/bin/sh",
                "-c",
                "trap '' TERM; (setsid \"$0\" shadow >/dev/null 2>&1 &); exec \"$0\" endless",
                handler,
            ],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}

/// What the checker must know of them.
pub(crate) fn terms(slack: Duration) -> Terms {
    let concurrency = JOB_TYPES
        .iter()
        .filter_map(|job_type| Some((job_type.name, job_type.concurrency?)));
    let timeouts = JOB_TYPES
        .iter()
        .map(|job_type| (job_type.name, job_type.timeout));
    Terms {
        slots: SLOTS,
        concurrency: concurrency.collect(),
        timeouts: timeouts.collect::<BTreeMap<_, _>>(),
        slack,
    }
}
