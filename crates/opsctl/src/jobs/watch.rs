//! `opsctl jobs watch`: a line for everything that happens to a job, until it has ended.

use serde_json::Value;
use uuid::Uuid;

use super::{cell, status};
use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::follow::{What, follow};
use crate::screen::{Ink, Output, Screen, harmless};

/// Shows everything up to the job's end, and says whether it succeeded.
pub(super) async fn run(
    control_plane: &ControlPlane,
    id: Uuid,
    after: i64,
    screen: &Screen,
) -> Result<Exit, Error> {
    follow(control_plane, What::Events, id, after, |event| {
        show(event, screen);
    })
    .await?;
    let job = control_plane.get(&format!("/jobs/{id}"), &[]).await?;
    Ok(if status(&job) == "succeeded" {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

fn show(event: &Value, screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.line(&event.to_string());
    }
    let part = |name: &str| harmless(&cell(event.get(name).unwrap_or(&Value::Null)));
    let kind = part("kind");
    let kind = screen.paint(Ink::of(&kind), &format!("{kind:<18}"));
    let line = format!("{:>5}  {}  {kind} {}", part("seq"), part("at"), said(event));
    screen.line(line.trim_end());
}

/// What a person wants to know of an event beside its kind.
fn said(event: &Value) -> String {
    let data = event.get("data").unwrap_or(&Value::Null);
    let percent = data
        .get("progress")
        .and_then(Value::as_f64)
        .map(|progress| format!("{:.0} %", progress * 100.0));
    let words = ["message", "error", "reason", "run_at"]
        .into_iter()
        .filter_map(|name| data.get(name)?.as_str().map(str::to_owned));
    harmless(
        &percent
            .into_iter()
            .chain(words)
            .collect::<Vec<_>>()
            .join("  "),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_says_what_a_person_wants_to_know() {
        for (data, expected) in [
            (json!({"progress": 0.4, "message": "half"}), "40 %  half"),
            (
                json!({"error": "exit code 1\u{1b}[2J"}),
                "exit code 1\u{fffd}[2J",
            ),
            (json!({"fence": 7}), ""),
        ] {
            assert_eq!(said(&json!({ "data": data })), expected);
        }
    }
}
