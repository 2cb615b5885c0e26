//! Schedules, instants and ledgers for people; for scripts they are printed as the control plane gave them.

use serde_json::Value;

use crate::jobs::{cell, rows};
use crate::screen::{Output, Screen, harmless};
use crate::table::table;

/// What a person looks for first; the other fields follow by name.
const FIRST: [&str; 9] = [
    "name",
    "enabled",
    "cron",
    "timezone",
    "job_type",
    "next_fire_at",
    "fault",
    "catch_up",
    "overlap",
];

/// One schedule: a line a field, without the fields that are empty.
pub(super) fn one(schedule: &Value, screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.json(schedule);
    }
    let first = FIRST
        .into_iter()
        .filter_map(|name| Some((name, schedule.get(name)?)));
    let all = schedule
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value))
        .filter(|(name, _)| !FIRST.contains(name));
    for (name, value) in first.chain(all) {
        let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
        if !empty {
            screen.line(&format!("{name:<18} {}", harmless(&cell(value))));
        }
    }
}

/// A page of schedules.
pub(super) fn page(page: &Value, screen: &Screen) {
    listed(
        page,
        "schedules",
        &[
            "name",
            "enabled",
            "cron",
            "timezone",
            "job_type",
            "next_fire_at",
            "fault",
        ],
        &["NAME", "ENABLED", "CRON", "ZONE", "TYPE", "NEXT", "FAULT"],
        screen,
    );
}

/// A page of a ledger.
pub(super) fn fires(page: &Value, screen: &Screen) {
    listed(
        page,
        "fires",
        &[
            "instant", "outcome", "instants", "job_id", "actor", "reason",
        ],
        &["INSTANT", "OUTCOME", "INSTANTS", "JOB", "ACTOR", "REASON"],
        screen,
    );
}

/// The next instants of a pattern.
pub(super) fn instants(answer: &Value, screen: &Screen) {
    if screen.output() == Output::Text {
        for name in ["cron", "timezone", "description"] {
            screen.line(&format!("{name:<18} {}", harmless(&cell(&answer[name]))));
        }
    }
    listed(
        answer,
        "instants",
        &["instant", "local"],
        &["INSTANT", "LOCAL"],
        screen,
    );
}

/// A job that was fired by hand.
pub(super) fn fired(answer: &Value, screen: &Screen) {
    match screen.output() {
        Output::Json => screen.json(answer),
        Output::Text => screen.line(&format!(
            "{:<18} {}",
            "job_id",
            harmless(&cell(&answer["job_id"]))
        )),
    }
}

fn listed(answer: &Value, list: &str, members: &[&str], heading: &[&str], screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.json(answer);
    }
    table(screen, heading, &rows(answer, list, members));
    if let Some(cursor) = answer.get("next_cursor").and_then(Value::as_str) {
        screen.say(&format!("more: --cursor {}", harmless(cursor)));
    }
}
