//! What a handler may say about an attempt. It never sees the row, the lease or the retry count.

use serde_json::Value;

use crate::storable::{storable_json, storable_text};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Done; the result is kept.
    Succeeded(Value),
    /// Failed, but worth another attempt if any is left.
    Retry(String),
    /// Failed for good.
    Failed(String),
    /// Stopped because somebody asked for it.
    Aborted,
    /// Given back unharmed because the runner is shutting down; the attempt is not counted.
    Released,
}

/// The longest error that is kept, in bytes.
pub const LONGEST_ERROR: usize = 8 * 1024;

impl Outcome {
    /// The same outcome in a form that PostgreSQL can store: without NUL, errors cut at [`LONGEST_ERROR`].
    #[must_use]
    pub fn storable(self) -> Self {
        match self {
            Self::Succeeded(result) => Self::Succeeded(storable_json(result)),
            Self::Retry(error) => Self::Retry(storable_text(&error, LONGEST_ERROR)),
            Self::Failed(error) => Self::Failed(storable_text(&error, LONGEST_ERROR)),
            Self::Aborted => Self::Aborted,
            Self::Released => Self::Released,
        }
    }
}
