//! What runner and shim say to each other over the socket that is the shim's standard input: for each run, behind the
//! handover of its output, a task and its payload, then orders, each a byte and what goes with it, one way; a word, a line
//! of JSON, the other. Sends nothing itself.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::cgroup::Leaf;
use super::limits::{Exceeded, Limits};
use super::term::BootTime;

/// The first argument of a program that is to be a shim.
pub(super) const ARGUMENT: &str = "exec-shim";

/// The first line of a run; the payload follows it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) argv: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    /// Where the command starts.
    pub(super) folder: PathBuf,
    pub(super) limits: Limits,
    pub(super) timeout_ms: Option<u64>,
    /// When nobody of the tree may live any more, unless a renewal is told.
    pub(super) kill_at: BootTime,
    /// The group that the command is to have, where there is one.
    pub(super) leaf: Option<Leaf>,
    pub(super) payload_bytes: usize,
}

/// What is to become of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It may clean up first.
    Terminate,
    Kill,
    /// It may live until then.
    Renewed(BootTime),
}

impl Order {
    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Self::Terminate => vec![b't'],
            Self::Kill => vec![b'k'],
            Self::Renewed(BootTime(at)) => [b"r", &at.to_be_bytes()[..]].concat(),
        }
    }

    /// The next order of a runner. What cannot be understood kills.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        Ok(match from.read_u8().await? {
            b't' => Self::Terminate,
            b'r' => Self::Renewed(BootTime(from.read_u64().await?)),
            _ => Self::Kill,
        })
    }
}

/// What a shim says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    NotStarted { os_error: Option<i32>, why: String },
    Ended(Report),
}

impl Word {
    pub(super) fn not_started(error: &io::Error) -> Self {
        Self::NotStarted {
            os_error: error.raw_os_error(),
            why: error.to_string(),
        }
    }
}

/// How the command ended, and whether anybody of its tree is left.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    /// The shim's clock ended it, not an order.
    pub(super) timed_out: bool,
    /// The lease was about to end, and no renewal had been told.
    pub(super) lease_ended: bool,
    /// The limit that it ran into.
    pub(super) exceeded: Option<Exceeded>,
    /// Why it ran without the group that it was to have.
    pub(super) no_leaf: Option<String>,
    /// Processes that could not be killed yet.
    pub(super) left: usize,
}
