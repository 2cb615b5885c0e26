//! Folds a job's events into the row that they explain, and names every difference. Pure: reads no database, mends nothing.

use std::fmt;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::job::Event;
use crate::state::Status;

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
    /// What is wrong: a column of the row, or `numbering`, `language`, `instants`, `row`.
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

/// What an event kind does to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The status changes.
    To(Status),
    /// The reason of the change that must follow at once.
    Cause,
    /// The remark `dead_lettered`, which must follow a failure at once.
    DeadLetter,
    /// A remark that only a running job gets.
    AtWork,
    /// A remark at any time, kinds that this version does not know included.
    Note,
}

impl Step {
    fn of(kind: &str, status: Option<Status>) -> Self {
        match kind {
            "queued" | "retry_scheduled" | "released" | "resumed" | "replayed" => {
                Self::To(Status::Queued)
            }
            "running" => Self::To(Status::Running),
            "gate_opened" | "held" => Self::To(Status::Waiting),
            "succeeded" => Self::To(Status::Succeeded),
            "failed" => Self::To(Status::Failed),
            "aborted" => Self::To(Status::Aborted),
            "dead_lettered" => Self::DeadLetter,
            "lease_expired" => Self::Cause,
            // Asked of a running job it is a wish; else the abort follows in the same breath.
            "abort_requested" if status == Some(Status::Running) => Self::AtWork,
            "abort_requested" => Self::Cause,
            "progress" | "progress_refused" | "warning" => Self::AtWork,
            _ => Self::Note,
        }
    }
}

/// The kinds that stand for another kind of the transition table, where the same change has a more exact name.
fn same_transition(kind: &str, listed: &str) -> bool {
    kind == listed
        || matches!(
            (kind, listed),
            ("released", "retry_scheduled") | ("held", "gate_opened")
        )
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
        if event.kind == "lease_expired" && self.status != Some(Status::Running) {
            let detail = format!("lease_expired while {}", word(self.status));
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

    /// Compares with the row, and gives everything that was found; `None` stands for events without a row.
    pub fn compare(mut self, row: Option<&Standing>) -> Vec<Finding> {
        let Some(row) = row else {
            self.find(None, "row", "there are events, but no job".to_owned());
            return self.findings;
        };
        if let Some(last) = self
            .previous
            .as_ref()
            .filter(|last| last.step == Step::Cause)
        {
            let detail = format!("{} is the last, and nothing came of it", last.kind);
            self.find(Some(last.seq), "language", detail);
        }
        let seq = self.previous.as_ref().map_or(0, |last| last.seq);
        self.differ("numbering", &row.event_seq, &seq);
        self.differ(
            "status",
            &row.status.as_str(),
            &self.status.map_or("nothing", Status::as_str),
        );
        let attempt = self.attempt;
        self.differ("attempt", &row.attempt, &attempt);
        let (holds, held) = (
            or_none(row.runner_id.as_ref()),
            or_none(self.runner_id.as_ref()),
        );
        self.differ("runner_id", &holds, &held);
        match self.fence {
            Fence::Is(fence) => self.differ("fence", &row.fence, &fence),
            Fence::Beyond(fence) if row.fence <= fence => {
                let detail = format!("{} is not beyond {fence}", row.fence);
                self.find(None, "fence", detail);
            }
            Fence::Beyond(_) => {}
        }
        self.differ(
            "started_at",
            &instant(row.started_at),
            &instant(self.started_at),
        );
        self.differ(
            "finished_at",
            &instant(row.finished_at),
            &instant(self.finished_at),
        );
        self.compare_dead_letter(row);
        self.findings
    }

    /// It is taken a moment before the event's own instant, in the same statement.
    fn compare_dead_letter(&mut self, row: &Standing) {
        let explained = match (row.dead_lettered_at, self.dead_lettered) {
            (None, None) => true,
            (Some(at), Some((earliest, latest))) => earliest <= at && at <= latest,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !explained {
            let told = self.dead_lettered.map(|(_, at)| at);
            let detail = differs(&instant(row.dead_lettered_at), &instant(told));
            self.find(None, "dead_lettered_at", detail);
        }
    }

    fn differ<T: PartialEq + fmt::Display>(&mut self, subject: &'static str, row: &T, told: &T) {
        if row != told {
            self.find(None, subject, differs(row, told));
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

fn differs(row: &impl fmt::Display, told: &impl fmt::Display) -> String {
    format!("the row says {row}, its events say {told}")
}

fn word(status: Option<Status>) -> &'static str {
    status.map_or("not recorded yet", Status::as_str)
}

fn or_none(text: Option<&String>) -> String {
    text.map_or("none", String::as_str).to_owned()
}

fn instant(at: Option<OffsetDateTime>) -> String {
    at.map_or("none".to_owned(), |at| at.to_string())
}

#[cfg(test)]
mod tests;
