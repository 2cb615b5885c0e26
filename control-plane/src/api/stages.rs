//! The stages of a job that is asked for, parsed with their gates; every wrong field is named at once.

use std::collections::BTreeSet;

use jobs::{GateTerms, Name, NewStage};
use serde_json::Value;
use service::{Fields, Parse, read};

use super::new_job::{LONGEST_TIMEOUT, name};

const MOST_STAGES: usize = 100;
/// The longest that a gate may wait by its own clock, in seconds: a year.
const LONGEST_WAIT: i32 = 31_536_000;
const MOST_APPROVALS: i32 = 20;
const MOST_KEYS: usize = 100;

struct StageRequest(NewStage);

struct GateRequest(GateTerms);

/// The stages, none where none are asked for; `None` only where a fault was noted.
pub(super) fn stages(fields: &mut Fields<'_>) -> Option<Vec<NewStage>> {
    if !fields.has("stages") {
        fields.optional("stages", |_| Ok(()));
        return Some(Vec::new());
    }
    let stages: Vec<NewStage> = fields
        .objects::<StageRequest>("stages", MOST_STAGES)?
        .into_iter()
        .map(|StageRequest(stage)| stage)
        .collect();
    let is_empty = fields.optional("stages", |stages| {
        Ok(stages.as_array().is_some_and(Vec::is_empty))
    });
    if is_empty == Some(true) {
        fields.refuse("stages", "must have at least one item");
        return None;
    }
    let names: BTreeSet<&Name> = stages.iter().map(|stage| &stage.name).collect();
    if names.len() < stages.len() {
        fields.refuse("stages", "must have names that differ");
        return None;
    }
    Some(stages)
}

impl Parse for StageRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let stage_name = fields.required("name", name);
        let job_type = fields.optional("job_type", name);
        let payload = fields.optional("payload", read::json);
        let max_attempts = fields.optional("max_attempts", read::integer_within(1, 1000));
        let timeout_seconds =
            fields.optional("timeout_seconds", read::integer_within(1, LONGEST_TIMEOUT));
        let gate = if fields.has("gate") {
            Some(fields.object::<GateRequest>("gate")?.0)
        } else {
            fields.optional("gate", |_| Ok(()));
            None
        };
        Some(Self(NewStage {
            name: stage_name?,
            job_type,
            payload,
            max_attempts,
            timeout_seconds,
            gate,
        }))
    }
}

impl Parse for GateRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let wait = || read::integer_within(0, LONGEST_WAIT);
        Some(Self(GateTerms {
            auto_approve_after_seconds: fields.optional("auto_approve_after_seconds", wait()),
            expires_after_seconds: fields.optional("expires_after_seconds", wait()),
            on_expiry: fields.optional("on_expiry", read::text_as(|text| text.parse())),
            approvals: fields.optional("approvals", read::integer_within(1, MOST_APPROVALS)),
            not_requester: fields.optional("not_requester", read::boolean),
            only_keys: fields.optional("only_keys", keys),
        }))
    }
}

fn keys(value: &Value) -> Result<Vec<String>, read::Fault> {
    let wrong = || format!("must be a list of 1 to {MOST_KEYS} ids of keys or logins");
    let items = value.as_array().ok_or_else(wrong)?;
    if !(1..=MOST_KEYS).contains(&items.len()) {
        return Err(wrong());
    }
    items
        .iter()
        .map(|item| match item.as_str() {
            Some(key) if (1..=255).contains(&key.len()) => Ok(key.to_owned()),
            Some(_) | None => Err(wrong()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::new_job::JobRequest;
    use super::super::new_job::tests::parse;
    use super::*;

    #[tokio::test]
    async fn stages_are_read_with_their_gates() {
        let body = json!({"job_type": "a", "stages": [
            {"name": "draft", "gate": {}},
            {"name": "send", "job_type": "b", "payload": [1], "max_attempts": 2, "timeout_seconds": 3, "gate": {
                "auto_approve_after_seconds": 0, "expires_after_seconds": 31_536_000, "on_expiry": "reject",
                "approvals": 2, "not_requester": true, "only_keys": ["key:1"],
            }},
            {"name": "end", "gate": null},
        ]});
        let JobRequest(job) = parse(&body).await.expect("right");
        assert_eq!(job.stages.len(), 3);
        assert_eq!(job.stages[0].gate, Some(GateTerms::default()));
        assert_eq!(
            job.stages[1].gate.as_ref().and_then(|gate| gate.approvals),
            Some(2)
        );
        assert_eq!(job.stages[2].gate, None);
    }

    #[tokio::test]
    async fn what_is_wrong_with_stages_is_named_by_its_place() {
        for (stages, fields) in [
            (json!([]), vec!["/stages"]),
            (json!({}), vec!["/stages"]),
            (json!([{"name": "a"}, {"name": "a"}]), vec!["/stages"]),
            (
                json!([{"name": "A"}, {}]),
                vec!["/stages/0/name", "/stages/1/name"],
            ),
            (
                json!([{"name": "a", "job_type": "a "}]),
                vec!["/stages/0/job_type"],
            ),
            (json!([{"name": "a", "gate": []}]), vec!["/stages/0/gate"]),
            (
                json!([{"name": "a", "gate": {"approvals": 0, "on_expiry": "x", "only_keys": [], "job_type": "b"}}]),
                vec![
                    "/stages/0/gate/on_expiry",
                    "/stages/0/gate/approvals",
                    "/stages/0/gate/only_keys",
                    "/stages/0/gate/job_type",
                ],
            ),
        ] {
            let body = json!({"job_type": "a", "stages": stages});
            assert_eq!(
                parse::<JobRequest>(&body).await.expect_err("wrong"),
                fields,
                "{body}"
            );
        }
    }
}
