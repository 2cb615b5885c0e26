//! Jobs, pages and events for people; for scripts they are printed as the control plane gave them.

use serde_json::Value;

use crate::screen::{Ink, Output, Screen, harmless};
use crate::table::table;

/// What a person looks for first; the other fields follow by name.
const FIRST: [&str; 10] = [
    "id",
    "job_type",
    "status",
    "error",
    "result",
    "progress",
    "attempt",
    "max_attempts",
    "queue",
    "payload",
];

/// One job: a line a field, without the fields that are empty.
pub(crate) fn job(job: &Value, screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.json(job);
    }
    let first = FIRST
        .into_iter()
        .filter_map(|name| Some((name, job.get(name)?)));
    let all = job
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value));
    for (name, value) in first.chain(all.filter(|(name, _)| !FIRST.contains(name))) {
        let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
        if empty || *value == Value::Bool(false) {
            continue;
        }
        let text = harmless(&cell(value));
        let text = if name == "status" {
            screen.paint(Ink::of(&text), &text)
        } else {
            text
        };
        screen.line(&format!("{name:<18} {text}"));
    }
}

/// Why a job is where it is: a sentence a reason, and below it what would change it.
pub(super) fn reasons(answer: &Value, screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.json(answer);
    }
    for reason in answer["reasons"].as_array().into_iter().flatten() {
        let said = |name: &str| harmless(&cell(&reason[name]));
        screen.line(&format!("{}: {}", said("code"), said("message")));
        screen.line(&format!("  -> {}", said("remedy")));
    }
}

/// A page of jobs.
pub(super) fn page(page: &Value, screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.json(page);
    }
    let rows = rows(
        page,
        "jobs",
        &[
            "id",
            "status",
            "job_type",
            "queue",
            "attempt",
            "created_at",
            "error",
        ],
    );
    table(
        screen,
        &[
            "ID", "STATUS", "TYPE", "QUEUE", "ATTEMPT", "CREATED", "ERROR",
        ],
        &rows,
    );
    if let Some(cursor) = page.get("next_cursor").and_then(Value::as_str) {
        screen.say(&format!("more: --cursor {}", harmless(cursor)));
    }
}

/// A job's events.
pub(super) fn events(events: &Value, screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.json(events);
    }
    let rows = rows(
        events,
        "events",
        &["seq", "at", "kind", "attempt", "actor", "data"],
    );
    table(
        screen,
        &["SEQ", "AT", "KIND", "ATTEMPT", "ACTOR", "DATA"],
        &rows,
    );
}

/// The members of each object in a list, as cells.
pub(crate) fn rows(answer: &Value, list: &str, members: &[&str]) -> Vec<Vec<String>> {
    let objects = answer
        .get(list)
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    objects
        .map(|object| {
            members
                .iter()
                .map(|member| cell(object.get(member).unwrap_or(&Value::Null)))
                .collect()
        })
        .collect()
}

/// A value in one line.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
