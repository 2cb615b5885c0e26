//! What Notion refuses, and in which words: headers, bodies, and properties against the schema of the database. Pure.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// No longer text is taken, counted in UTF-16.
const LONGEST_TEXT: usize = 2000;

type Schema = BTreeMap<String, String>;

/// An error as Notion answers it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    code: &'static str,
    message: String,
    pub(super) retry_after: Option<u32>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: &str) -> Self {
        Self {
            status,
            code,
            message: message.to_owned(),
            retry_after: None,
        }
    }

    pub(super) fn invalid(message: &str) -> Self {
        Self::new(400, "validation_error", message)
    }

    pub(super) fn not_found(what: &str, id: &str) -> Self {
        let message = format!(
            "Could not find {what} with ID: {id}. Make sure the relevant pages and databases are shared with your integration."
        );
        Self::new(404, "object_not_found", &message)
    }

    pub(super) fn rate_limited(seconds: u32) -> Self {
        Self {
            retry_after: Some(seconds),
            ..Self::planned(429)
        }
    }

    /// The error that goes with a status.
    pub(super) fn planned(status: u16) -> Self {
        let (code, message) = match status {
            401 => ("unauthorized", "API token is invalid."),
            403 => (
                "restricted_resource",
                "Insufficient permissions for this endpoint.",
            ),
            404 => ("object_not_found", "Could not find object."),
            409 => (
                "conflict_error",
                "Conflict occurred while saving. Please try again.",
            ),
            429 => (
                "rate_limited",
                "You have been rate limited. Please try again in a few minutes.",
            ),
            503 => (
                "service_unavailable",
                "Notion is unavailable. Please try again later.",
            ),
            529 => ("service_overload", "Notion is temporarily overloaded."),
            _ => ("internal_server_error", "Unexpected error occurred."),
        };
        Self::new(status, code, message)
    }

    pub(super) fn json(&self) -> Value {
        json!({"object": "error", "status": self.status, "code": self.code, "message": self.message})
    }
}

pub(super) fn headers(headers: &HeaderMap, token: &str, version: &str) -> Result<(), Refusal> {
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if said("authorization") != Some(&format!("Bearer {token}")) {
        return Err(Refusal::planned(401));
    }
    match said("notion-version") {
        Some(said) if said == version => Ok(()),
        Some(_) | None => Err(Refusal::new(
            400,
            "missing_version",
            "Notion-Version header should be a known version.",
        )),
    }
}

pub(super) fn json(headers: &HeaderMap, body: &[u8]) -> Result<Value, Refusal> {
    let kind = headers.get("content-type").map(|kind| kind.as_bytes());
    let is_json = kind.is_some_and(|kind| kind.starts_with(b"application/json"));
    let body = serde_json::from_slice::<Value>(body).ok();
    body.filter(|body| is_json && body.is_object())
        .ok_or_else(|| {
            Refusal::new(
                400,
                "invalid_json",
                "The request body could not be decoded as JSON.",
            )
        })
}

/// Whether an object has no other members.
pub(super) fn only(object: &Value, known: &[&str]) -> Result<(), Refusal> {
    let members = object.as_object().into_iter().flatten();
    for (name, _) in members {
        if !known.contains(&name.as_str()) {
            return Err(Refusal::invalid(&format!(
                "body failed validation: body.{name} should be not present."
            )));
        }
    }
    Ok(())
}

/// A search for pages of which a text is this.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) property: String,
    pub(super) equals: String,
    pub(super) page_size: usize,
    pub(super) start_cursor: Option<String>,
}

pub(super) fn query(body: &Value, schema: &Schema) -> Result<Query, Refusal> {
    only(body, &["filter", "sorts", "page_size", "start_cursor"])?;
    let filter = &body["filter"];
    let (Some(property), Some(equals)) = (
        filter["property"].as_str(),
        filter["rich_text"]["equals"].as_str(),
    ) else {
        return Err(Refusal::invalid(
            "body failed validation: body.filter should be a filter of a property.",
        ));
    };
    match schema.get(property).map(String::as_str) {
        Some("rich_text") => {}
        Some(kind) => {
            return Err(Refusal::invalid(&format!(
                "database property {kind} does not match filter rich_text"
            )));
        }
        None => {
            return Err(Refusal::invalid(&format!(
                "Could not find property with name or id: {property}"
            )));
        }
    }
    for sort in body["sorts"].as_array().into_iter().flatten() {
        let by = sort["timestamp"].as_str();
        let right = matches!(by, Some("created_time" | "last_edited_time"))
            && matches!(sort["direction"].as_str(), Some("ascending" | "descending"));
        if !right {
            return Err(Refusal::invalid(
                "body failed validation: body.sorts[0] is no sort.",
            ));
        }
    }
    let page_size = body.get("page_size").map_or(Some(100), Value::as_u64);
    let page_size = page_size.filter(|size| (1..=100).contains(size));
    let Some(page_size) = page_size else {
        return Err(Refusal::invalid(
            "body failed validation: body.page_size should be ≤ `100`.",
        ));
    };
    let start_cursor = body.get("start_cursor").map(|cursor| {
        let cursor = cursor.as_str().filter(|id| Uuid::try_parse(id).is_ok());
        cursor.map(str::to_owned).ok_or_else(|| {
            Refusal::invalid("body failed validation: body.start_cursor should be a valid uuid.")
        })
    });
    Ok(Query {
        property: property.to_owned(),
        equals: equals.to_owned(),
        page_size: usize::try_from(page_size).expect("a small number"),
        start_cursor: start_cursor.transpose()?,
    })
}

/// Whether what a page is to say fits the database.
pub(super) fn properties(said: &Value, schema: &Schema) -> Result<(), Refusal> {
    let Some(said) = said.as_object() else {
        return Err(Refusal::invalid(
            "body failed validation: body.properties should be defined, instead was `undefined`.",
        ));
    };
    for (name, value) in said {
        let Some(kind) = schema.get(name) else {
            return Err(Refusal::invalid(&format!(
                "{name} is not a property that exists."
            )));
        };
        let Some(value) = value.get(kind) else {
            return Err(Refusal::invalid(&format!(
                "{name} is expected to be {kind}."
            )));
        };
        property(name, kind, value)?;
    }
    Ok(())
}

fn property(name: &str, kind: &str, value: &Value) -> Result<(), Refusal> {
    let wrong = |part: &str| {
        Refusal::invalid(&format!(
            "body failed validation: body.properties.{name}.{kind}{part}"
        ))
    };
    match kind {
        "title" | "rich_text" => {
            let parts = value.as_array().filter(|parts| parts.len() <= 100);
            let parts = parts.ok_or_else(|| wrong(" should be an array."))?;
            for (index, part) in parts.iter().enumerate() {
                let content = part["text"]["content"].as_str();
                let content = content.filter(|_| part["type"] == "text" || part["type"].is_null());
                let content =
                    content.ok_or_else(|| wrong(&format!("[{index}].text should be defined.")))?;
                let length = content.encode_utf16().count();
                if length > LONGEST_TEXT {
                    return Err(wrong(&format!(
                        "[{index}].text.content.length should be ≤ `2000`, instead was `{length}`."
                    )));
                }
            }
            Ok(())
        }
        "select" => {
            let name = value["name"].as_str();
            let right = name
                .is_some_and(|name| !name.is_empty() && name.len() <= 100 && !name.contains(','));
            let right = right || value.is_null();
            right
                .then_some(())
                .ok_or_else(|| wrong(".name is invalid."))
        }
        "number" => (value.is_number() || value.is_null())
            .then_some(())
            .ok_or_else(|| wrong(" should be a number.")),
        "date" => {
            let start = value["start"].as_str();
            let right = start.is_some_and(|start| OffsetDateTime::parse(start, &Rfc3339).is_ok());
            (right || value.is_null())
                .then_some(())
                .ok_or_else(|| wrong(".start should be a valid ISO 8601 date string."))
        }
        "checkbox" => value
            .is_boolean()
            .then_some(())
            .ok_or_else(|| wrong(" should be a boolean.")),
        _ => Err(wrong(" is of a type that this Notion does not know.")),
    }
}
