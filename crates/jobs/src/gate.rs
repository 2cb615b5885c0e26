//! Gates: what is shown, what may be decided, and what a patch makes of a document. Pure; the database decides.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

/// What a person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The job goes on; a patch is to the stage's result.
    Approve,
    /// The stage is run again once somebody resumes the job; a patch is to the stage's payload.
    Reject,
}

impl Decision {
    /// Its word, in SQL, JSON and logs alike.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
        }
    }
}

impl FromStr for Decision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "approve" => Ok(Self::Approve),
            "reject" => Ok(Self::Reject),
            _ => Err("must be approve or reject".to_owned()),
        }
    }
}

/// What becomes of a gate that is waited for no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// The job is aborted.
    Abort,
    /// The gate is approved.
    Approve,
    /// The gate is rejected; the job waits for a person to resume it.
    Reject,
}

impl FromStr for OnExpiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "abort" => Ok(Self::Abort),
            "approve" => Ok(Self::Approve),
            "reject" => Ok(Self::Reject),
            _ => Err("must be abort, approve or reject".to_owned()),
        }
    }
}

/// Where a gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateState {
    /// It waits.
    Open,
    /// The job went on.
    Approved,
    /// The stage is to be run again.
    Rejected,
    /// Nobody decided, and the job was aborted.
    Expired,
    /// The job ended before a decision.
    Closed,
}

impl FromStr for GateState {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "open" => Self::Open,
            "approved" => Self::Approved,
            "rejected" => Self::Rejected,
            "expired" => Self::Expired,
            "closed" => Self::Closed,
            _ => return Err("names no state of a gate"),
        })
    }
}

/// A gate as it stands in `ops_gates`, with the approvals that it has so far.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gate {
    /// The job.
    pub job_id: Uuid,
    /// The stage that it comes after.
    pub stage_no: i32,
    /// The stage's name.
    pub name: String,
    /// 1, and one more each time that it opened anew.
    pub revision: i32,
    /// Where it is.
    pub state: GateState,
    /// What is decided about.
    pub document: Value,
    /// SHA-256 of it, in hex; a decision may name it.
    pub document_hash: String,
    /// The payload that the stage would be run again with.
    pub payload: Value,
    /// So many must approve.
    pub approvals_needed: i32,
    /// Who has approved so far, where several must.
    pub approved_by: Vec<String>,
    /// Whether whoever recorded the job may not decide.
    pub not_requester: bool,
    /// Only these may decide.
    pub only_keys: Option<Vec<String>>,
    /// Since when it waits, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub opened_at: OffsetDateTime,
    /// When it is approved by itself.
    #[serde(with = "time::serde::rfc3339::option")]
    pub auto_approve_at: Option<OffsetDateTime>,
    /// When it is waited for no longer.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// What then becomes of it.
    pub on_expiry: OnExpiry,
    /// Who decided.
    pub decided_by: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339::option")]
    pub decided_at: Option<OffsetDateTime>,
    /// Whether time decided and not a person.
    pub automatic: bool,
    /// Why.
    pub reason: Option<String>,
    /// The JSON Patch that came with the decision.
    pub patch: Option<Value>,
    /// What the patch made.
    pub patched: Option<Value>,
}

/// What the database made of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stands, and the job has moved.
    Decided,
    /// It is one of several approvals, and others are missing.
    Counted,
    /// There is no such job.
    NoJob,
    /// The job has no such gate, or has not reached it.
    NoGate,
    /// Another decision stands.
    DecidedBefore,
    /// What is shown is not what the decision was made about.
    Changed,
    /// Only others may decide.
    NotNamed,
    /// Whoever asked for the job may not decide.
    Requester,
    /// A gate that needs several approvals takes no patch with one of them.
    PatchOfSeveral,
    /// This approver has approved already.
    ApprovedBefore,
}

impl FromStr for Verdict {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "decided" => Self::Decided,
            "counted" => Self::Counted,
            "no_job" => Self::NoJob,
            "no_gate" => Self::NoGate,
            "decided_before" => Self::DecidedBefore,
            "changed" => Self::Changed,
            "not_named" => Self::NotNamed,
            "requester" => Self::Requester,
            "patch_of_several" => Self::PatchOfSeveral,
            "approved_before" => Self::ApprovedBefore,
            _ => return Err("is no verdict"),
        })
    }
}

/// Why a patch was not applied; nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchRefused(String);

impl fmt::Display for PatchRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatchRefused {}

/// The most operations that a patch may have.
const MOST_OPERATIONS: usize = 1000;
/// The largest document that a patch may make, as text.
const LARGEST: usize = 1024 * 1024;
/// The deepest, in levels, as for payloads.
const DEEPEST: usize = 64;

/// Applies a JSON Patch (RFC 6902): all of it or nothing. What it makes is a document that the store takes.
///
/// # Errors
/// What is wrong with the patch, or with what it makes.
pub fn apply_patch(document: &Value, patch: &Value) -> Result<Value, PatchRefused> {
    let refused = |why: String| PatchRefused(why);
    let operations = patch
        .as_array()
        .ok_or_else(|| refused("must be an array of operations (RFC 6902)".to_owned()))?;
    if operations.len() > MOST_OPERATIONS {
        return Err(refused(format!(
            "must have at most {MOST_OPERATIONS} operations"
        )));
    }
    let parsed: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| refused(format!("is no JSON Patch (RFC 6902): {error}")))?;
    let mut patched = document.clone();
    // Copies may double a document with each operation: it is measured after each, and never grows beyond the limit twice.
    for (index, operation) in parsed.0.iter().enumerate() {
        json_patch::patch(&mut patched, std::slice::from_ref(operation))
            .map_err(|error| refused(format!("operation {index} cannot be applied: {error}")))?;
        if patched.to_string().len() > LARGEST {
            return Err(refused(format!(
                "operation {index} makes a document of more than {LARGEST} bytes"
            )));
        }
    }
    if depth(&patched) > DEEPEST {
        return Err(refused(format!(
            "makes a document deeper than {DEEPEST} levels"
        )));
    }
    Ok(patched)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_is_applied_whole() {
        let document = json!({"title": "a", "items": [1, 2]});
        let patch = json!([
            {"op": "test", "path": "/title", "value": "a"},
            {"op": "replace", "path": "/title", "value": "b"},
            {"op": "add", "path": "/items/-", "value": 3},
            {"op": "move", "from": "/items", "path": "/list"},
        ]);
        assert_eq!(
            apply_patch(&document, &patch),
            Ok(json!({"title": "b", "list": [1, 2, 3]}))
        );
        assert_eq!(apply_patch(&document, &json!([])), Ok(document));
    }

    #[test]
    fn of_a_patch_that_fails_anywhere_nothing_is_applied() {
        let document = json!({"title": "a"});
        for patch in [
            json!({"op": "replace"}),
            json!("x"),
            json!([{"op": "replace", "path": "/title", "value": "b"}, {"op": "remove", "path": "/none"}]),
            json!([{"op": "test", "path": "/title", "value": "b"}]),
            json!([{"op": "add", "path": "title", "value": 1}]),
            json!([{"op": "steal", "path": "/title"}]),
            json!([{"op": "add", "path": "/a/b/c", "value": 1}]),
            json!([{"op": "replace", "path": "/title"}]),
        ] {
            assert!(apply_patch(&document, &patch).is_err(), "{patch}");
        }
    }

    #[test]
    fn a_patch_that_doubles_and_doubles_is_stopped() {
        let document = json!({"a": "x".repeat(1000)});
        let copies: Vec<Value> = (0..100)
            .map(|index| json!({"op": "copy", "from": "", "path": format!("/c{index}")}))
            .collect();
        let refused = apply_patch(&document, &json!(copies)).expect_err("too large");
        assert!(refused.to_string().contains("bytes"), "{refused}");
        let mut deep = json!(1);
        for _ in 0..70 {
            deep = json!([deep]);
        }
        let patch = json!([{"op": "add", "path": "/deep", "value": deep}]);
        let refused = apply_patch(&document, &patch).expect_err("too deep");
        assert!(refused.to_string().contains("levels"), "{refused}");
    }
}
