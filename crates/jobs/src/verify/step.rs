//! The words of a history: what each kind of event does to a job.

use crate::state::Status;

/// What an event kind does to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The status changes.
    To(Status),
    /// The reason of the change that must follow at once.
    Cause,
    /// The remark `dead_lettered`, which must follow a failure at once.
    DeadLetter,
    /// A remark that only a running job gets.
    AtWork,
    /// A remark at any time, kinds that this version does not know included.
    Note,
}

impl Step {
    pub(super) fn of(kind: &str, status: Option<Status>) -> Self {
        match kind {
            "queued" | "retry_scheduled" | "released" | "resumed" | "replayed" | "stage_queued"
            | "gate_approved" => Self::To(Status::Queued),
            "running" => Self::To(Status::Running),
            "gate_opened" | "held" => Self::To(Status::Waiting),
            "succeeded" => Self::To(Status::Succeeded),
            "failed" => Self::To(Status::Failed),
            "aborted" => Self::To(Status::Aborted),
            "dead_lettered" => Self::DeadLetter,
            "lease_expired" | "stage_succeeded" | "gate_expired" => Self::Cause,
            // Asked of a running job it is a wish; else the abort follows in the same breath.
            "abort_requested" if status == Some(Status::Running) => Self::AtWork,
            "abort_requested" => Self::Cause,
            "progress" | "progress_refused" | "warning" => Self::AtWork,
            _ => Self::Note,
        }
    }
}

/// The kinds that stand for another kind of the transition table, where the same change has a more exact name.
pub(super) fn same_transition(kind: &str, listed: &str) -> bool {
    kind == listed
        || matches!(
            (kind, listed),
            ("released" | "stage_queued", "retry_scheduled")
                | ("held", "gate_opened")
                | ("gate_approved", "resumed")
        )
}
