//! Endpoints and deliveries for people; for scripts they are printed as the control plane gave them.

use serde_json::{Value, json};
use service::Secret;

use crate::jobs::{cell, rows};
use crate::screen::{Output, Screen, harmless};
use crate::table::table;

/// An endpoint, or another small answer: a line a field, without the fields that are empty.
pub(super) fn one(answer: &Value, screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.json(answer);
    }
    for (name, value) in answer.as_object().into_iter().flatten() {
        if !value.is_null() {
            screen.line(&format!("{name:<22} {}", harmless(&cell(value))));
        }
    }
}

/// A page of endpoints.
pub(super) fn page(page: &Value, screen: &Screen) {
    listed(
        page,
        "webhooks",
        &[
            "name",
            "enabled",
            "failing_since",
            "pending",
            "dead",
            "events",
            "disabled_reason",
        ],
        &[
            "NAME",
            "ENABLED",
            "FAILING SINCE",
            "PENDING",
            "DEAD",
            "EVENTS",
            "DISABLED BECAUSE",
        ],
        screen,
    );
}

const DELIVERY: [&str; 7] = [
    "id",
    "kind",
    "job_id",
    "state",
    "attempts",
    "due_at",
    "last_error",
];
const DELIVERY_HEADING: [&str; 7] = ["ID", "KIND", "JOB", "STATE", "ATTEMPTS", "DUE", "ERROR"];

/// A page of deliveries.
pub(super) fn deliveries(page: &Value, screen: &Screen) {
    listed(page, "deliveries", &DELIVERY, &DELIVERY_HEADING, screen);
}

/// A delivery with what is sent and its attempts.
pub(super) fn delivery(delivery: &Value, screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.json(delivery);
    }
    let one = json!({ "deliveries": [delivery] });
    table(
        screen,
        &DELIVERY_HEADING,
        &rows(&one, "deliveries", &DELIVERY),
    );
    screen.line("");
    table(
        screen,
        &["ATTEMPT", "AT", "SENDER", "STATUS", "MS", "ERROR"],
        &rows(
            delivery,
            "log",
            &["attempt", "at", "sender", "status", "duration_ms", "error"],
        ),
    );
    screen.line("");
    screen.line(&harmless(delivery["body"].as_str().unwrap_or_default()));
}

/// A secret that was asked for: on standard output, and nowhere else.
pub(super) fn secret(name: &str, secret: &Secret, screen: &Screen) {
    match screen.output() {
        Output::Json => screen.json(&json!({ name: secret.expose() })),
        Output::Text => screen.line(secret.expose()),
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
