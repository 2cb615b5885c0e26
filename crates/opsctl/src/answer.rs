//! What the control plane answers: its JSON, or its refusal as a problem document. Sends nothing.

use std::fmt;

use serde_json::Value;

use crate::exit::Exit;

/// A refusal of the control plane, as RFC 9457 has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The whole problem document, for `--output json`.
    pub document: Value,
}

impl Refusal {
    /// Reads a refusal; a body that is no problem document gives one that names the status only.
    pub(crate) fn read(status: u16, body: &[u8]) -> Self {
        let document = serde_json::from_slice(body)
            .ok()
            .filter(|document: &Value| document.get("title").is_some())
            .unwrap_or_else(
                || serde_json::json!({"title": "refused without saying why", "status": status}),
            );
        Self { status, document }
    }

    fn word(&self, name: &str) -> Option<&str> {
        self.document.get(name).and_then(Value::as_str)
    }
}

impl Refusal {
    /// Every wrong field, and the ids under which others know of it, a line each.
    pub(crate) fn details(&self) -> Vec<String> {
        let errors = self
            .document
            .get("errors")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let part = |error: &Value, name: &str| {
            error
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let fields =
            errors.map(|error| format!("{}: {}", part(error, "field"), part(error, "detail")));
        let ids = [("job_id", "job"), ("request_id", "request")];
        fields
            .chain(
                ids.into_iter()
                    .filter_map(|(member, label)| Some(format!("{label}: {}", self.word(member)?))),
            )
            .collect()
    }

    /// What it means for a script.
    pub(crate) fn exit(&self) -> Exit {
        // A runner that refuses a job for good does so with a status that else passes by itself.
        let is_final = self
            .word("type")
            .is_some_and(|kind| kind.ends_with(":runner-refused"));
        if is_final {
            Exit::Failed
        } else {
            Exit::of_status(self.status)
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self
            .word("detail")
            .or_else(|| self.word("title"))
            .unwrap_or("refused");
        write!(f, "{} ({})", said.trim_end_matches('.'), self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_shows_every_wrong_field() {
        let body = br#"{"title":"Unprocessable content","status":422,"detail":"The request is wrong.",
            "errors":[{"field":"/queue","detail":"bad"},{"field":"/priority","detail":"worse"}],"request_id":"r1"}"#;
        let refusal = Refusal::read(422, body);
        assert_eq!(refusal.to_string(), "The request is wrong (422)");
        assert_eq!(
            refusal.details(),
            ["/queue: bad", "/priority: worse", "request: r1"]
        );
    }

    #[test]
    fn a_runner_that_refuses_for_good_is_not_worth_another_try() {
        let refused = br#"{"type":"urn:ops-jobs:problem:runner-refused","title":"t","status":502}"#;
        assert_eq!(Refusal::read(502, refused).exit(), Exit::Failed);
        assert_eq!(Refusal::read(502, b"").exit(), Exit::Unavailable);
    }

    #[test]
    fn an_answer_that_is_no_problem_document_is_told_by_its_status() {
        assert_eq!(
            Refusal::read(502, b"<html>").to_string(),
            "refused without saying why (502)"
        );
    }
}
