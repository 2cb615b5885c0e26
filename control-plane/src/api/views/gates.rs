//! What stages, gates and links look like in JSON. Holds no logic.

use jobs::{Gate, GateState, Job, OnExpiry, Stage};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::JobView;

/// A stage of a job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stage)]
pub(crate) struct StageView {
    /// Its place: 1, 2, 3 …
    no: i32,
    /// Once within the job.
    name: String,
    /// What is done in it.
    job_type: String,
    /// What its handler is given.
    payload: Value,
    /// The gate after it, as it was asked for.
    gate: Option<Value>,
    /// `pending`, `queued`, `running`, `waiting`, `succeeded`, `failed` or `aborted`.
    status: String,
    /// What its handler answered, as an approval patched it.
    result: Option<Value>,
    /// Why its last attempt failed.
    error: Option<String>,
    /// Claims counted so far.
    attempts: i32,
    /// Its log is what was printed under the fences from this one …
    first_fence: Option<i64>,
    /// … to this one.
    last_fence: Option<i64>,
    /// When its newest attempt began.
    #[serde(with = "time::serde::rfc3339::option")]
    started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
}

impl From<Stage> for StageView {
    fn from(stage: Stage) -> Self {
        Self {
            no: stage.no,
            name: stage.name,
            job_type: stage.job_type,
            payload: stage.payload,
            gate: stage.gate,
            status: stage.status,
            result: stage.result,
            error: stage.error,
            attempts: stage.attempts,
            first_fence: stage.first_fence,
            last_fence: stage.last_fence,
            started_at: stage.started_at,
            finished_at: stage.finished_at,
        }
    }
}

/// A gate that was reached.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Gate)]
pub(crate) struct GateView {
    /// The job.
    job_id: Uuid,
    /// The gate, by the name of the stage that it comes after.
    name: String,
    /// 1, and one more each time that it opened anew.
    revision: i32,
    /// `open`, `approved`, `rejected`, `expired` (nobody decided) or `closed` (the job ended before).
    #[schema(value_type = String)]
    state: GateState,
    /// What is decided about: the stage's result.
    document: Value,
    /// SHA-256 of it, in hex; a decision may name it.
    document_hash: String,
    /// The payload with which a rejected stage is run again.
    payload: Value,
    /// So many must approve.
    approvals_needed: i32,
    /// Who has approved so far, where several must.
    approved_by: Vec<String>,
    /// Whether whoever recorded the job may not decide.
    not_requester: bool,
    /// Only these may decide; null: anyone with a key.
    only_keys: Option<Vec<String>>,
    /// Since when it waits.
    #[serde(with = "time::serde::rfc3339")]
    opened_at: OffsetDateTime,
    /// When it is approved by itself.
    #[serde(with = "time::serde::rfc3339::option")]
    auto_approve_at: Option<OffsetDateTime>,
    /// When it is waited for no longer.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// What then becomes of it: `abort`, `approve` or `reject`.
    #[schema(value_type = String)]
    on_expiry: OnExpiry,
    /// Who decided.
    decided_by: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339::option")]
    decided_at: Option<OffsetDateTime>,
    /// Whether time decided and not a person.
    automatic: bool,
    /// Why.
    reason: Option<String>,
    /// The JSON Patch that came with the decision.
    patch: Option<Value>,
    /// What it made: of the document when approved, of the payload when rejected.
    patched: Option<Value>,
}

impl GateView {
    /// Where it is, in a word.
    pub(crate) fn state(&self) -> &'static str {
        match self.state {
            GateState::Open => "open",
            GateState::Approved => "approved",
            GateState::Rejected => "rejected",
            GateState::Expired => "expired",
            GateState::Closed => "closed",
        }
    }
}

impl From<Gate> for GateView {
    fn from(gate: Gate) -> Self {
        Self {
            job_id: gate.job_id,
            name: gate.name,
            revision: gate.revision,
            state: gate.state,
            document: gate.document,
            document_hash: gate.document_hash,
            payload: gate.payload,
            approvals_needed: gate.approvals_needed,
            approved_by: gate.approved_by,
            not_requester: gate.not_requester,
            only_keys: gate.only_keys,
            opened_at: gate.opened_at,
            auto_approve_at: gate.auto_approve_at,
            expires_at: gate.expires_at,
            on_expiry: gate.on_expiry,
            decided_by: gate.decided_by,
            decided_at: gate.decided_at,
            automatic: gate.automatic,
            reason: gate.reason,
            patch: gate.patch,
            patched: gate.patched,
        }
    }
}

/// Gates.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Gates)]
pub(crate) struct GatesView {
    /// In order.
    gates: Vec<GateView>,
}

impl GatesView {
    pub(crate) fn of(gates: Vec<Gate>) -> Self {
        Self {
            gates: gates.into_iter().map(GateView::from).collect(),
        }
    }
}

/// What stands after a decision.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Decided)]
pub(crate) struct DecidedView {
    /// The job as it is now.
    job: JobView,
    /// The gate as it is now: still open where others must approve too.
    gate: GateView,
}

impl DecidedView {
    pub(crate) fn of(job: Job, gate: Gate) -> Self {
        Self {
            job: job.into(),
            gate: gate.into(),
        }
    }

    /// Where the gate is, in a word.
    pub(crate) fn state(&self) -> &'static str {
        self.gate.state()
    }
}

/// A decision.
#[derive(ToSchema)]
#[schema(as = NewDecision)]
#[expect(dead_code, reason = "describes a request, which DecisionBody parses")]
pub(crate) struct DecisionView {
    /// Why, for the gate and the job's events.
    #[schema(max_length = 1000)]
    reason: Option<String>,
    /// JSON Patch (RFC 6902): to the stage's result when approving, to its payload when rejecting.
    patch: Option<Vec<Value>>,
    /// Only if the gate is at this revision.
    #[schema(minimum = 1)]
    revision: Option<i32>,
    /// Only if it shows the document of this hash.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    document_hash: Option<String>,
}

/// Links that are asked for.
#[derive(ToSchema)]
#[schema(as = NewLinks)]
#[expect(dead_code, reason = "describes a request, which LinksRequest parses")]
pub(crate) struct LinksRequestView {
    /// How long they are good for, in seconds; a day unless asked otherwise.
    #[schema(minimum = 1, maximum = 2_592_000)]
    expires_in_seconds: Option<i32>,
}

/// Links that decide one gate once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Links)]
pub(crate) struct LinksView {
    /// One for each decision.
    pub(crate) links: Vec<LinkView>,
}

/// A link that decides one gate once: whoever has it may, so send it to one person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Link)]
pub(crate) struct LinkView {
    /// `approve` or `reject`.
    pub(crate) decision: &'static str,
    /// Where it leads on this control plane: opening it shows a page, and only its button decides.
    pub(crate) path: String,
    /// Until when it is good.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) expires_at: OffsetDateTime,
}
