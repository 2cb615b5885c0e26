//! Stages: what a job asks for, what became of each, and which part of a job a claim is. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::gate::OnExpiry;
use crate::name::Name;

/// A stage that is asked for, already parsed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NewStage {
    /// Once within the job.
    pub name: Name,
    /// `None`: the job's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_type: Option<Name>,
    /// `None`: the job's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
    /// `None`: the job's, else the type's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i32>,
    /// In seconds; `None`: the job's, else the type's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
    /// What a person must decide after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateTerms>,
}

/// What a gate is asked to be; the rules of the job type may make it stricter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateTerms {
    /// Approved by itself after so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_approve_after_seconds: Option<i32>,
    /// Not waited for longer than so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_after_seconds: Option<i32>,
    /// What then becomes of it; `None`: the job is aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_expiry: Option<OnExpiry>,
    /// So many different keys or people must approve; `None`: one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<i32>,
    /// Whether whoever recorded the job may not decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_requester: Option<bool>,
    /// Only these may decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_keys: Option<Vec<String>>,
}

/// A stage as it stands in `ops_job_stages`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// Its place: 1, 2, 3 …
    pub no: i32,
    /// Once within the job.
    pub name: String,
    /// What is done in it.
    pub job_type: String,
    /// What its handler is given.
    pub payload: Value,
    /// The gate after it, as it was asked for.
    pub gate: Option<Value>,
    /// `pending`, or the word of a status.
    pub status: String,
    /// What its handler answered, as an approval patched it.
    pub result: Option<Value>,
    /// Why its last attempt failed.
    pub error: Option<String>,
    /// Claims counted so far.
    pub attempts: i32,
    /// Its log is what was printed under the fences from this one …
    pub first_fence: Option<i64>,
    /// … to this one.
    pub last_fence: Option<i64>,
    /// When its newest attempt began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

/// Which part of a job a claim is.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// All of it: it has no stages.
    Whole,
    /// One of its stages.
    Stage(StageAtWork),
    /// Every stage is done, the last one's gate is passed: nothing is left to run, only the end to record.
    End,
}

impl Part {
    /// Which attempt of the stage this is, where there is one.
    pub fn attempt(&self) -> Option<i32> {
        match self {
            Self::Stage(stage) => Some(stage.attempt),
            Self::Whole | Self::End => None,
        }
    }
}

/// The stage that a claim begins, and what came before it.
#[derive(Clone, Debug, PartialEq)]
pub struct StageAtWork {
    /// Its place.
    pub no: i32,
    /// Its name.
    pub name: Name,
    /// Which attempt of this stage it is.
    pub attempt: i32,
    /// The stages before it, in order: `[{"name": …, "result": …}]`.
    pub earlier: Value,
}
