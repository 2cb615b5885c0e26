//! The messages between control plane and runner: the only thing, beside the table, in which the two services meet.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::state::Status;

/// The control plane's nudge: take this queued job. It carries nothing that is trusted; the row says what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// The job to take.
    pub job_id: Uuid,
}

/// The runner's answer once the row says `running`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerAccepted {
    /// The job.
    pub job_id: Uuid,
    /// Always `running`.
    pub status: Status,
    /// Which attempt has begun.
    pub attempt: i32,
    /// The runner that holds it.
    pub runner_id: String,
}
