//! Gates: read them, approve, reject. A decision is made once, about what was shown; the database sees to both.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use jobs::{Decision, DecisionRequest, Gate, Verdict, apply_patch};
use serde_json::Value;
use service::{Caller, FieldError, Fields, Json, OptionalJson, Parse, Path, Problem, Query, read};
use uuid::Uuid;

use super::job::reason;
use super::params::JobId;
use super::views::{DecidedView, DecisionView, GateView, GatesView};
use crate::app::{App, ask};
use crate::error::no_such_job;

/// How many open gates a list has at most.
const MOST_GATES: i64 = 200;
/// As many hexadecimal digits as a SHA-256 has.
const HASH_DIGITS: usize = 64;

/// The job and the gate that a path names; what is no id names no job.
pub(crate) struct GateName(pub(crate) Uuid, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for GateName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(Uuid, String)>::from_request_parts(parts, state).await;
        path.map(|Path((id, name))| Self(id, name))
            .map_err(|_| no_such_job())
    }
}

/// The body of a decision.
#[derive(Debug, Default)]
pub(crate) struct DecisionBody {
    pub(crate) reason: Option<String>,
    pub(crate) patch: Option<Value>,
    pub(crate) revision: Option<i32>,
    pub(crate) document_hash: Option<String>,
}

impl Parse for DecisionBody {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            reason: fields.optional("reason", reason),
            patch: fields.optional("patch", read::json),
            revision: fields.optional("revision", read::integer_within(1, i32::MAX)),
            document_hash: fields.optional(
                "document_hash",
                read::text_as(|text| {
                    let is_hash = text.len() == HASH_DIGITS
                        && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                    is_hash
                        .then(|| text.to_lowercase())
                        .ok_or_else(|| "must be 64 hexadecimal digits".to_owned())
                }),
            ),
        })
    }
}

/// The query of a list of open gates.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    limit: i64,
}

impl Parse for OpenRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let limit = fields.optional("limit", read::number_text(1, MOST_GATES));
        Some(Self {
            limit: limit.unwrap_or(MOST_GATES),
        })
    }
}

/// List the gates that wait for a person, of every job, those that have waited longest first.
#[utoipa::path(
    get,
    path = "/gates",
    tag = "gates",
    params(("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "200 unless asked otherwise")),
    responses((status = 200, description = "The open gates", body = GatesView)),
)]
pub(crate) async fn open(
    State(app): State<Arc<App>>,
    Query(OpenRequest { limit }): Query<OpenRequest>,
) -> Result<Json<GatesView>, Problem> {
    let gates = ask(app.store.open_gates(limit)).await?;
    Ok(Json(GatesView::of(gates)))
}

/// List the gates that a job has reached, in order, every revision of each.
#[utoipa::path(
    get,
    path = "/jobs/{id}/gates",
    tag = "gates",
    params(("id" = Uuid, Path, description = "The job")),
    responses((status = 200, description = "Its gates", body = GatesView), (status = 404, description = "No such job")),
)]
pub(crate) async fn gates(
    State(app): State<Arc<App>>,
    JobId(id): JobId,
) -> Result<Json<GatesView>, Problem> {
    let gates = ask(app.store.gates(id)).await?;
    if gates.is_empty() {
        // None reached, or no job: only reading again tells.
        app.job(id).await?;
    }
    Ok(Json(GatesView::of(gates)))
}

/// Approve a gate; the job goes on.
///
/// A `patch` (JSON Patch, RFC 6902) changes the stage's result first: all of it is applied, or nothing and nothing is decided.
/// With `revision` or `document_hash` the decision holds only for what was shown under them.
#[utoipa::path(
    post,
    path = "/jobs/{id}/gates/{name}/approve",
    tag = "gates",
    params(("id" = Uuid, Path, description = "The job"), ("name" = String, Path, description = "The gate, by its stage")),
    request_body = Option<DecisionView>,
    responses(
        (status = 200, description = "Approved, or counted where others must approve too", body = DecidedView),
        (status = 403, description = "It is for others to decide"),
        (status = 404, description = "No such job, or it has not reached such a gate"),
        (status = 409, description = "Decided before, with the `decision` that stands; or what it shows has changed"),
    ),
)]
pub(crate) async fn approve(
    State(app): State<Arc<App>>,
    caller: Caller,
    GateName(id, name): GateName,
    OptionalJson(body): OptionalJson<DecisionBody>,
) -> Result<Json<DecidedView>, Problem> {
    let actor = caller.key_id.to_string();
    decide(&app, id, &name, Decision::Approve, &actor, body).await
}

/// Reject a gate; the job waits until it is resumed, and then runs the stage again.
///
/// A `patch` (JSON Patch, RFC 6902) changes the stage's payload: all of it is applied, or nothing and nothing is decided.
#[utoipa::path(
    post,
    path = "/jobs/{id}/gates/{name}/reject",
    tag = "gates",
    params(("id" = Uuid, Path, description = "The job"), ("name" = String, Path, description = "The gate, by its stage")),
    request_body = Option<DecisionView>,
    responses(
        (status = 200, description = "Rejected", body = DecidedView),
        (status = 403, description = "It is for others to decide"),
        (status = 404, description = "No such job, or it has not reached such a gate"),
        (status = 409, description = "Decided before, with the `decision` that stands; or what it shows has changed"),
    ),
)]
pub(crate) async fn reject(
    State(app): State<Arc<App>>,
    caller: Caller,
    GateName(id, name): GateName,
    OptionalJson(body): OptionalJson<DecisionBody>,
) -> Result<Json<DecidedView>, Problem> {
    let actor = caller.key_id.to_string();
    decide(&app, id, &name, Decision::Reject, &actor, body).await
}

/// Decides, and tells what stands then.
pub(super) async fn decide(
    app: &App,
    id: Uuid,
    name: &str,
    decision: Decision,
    actor: &str,
    body: DecisionBody,
) -> Result<Json<DecidedView>, Problem> {
    let gate = gate(app, id, name).await?;
    let patched = match &body.patch {
        None => None,
        Some(_) if gate.decided_at.is_some() => return Err(decided_before(gate)),
        Some(patch) => {
            // What is shown never changes under its revision, so that what is made of it here still fits there.
            let document = match decision {
                Decision::Approve => &gate.document,
                Decision::Reject => &gate.payload,
            };
            let patched = apply_patch(document, patch).map_err(|why| {
                Problem::invalid_fields(vec![FieldError::new("/patch", why.to_string())])
            })?;
            Some((patch, patched))
        }
    };
    let request = DecisionRequest {
        job_id: id,
        name,
        decision,
        actor,
        reason: body.reason.as_deref(),
        revision: body
            .revision
            .or_else(|| patched.as_ref().map(|_| gate.revision)),
        document_hash: body.document_hash.as_deref(),
        patch: patched.as_ref().map(|(patch, patched)| (*patch, patched)),
    };
    match ask(app.store.decide(&request)).await? {
        Verdict::Decided | Verdict::Counted => {
            let job = app.job(id).await?;
            let gate = self::gate(app, id, name).await?;
            Ok(Json(DecidedView::of(job, gate)))
        }
        Verdict::NoJob => Err(no_such_job()),
        Verdict::NoGate => Err(no_such_gate()),
        Verdict::DecidedBefore => Err(decided_before(self::gate(app, id, name).await?)),
        Verdict::Changed => {
            let gate = self::gate(app, id, name).await?;
            Err(Problem::conflict(
                "What the gate shows is not what was decided about: a changed document needs a new look.",
            )
            .with_code("gate-changed", "Gate shows something else")
            .with_member("revision", gate.revision)
            .with_member("document_hash", gate.document_hash))
        }
        Verdict::NotNamed => Err(Problem::forbidden(
            "This gate is for others to decide: it names the keys that may.",
        )),
        Verdict::Requester => Err(Problem::forbidden(
            "Whoever recorded the job may not decide this gate.",
        )),
        Verdict::PatchOfSeveral => Err(Problem::invalid_fields(vec![FieldError::new(
            "/patch",
            "is not taken with one of several approvals: the others would be about another document; reject with a patch instead",
        )])),
        Verdict::ApprovedBefore => Err(Problem::conflict(
            "This key has approved the gate before; another one must approve too.",
        )
        .with_code("gate-approved-before", "Approved before")),
    }
}

pub(super) async fn gate(app: &App, id: Uuid, name: &str) -> Result<Gate, Problem> {
    match ask(app.store.gate(id, name)).await? {
        Some(gate) => Ok(gate),
        None => {
            app.job(id).await?;
            Err(no_such_gate())
        }
    }
}

fn no_such_gate() -> Problem {
    Problem::not_found("The job has no such gate, or has not reached it.")
}

pub(super) fn decided_before(gate: Gate) -> Problem {
    let by = gate.decided_by.clone().unwrap_or_default();
    let id = gate.job_id.to_string();
    let view = GateView::from(gate);
    let detail = format!("The gate is decided: {}, by {by}.", view.state());
    // A view always serialises.
    let decision = serde_json::to_value(view).unwrap_or_default();
    Problem::conflict(detail)
        .with_code("gate-decided", "Gate decided before")
        .with_member("job_id", id)
        .with_member("decision", decision)
}
