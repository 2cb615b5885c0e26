//! Gates: read, decided once, and settled by time. The database moves the job with the decision, in one transaction.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::persist::Again;
use super::row::parsed;
use crate::error::StoreError;
use crate::gate::{Decision, Gate, Verdict};

/// A decision as it is asked for.
#[derive(Clone, Debug)]
pub struct DecisionRequest<'a> {
    /// The job.
    pub job_id: Uuid,
    /// The gate.
    pub name: &'a str,
    /// What is decided.
    pub decision: Decision,
    /// By whom.
    pub actor: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
    /// Only if the gate is at this revision.
    pub revision: Option<i32>,
    /// Only if it shows the document of this hash.
    pub document_hash: Option<&'a str>,
    /// The patch, and what it made of the document or the payload of that revision.
    pub patch: Option<(&'a Value, &'a Value)>,
}

struct GateRow {
    job_id: Uuid,
    stage_no: i32,
    name: String,
    revision: i32,
    state: String,
    document: Value,
    document_hash: String,
    payload: Value,
    approvals_needed: i32,
    approved_by: Vec<String>,
    not_requester: bool,
    only_keys: Option<Vec<String>>,
    opened_at: OffsetDateTime,
    auto_approve_at: Option<OffsetDateTime>,
    expires_at: Option<OffsetDateTime>,
    on_expiry: String,
    decided_by: Option<String>,
    decided_at: Option<OffsetDateTime>,
    automatic: bool,
    reason: Option<String>,
    patch: Option<Value>,
    patched: Option<Value>,
}

impl TryFrom<GateRow> for Gate {
    type Error = StoreError;

    fn try_from(row: GateRow) -> Result<Self, StoreError> {
        Ok(Self {
            state: parsed(&row.state, "gate", row.job_id)?,
            on_expiry: parsed(&row.on_expiry, "gate", row.job_id)?,
            job_id: row.job_id,
            stage_no: row.stage_no,
            name: row.name,
            revision: row.revision,
            document: row.document,
            document_hash: row.document_hash,
            payload: row.payload,
            approvals_needed: row.approvals_needed,
            approved_by: row.approved_by,
            not_requester: row.not_requester,
            only_keys: row.only_keys,
            opened_at: row.opened_at,
            auto_approve_at: row.auto_approve_at,
            expires_at: row.expires_at,
            decided_by: row.decided_by,
            decided_at: row.decided_at,
            automatic: row.automatic,
            reason: row.reason,
            patch: row.patch,
            patched: row.patched,
        })
    }
}

impl Store {
    /// The gates that a job has reached, in order, every revision of each.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn gates(&self, job_id: Uuid) -> Result<Vec<Gate>, StoreError> {
        self.persist(Again::Always, || self.gates_once(Some(job_id), false, 1000))
            .await
    }

    /// The newest revision of a gate, or `None` where the job has not reached one of this name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn gate(&self, job_id: Uuid, name: &str) -> Result<Option<Gate>, StoreError> {
        let gates = self.gates(job_id).await?;
        Ok(gates.into_iter().rfind(|gate| gate.name == name))
    }

    /// The gates that wait for a person, those that have waited longest first, at most `limit`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn open_gates(&self, limit: i64) -> Result<Vec<Gate>, StoreError> {
        self.persist(Again::Always, || self.gates_once(None, true, limit))
            .await
    }

    async fn gates_once(
        &self,
        job_id: Option<Uuid>,
        only_open: bool,
        limit: i64,
    ) -> Result<Vec<Gate>, StoreError> {
        let rows = sqlx::query_as!(
            GateRow,
            r#"
            select
              g.job_id, g.stage_no, g.name, g.revision, g.state, g.document, g.document_hash,
              coalesce(s.payload, j.payload) as "payload!", g.approvals_needed,
              array(
                select a.actor from ops_gate_approvals a
                where a.job_id = g.job_id and a.stage_no = g.stage_no and a.revision = g.revision
                order by a.at
              ) as "approved_by!",
              g.not_requester, g.only_keys, g.opened_at, g.auto_approve_at, g.expires_at, g.on_expiry, g.decided_by,
              g.decided_at, g.automatic, g.reason, g.patch, g.patched
            from ops_gates g
            join ops_jobs j on j.id = g.job_id
            join ops_job_stages s on s.job_id = g.job_id and s.stage_no = g.stage_no
            where ($1::uuid is null or g.job_id = $1)
              and (not $2::boolean or g.state = 'open')
            order by case when $2 then g.opened_at end, g.job_id, g.stage_no, g.revision
            limit $3
            "#,
            job_id,
            only_open,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Gate::try_from).collect()
    }

    /// Decides a gate, if it is open and as the decision expects it; the job moves in the same transaction.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the patched document cannot be stored; [`StoreError::Unavailable`] when nothing is
    /// known of the decision: the gate tells whether it stands.
    pub async fn decide(&self, request: &DecisionRequest<'_>) -> Result<Verdict, StoreError> {
        self.persist(Again::Undone, || self.decide_once(request))
            .await
    }

    async fn decide_once(&self, request: &DecisionRequest<'_>) -> Result<Verdict, StoreError> {
        let word = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_decide(
              $2, $3, $4, reason => $5, revision => $6, document_hash => $7, patch => $8, patched => $9
            ) as "verdict!"
            from acting
            where actor is not null
            "#,
            request.actor,
            request.job_id,
            request.name,
            request.decision.as_str(),
            request.reason,
            request.revision,
            request.document_hash,
            request.patch.map(|(patch, _)| patch),
            request.patch.map(|(_, patched)| patched),
        )
        .fetch_one(&self.pool)
        .await?;
        parsed(&word, "gate", request.job_id)
    }

    /// Decides the gates whose time has come; gives how many.
    ///
    /// # Errors
    /// When the database does not answer; the rest is left to the next sweep.
    pub async fn settle_gates(&self, actor: &str) -> Result<u64, StoreError> {
        let mut settled = 0;
        loop {
            let page = self
                .persist(Again::Always, || self.settle_page(actor))
                .await?;
            settled += page;
            if page == 0 {
                return Ok(settled);
            }
        }
    }

    async fn settle_page(&self, actor: &str) -> Result<u64, StoreError> {
        let settled = sqlx::query_scalar!(r#"select ops_sweep_gates($1) as "settled!""#, actor)
            .fetch_one(&self.pool)
            .await?;
        Ok(settled.unsigned_abs().into())
    }
}
