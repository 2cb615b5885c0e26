//! The first job: sent over HTTP like any other, and followed to its end before the eyes of whoever started it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::ControlPlane;
use crate::error::Error;
use crate::jobs::{cell, has_ended, status};
use crate::screen::{Ink, Screen, harmless};
use crate::settings::Access;

const PAUSE: Duration = Duration::from_millis(40);

/// A job that takes longer is left to itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// More of an event's details would not fit into a line.
const LONGEST_DATA: usize = 110;

/// Sends the job, shows what happens to it, and gives it back as it was in the end.
pub(super) async fn run(access: Access, screen: &Screen) -> Result<Value, Error> {
    let control_plane = ControlPlane::new(access)?;
    let id = send(&control_plane, screen).await?;
    let mut story = Story {
        control_plane: &control_plane,
        screen,
        id: &id,
        seq: 0,
        lines: 0,
    };
    let begun = Instant::now();
    loop {
        // The job first: what it had done by then is surely in the events that are read after it.
        let job = control_plane.get(&format!("/jobs/{id}"), &[]).await?;
        story.go_on().await?;
        if has_ended(&job) {
            tell_end(&job, screen);
            return Ok(job);
        }
        if begun.elapsed() > PATIENCE {
            screen.say(&format!(
                "the first job is still {} after {} s; it is left to itself",
                status(&job),
                PATIENCE.as_secs()
            ));
            return Ok(job);
        }
        sleep(PAUSE).await;
    }
}

/// Sends the job; one that was recorded but not taken at once is followed all the same.
async fn send(control_plane: &ControlPlane, screen: &Screen) -> Result<String, Error> {
    let body = json!({"job_type": "hello", "payload": {"name": "world"}});
    screen.tell(&format!(
        "first job     POST /api/v1/ops/trigger_runner {body}"
    ));
    let answer = match control_plane.post("/trigger_runner", &body, &[]).await {
        Err(Error::Refused(refusal)) if refusal.document.get("job_id").is_some() => {
            screen.say(&format!("the trigger did not get through: {refusal}"));
            refusal.document
        }
        answer => answer?,
    };
    let id = answer
        .pointer("/job/id")
        .or_else(|| answer.get("job_id"))
        .and_then(Value::as_str);
    id.map(str::to_owned).ok_or_else(|| {
        Error::Failed("the control plane's answer to the trigger names no job".to_owned())
    })
}

/// How far the job's events and log have been told.
struct Story<'a> {
    control_plane: &'a ControlPlane,
    screen: &'a Screen,
    id: &'a str,
    seq: i64,
    lines: usize,
}

impl Story<'_> {
    /// Tells what is new: what happened, what the job printed, and its end last.
    async fn go_on(&mut self) -> Result<(), Error> {
        let after = [("after", self.seq.to_string())];
        let answer = self
            .control_plane
            .get(&format!("/jobs/{}/events", self.id), &after)
            .await?;
        let log = self
            .control_plane
            .get_text(&format!("/jobs/{}/log", self.id))
            .await?;
        let events = answer
            .get("events")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let (end, before): (Vec<_>, Vec<_>) = events.iter().partition(|event| is_end(event));
        before.into_iter().for_each(|event| self.tell(event));
        for line in String::from_utf8_lossy(&log).lines().skip(self.lines) {
            self.lines += 1;
            let line = harmless(line);
            self.screen.tell(&format!(
                "              {} {line}",
                self.screen.paint(Ink::Faint, "|")
            ));
        }
        end.into_iter().for_each(|event| self.tell(event));
        Ok(())
    }

    fn tell(&mut self, event: &Value) {
        self.seq = self
            .seq
            .max(event.get("seq").and_then(Value::as_i64).unwrap_or_default());
        let word = |name: &str| event.get(name).map(cell).unwrap_or_default();
        let (kind, at) = (harmless(&word("kind")), word("at"));
        let data = short(&harmless(&details(
            event.get("data").unwrap_or(&Value::Null),
        )));
        // Of 2026-01-02T03:04:05.678901Z the time of day, to the millisecond.
        let time = at.get(11..23).unwrap_or(&at);
        let kind = self.screen.paint(Ink::of(&kind), &format!("{kind:<16}"));
        let data = self.screen.paint(Ink::Faint, &data);
        self.screen
            .tell(&format!("  {:>3}  {time}  {kind} {data}", self.seq));
    }
}

fn is_end(event: &Value) -> bool {
    let kind = event
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default();
    matches!(kind, "succeeded" | "failed" | "aborted" | "dead_lettered")
}

fn tell_end(job: &Value, screen: &Screen) {
    let (label, value) = match status(job) {
        "succeeded" => ("result", job.get("result")),
        _ => ("error", job.get("error")),
    };
    let value = value.map(cell).unwrap_or_default();
    screen.tell(&format!(
        "{label:<13} {}",
        screen.paint(Ink::of(status(job)), &harmless(&value))
    ));
}

/// An event's details without braces and quotes.
fn details(data: &Value) -> String {
    let pairs = data.as_object().into_iter().flatten();
    let texts: Vec<String> = pairs
        .map(|(name, value)| format!("{name}={}", cell(value)))
        .collect();
    texts.join(" ")
}

fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST_DATA) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_names_and_values() {
        assert_eq!(
            details(&json!({"attempt": 1, "queue": "default"})),
            "attempt=1 queue=default"
        );
        assert_eq!(details(&Value::Null), "");
    }

    #[test]
    fn long_details_are_cut_between_letters() {
        assert_eq!(short("ä"), "ä");
        assert_eq!(
            short(&"ä".repeat(LONGEST_DATA)).chars().count(),
            LONGEST_DATA
        );
        assert!(short(&"ä".repeat(LONGEST_DATA + 1)).ends_with(" …"));
    }
}
