//! Folds a job's events into the row that they explain, and names every difference. Pure: reads no database, mends nothing.

mod compare;
mod step;

use std::fmt;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::job::Event;
use crate::state::Status;
use step::{Step, same_transition};

/// What a row says of itself, as far as its events must explain it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where it is in its life.
    pub status: Status,
    /// Claims counted so far.
    pub attempt: i32,
    /// Who holds it or ended it.
    pub runner_id: Option<String>,
    /// The fencing number of its newest claim, or of whoever took it away.
    pub fence: i64,
    /// When its newest attempt began.
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
    /// When it failed with its attempts used up.
    pub dead_lettered_at: Option<OffsetDateTime>,
    /// The number of its newest event.
    pub event_seq: i32,
}

/// One thing about a job that its events do not explain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The job.
    pub job_id: Uuid,
    /// The event that is wrong, where it is one event and not the row.
    pub seq: Option<i32>,
    /// What is wrong: a column of the row, or `numbering`, `language`, `instants`, `row`, `seal`.
    pub subject: &'static str,
    /// What stands there, and what should.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.job_id)?;
        if let Some(seq) = self.seq {
            write!(f, " event {seq}")?;
        }
        write!(f, " {}: {}", self.subject, self.detail)
    }
}

/// The fence that the row must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fence {
    /// Exactly this one.
    Is(i64),
    /// A later one: somebody else took the job from its runner.
    Beyond(i64),
}

/// The event that was read last, as far as the next depends on it.
#[derive(Clone, Debug)]
struct Previous {
    seq: i32,
    at: OffsetDateTime,
    step: Step,
    kind: String,
}

/// A job as far as its events tell it.
#[derive(Debug)]
pub struct Fold {
    job_id: Uuid,
    status: Option<Status>,
    attempt: i32,
    runner_id: Option<String>,
    fence: Fence,
    started_at: Option<OffsetDateTime>,
    finished_at: Option<OffsetDateTime>,
    /// The two instants between which `dead_lettered_at` must lie.
    dead_lettered: Option<(OffsetDateTime, OffsetDateTime)>,
    previous: Option<Previous>,
    /// When the statement before the last change wrote: the earliest instant of a dead letter.
    before_end: Option<OffsetDateTime>,
    findings: Vec<Finding>,
}

impl Fold {
    /// A job of which nothing is known yet.
    pub fn new(job_id: Uuid) -> Self {
        Self {
            job_id,
            status: None,
            attempt: 0,
            runner_id: None,
            fence: Fence::Is(0),
            started_at: None,
            finished_at: None,
            dead_lettered: None,
            previous: None,
            before_end: None,
            findings: Vec::new(),
        }
    }

    /// Takes the next event; they come in the order of their numbers.
    pub fn take(&mut self, event: &Event) {
        self.check_order(event);
        let step = Step::of(&event.kind, self.status);
        self.check_neighbours(event, step);
        match step {
            Step::To(status) => self.change(event, status),
            Step::DeadLetter => {
                self.dead_lettered = Some((self.before_end.unwrap_or(event.at), event.at));
            }
            Step::AtWork if self.status != Some(Status::Running) => {
                let detail = format!("{} while {}", event.kind, word(self.status));
                self.find(Some(event.seq), "language", detail);
            }
            Step::Cause => self.remember_before(event.at),
            Step::AtWork | Step::Note => {}
        }
        self.previous = Some(Previous {
            seq: event.seq,
            at: event.at,
            step,
            kind: event.kind.clone(),
        });
    }

    fn check_order(&mut self, event: &Event) {
        let due = self.previous.as_ref().map_or(1, |last| last.seq + 1);
        if event.seq != due {
            self.find(
                Some(event.seq),
                "numbering",
                format!("expected number {due}"),
            );
        }
        if let Some(last) = self.previous.as_ref().filter(|last| event.at < last.at) {
            let detail = format!("{} is before its predecessor's {}", event.at, last.at);
            self.find(Some(event.seq), "instants", detail);
        }
    }

    /// A cause and its effect, a failure and its dead letter, are one statement: neighbours of one instant.
    fn check_neighbours(&mut self, event: &Event, step: Step) {
        let last = self.previous.as_ref();
        let together = last.is_some_and(|last| last.at == event.at);
        if let Some(last) = last.filter(|last| last.step == Step::Cause) {
            let follows = match last.kind.as_str() {
                "lease_expired" => matches!(
                    event.kind.as_str(),
                    "retry_scheduled" | "failed" | "aborted" | "held"
                ),
                "stage_succeeded" => matches!(
                    event.kind.as_str(),
                    "stage_queued" | "gate_opened" | "succeeded" | "aborted"
                ),
                _ => event.kind == "aborted",
            };
            if !follows || !together {
                let detail = format!("{} right after {}", event.kind, last.kind);
                self.find(Some(event.seq), "language", detail);
            }
        }
        let failed_before = self
            .previous
            .as_ref()
            .is_some_and(|last| last.step == Step::To(Status::Failed));
        if step == Step::DeadLetter && !(failed_before && together) {
            self.find(
                Some(event.seq),
                "language",
                "dead_lettered without a failure right before it".to_owned(),
            );
        }
        let told_of = match event.kind.as_str() {
            "lease_expired" | "stage_succeeded" => Some(Status::Running),
            "gate_expired" | "gate_rejected" | "gate_approval" => Some(Status::Waiting),
            _ => None,
        };
        if told_of.is_some() && self.status != told_of {
            let detail = format!("{} while {}", event.kind, word(self.status));
            self.find(Some(event.seq), "language", detail);
        }
    }

    fn change(&mut self, event: &Event, to: Status) {
        let from = self.status;
        let legal = match from {
            None => event.kind == "queued",
            Some(from) => from
                .transition_to(to)
                .is_some_and(|listed| same_transition(&event.kind, listed)),
        };
        if !legal {
            let detail = format!("{} while {}", event.kind, word(from));
            self.find(Some(event.seq), "language", detail);
        }
        self.status = Some(to);
        self.remember_before(event.at);
        self.finished_at = to.is_terminal().then_some(event.at);
        if to == Status::Running {
            return self.claim(event);
        }
        self.count(event);
        if from == Some(Status::Running) {
            self.leave(event);
        }
        if matches!(to, Status::Queued | Status::Waiting) {
            self.runner_id = None;
            self.dead_lettered = None;
        }
        if event.kind == "replayed" {
            self.started_at = None;
        }
    }

    /// Keeps the instant of the last event that an earlier statement wrote.
    fn remember_before(&mut self, at: OffsetDateTime) {
        if let Some(last) = self.previous.as_ref().filter(|last| last.at != at) {
            self.before_end = Some(last.at);
        }
    }

    fn claim(&mut self, event: &Event) {
        self.attempt += 1;
        self.expect_attempt(event);
        self.runner_id.clone_from(&event.runner_id);
        self.started_at = Some(event.at);
        let (Fence::Is(known) | Fence::Beyond(known)) = self.fence;
        let fence = event.data.get("fence").and_then(serde_json::Value::as_i64);
        match fence {
            Some(fence) if fence > known => self.fence = Fence::Is(fence),
            Some(fence) => {
                let detail = format!("{fence} is not beyond {known}");
                self.find(Some(event.seq), "fence", detail);
            }
            None => self.find(Some(event.seq), "fence", "the claim names none".to_owned()),
        }
    }

    /// A claim adds an attempt, a release takes it back, a replay begins anew; everything else leaves them alone.
    fn count(&mut self, event: &Event) {
        if event.kind == "replayed" {
            self.attempt = 0;
        }
        self.expect_attempt(event);
        if event.kind == "released" {
            self.attempt -= 1;
        }
    }

    fn expect_attempt(&mut self, event: &Event) {
        if event.attempt != self.attempt {
            let detail = format!("{} instead of {}", event.attempt, self.attempt);
            self.find(Some(event.seq), "attempt", detail);
        }
    }

    /// Whoever takes a running job from its runner takes the fence too.
    fn leave(&mut self, event: &Event) {
        let by_its_runner = self
            .runner_id
            .as_ref()
            .is_some_and(|runner| event.actor.strip_prefix("runner:") == Some(runner));
        if let (Fence::Is(fence), false) = (self.fence, by_its_runner) {
            self.fence = Fence::Beyond(fence);
        }
        if event.runner_id != self.runner_id {
            let detail = format!(
                "{} instead of {}",
                or_none(event.runner_id.as_ref()),
                or_none(self.runner_id.as_ref())
            );
            self.find(Some(event.seq), "runner_id", detail);
        }
    }

    fn find(&mut self, seq: Option<i32>, subject: &'static str, detail: String) {
        self.findings.push(Finding {
            job_id: self.job_id,
            seq,
            subject,
            detail,
        });
    }
}

fn word(status: Option<Status>) -> &'static str {
    status.map_or("not recorded yet", Status::as_str)
}

fn or_none(text: Option<&String>) -> String {
    text.map_or("none", String::as_str).to_owned()
}

#[cfg(test)]
mod tests;
