//! What runner and shim say to each other over the socket that is the shim's standard input: a task and its payload,
//! then orders, each a byte, one way; words, each a line of JSON, the other. Sends nothing itself.

use std::io;

use serde::{Deserialize, Serialize};

use super::limits::Limits;

/// The first argument of a program that is to be a shim.
pub(super) const ARGUMENT: &str = "exec-shim";

/// The first line; the payload follows it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) argv: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) limits: Limits,
    pub(super) timeout_ms: Option<u64>,
    pub(super) payload_bytes: usize,
}

/// What is to become of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It may clean up first.
    Terminate,
    Kill,
}

impl Order {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Terminate => b't',
            Self::Kill => b'k',
        }
    }

    /// What cannot be understood kills.
    pub(super) fn of(byte: u8) -> Self {
        match byte {
            b't' => Self::Terminate,
            _ => Self::Kill,
        }
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
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    /// The shim's clock ended it, not an order.
    pub(super) timed_out: bool,
    /// Processes that could not be killed yet.
    pub(super) left: usize,
}
