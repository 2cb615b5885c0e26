//! Errors as `application/problem+json` (RFC 9457). Knows statuses; knows no service's errors.
//!
//! A handler need not know the request id: the edge puts it in on the way out.

mod statuses;

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// A JSON pointer into the body, or the name of a query parameter.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

impl FieldError {
    /// Says what is wrong with a field.
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            detail: detail.into(),
        }
    }
}

/// The body of an error response, as RFC 9457 has it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProblemDocument {
    /// A stable name of the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time and what to do.
    pub detail: String,
    /// The id that the server's log has for this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Every wrong field at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Further members of this kind of problem, for example `job_id`.
    #[serde(flatten)]
    pub members: Map<String, Value>,
}

/// An error response in the making.
#[derive(Debug, Clone)]
pub struct Problem(Box<Content>);

/// Boxed, so that results that may be problems stay small.
#[derive(Debug, Clone)]
struct Content {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: Cow<'static, str>,
    request_id: Option<String>,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

type Detail = Cow<'static, str>;

impl Problem {
    fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<Detail>,
    ) -> Self {
        Self(Box::new(Content {
            status,
            code,
            title,
            detail: detail.into(),
            request_id: None,
            errors: Vec::new(),
            members: Map::new(),
            headers: Vec::new(),
        }))
    }

    /// Names the kind of problem more closely than its status does.
    #[must_use]
    pub fn with_code(mut self, code: &'static str, title: &'static str) -> Self {
        self.0.code = code;
        self.0.title = title;
        self
    }

    /// Adds a member to the document, for example `job_id`.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn with_header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Says after how many whole seconds to try again, at least one.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs().max(1);
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Names the request, which the edge does for every problem.
    #[must_use]
    pub fn with_request_id(mut self, request_id: &str) -> Self {
        self.0.request_id = Some(request_id.to_owned());
        self
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The document that the response bears.
    pub fn document(&self) -> ProblemDocument {
        ProblemDocument {
            kind: format!("urn:ops-jobs:problem:{}", self.0.code),
            title: self.0.title,
            status: self.0.status.as_u16(),
            detail: self.0.detail.clone().into_owned(),
            request_id: self.0.request_id.clone(),
            errors: self.0.errors.clone(),
            members: self.0.members.clone(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Text, numbers and a JSON map always serialise.
        let body = serde_json::to_vec(&self.document()).unwrap_or_default();
        let mut response = (self.0.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.extend(self.0.headers.iter().cloned());
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_names_what_is_known_and_nothing_else() {
        let problem = Problem::conflict("The job is running.").with_member("job_id", "j1");
        assert_eq!(
            serde_json::to_value(problem.document()).expect("JSON"),
            serde_json::json!({
                "type": "urn:ops-jobs:problem:conflict",
                "title": "Conflict",
                "status": 409,
                "detail": "The job is running.",
                "job_id": "j1",
            })
        );
    }

    #[test]
    fn wrong_fields_stand_under_errors() {
        let errors = vec![FieldError::new("/priority", "must be a whole number")];
        let document =
            serde_json::to_value(Problem::invalid_fields(errors).document()).expect("JSON");
        assert_eq!(document["errors"][0]["field"], "/priority");
        assert_eq!(document["status"], 422);
    }

    #[test]
    fn retry_after_is_at_least_a_second() {
        let response = Problem::unavailable("Later.", Duration::ZERO).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
    }

    #[test]
    fn a_401_bears_its_challenge() {
        let response = Problem::unauthorized("Invalid or missing X-Ops-Key").into_response();
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
    }
}
