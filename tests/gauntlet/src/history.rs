//! What a run left behind, as the checker reads it: rows, events, ledger, sink, acknowledgements, faults, answers. Plain
//! values, so that a test can make a bad one by hand.

use std::collections::BTreeMap;

use serde_json::Value;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::ledger::Record;
use crate::sink::Effect;

/// A row of the jobs table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its type.
    pub job_type: String,
    /// Its status, as text.
    pub status: String,
    /// Its attempts.
    pub attempt: i32,
    /// Its budget.
    pub max_attempts: i32,
    /// Who holds or ended it.
    pub runner: Option<String>,
    /// Its fence.
    pub fence: i64,
    /// Its client's key.
    pub key: Option<String>,
    /// When its newest attempt began.
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
    /// When it was given up.
    pub dead_lettered_at: Option<OffsetDateTime>,
}

/// A row of the events table.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number.
    pub seq: i32,
    /// Its kind.
    pub kind: String,
    /// When.
    pub at: OffsetDateTime,
    /// The attempt it names.
    pub attempt: i32,
    /// The runner it names.
    pub runner: Option<String>,
    /// Who did it.
    pub actor: String,
    /// Its details.
    pub data: Value,
}

impl Event {
    /// The fence of a claim.
    pub fn fence(&self) -> Option<i64> {
        self.data
            .get("fence")
            .and_then(Value::as_i64)
            .filter(|_| self.kind == "running")
    }
}

/// What a client knows of one request for a job.
#[derive(Clone, Debug)]
pub struct Ack {
    /// The Idempotency-Key that it sent, over and over.
    pub key: String,
    /// The job that it was told; `None` when it never got an answer that it could trust.
    pub job: Option<Uuid>,
    /// When its abort was acknowledged, by the monotonic clock.
    pub aborted: Option<u64>,
}

/// An answer that a client got, or that it got none.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status; 0 where the connection ended without one.
    pub status: u16,
    /// When, by the wall clock.
    pub at: OffsetDateTime,
    /// Whether its body is a problem+json with a `request_id`.
    pub problem: bool,
    /// Whether it said after how long to try again.
    pub retry_after: bool,
    /// Its body, where it was no success.
    pub body: String,
}

/// What was done to the system.
#[derive(Clone, Debug)]
pub struct Done {
    /// What.
    pub what: What,
    /// From when, by the monotonic clock.
    pub from: u64,
    /// Until when.
    pub until: u64,
    /// From when, by the wall clock.
    pub from_wall: OffsetDateTime,
    /// Until when.
    pub until_wall: OffsetDateTime,
    /// When the next process was started, where it ended one and began another.
    pub back_wall: Option<OffsetDateTime>,
}

impl Done {
    /// Whether it concerns what this runner did at some time from `from` to `until`, by the monotonic clock.
    pub fn concerns(&self, runner: Option<&str>, from: u64, until: u64) -> bool {
        let concerns = match &self.what {
            What::Killed(name) | What::Paused(name) | What::Drained(name) => {
                Some(name.as_str()) == runner
            }
            What::DatabaseDisturbed => true,
            What::Deploy | What::Other(_) => false,
        };
        concerns && self.from <= until && from <= self.until
    }
}

/// A thing that was done, as far as the checker must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// This runner was killed, and until then down.
    Killed(String),
    /// This runner and all that it runs stood still.
    Paused(String),
    /// This runner was asked to leave, and left.
    Drained(String),
    /// Everything was replaced in order, one after the other, and nothing else happened.
    Deploy,
    /// The database was away, or somebody was cut off from it.
    DatabaseDisturbed,
    /// Anything else.
    Other(&'static str),
}

/// A stored piece of what a handler printed.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Its number within the claim.
    pub number: i32,
    /// stdout, stderr or runner.
    pub stream: String,
    /// The number of its first line.
    pub first_line: i32,
    /// How many lines it says it holds.
    pub lines: i32,
    /// Its lines.
    pub body: String,
}

/// Something that is counted before the first job and after the last.
#[derive(Clone, Debug)]
pub struct Measure {
    /// Of what.
    pub what: String,
    /// At first.
    pub before: u64,
    /// In the end.
    pub after: u64,
    /// How many more than at first are no leak: what pools keep.
    pub more: u64,
}

/// What was promised for the jobs of the run.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Jobs that one start of a runner runs at once.
    pub slots: usize,
    /// Jobs of a type that the fleet runs at once.
    pub concurrency: BTreeMap<&'static str, usize>,
    /// How long an attempt of a type may take.
    pub timeouts: BTreeMap<&'static str, std::time::Duration>,
    /// After the grace everything must be gone in so long.
    pub slack: std::time::Duration,
}

/// The whole history of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Jobs.
    pub rows: BTreeMap<Uuid, Row>,
    /// Their events, in the order of their numbers.
    pub events: BTreeMap<Uuid, Vec<Event>>,
    /// What handlers did.
    pub ledger: Vec<Record>,
    /// Records that are not whole.
    pub torn: usize,
    /// What the sink said.
    pub effects: Vec<Effect>,
    /// What clients were told.
    pub acks: Vec<Ack>,
    /// How clients were answered.
    pub answers: Vec<Answer>,
    /// What was done.
    pub faults: Vec<Done>,
    /// Processes of jobs that lived after everything was stopped.
    pub processes_left: Vec<String>,
    /// Run folders that were left: the job and the fence.
    pub folders_left: Vec<(Uuid, i64)>,
    /// Connections that the programs left open in the database.
    pub sessions_left: i64,
    /// What was stored of the output of each claim, in the order of the numbers.
    pub logs: BTreeMap<(Uuid, i64), Vec<Chunk>>,
    /// What was counted before and after.
    pub measures: Vec<Measure>,
    /// Where a secret was seen.
    pub canaries: Vec<String>,
    /// What was promised.
    pub terms: Terms,
    /// When all this was read, by the wall clock.
    pub read_at: Option<OffsetDateTime>,
    /// The longest that the recovery of a killed runner's job may take.
    pub recovery_limit: Duration,
}

impl History {
    /// The runner that claimed this job under this fence.
    pub fn runner_of(&self, job: Uuid, fence: i64) -> Option<&str> {
        let claim = self
            .events
            .get(&job)?
            .iter()
            .find(|event| event.fence() == Some(fence))?;
        claim.runner.as_deref()
    }

    /// Everything that is known of a job, line by line.
    pub fn story(&self, job: Uuid) -> String {
        let mut lines = vec![format!("job {job}: {:?}", self.rows.get(&job))];
        for event in self.events.get(&job).into_iter().flatten() {
            lines.push(format!(
                "  {} {} {} attempt {} by {} {}",
                event.at, event.seq, event.kind, event.attempt, event.actor, event.data
            ));
        }
        let mut last = None;
        for record in self.ledger.iter().filter(|record| record.job == job) {
            // Of the many beats of an attempt the first is enough.
            let now = (record.fence, record.phase);
            if last != Some(now) {
                lines.push(format!("  ledger {record:?}"));
            }
            last = Some(now);
        }
        let effects = self.effects.iter().filter(|effect| effect.job == job);
        lines.extend(effects.map(|effect| format!("  sink {effect:?}")));
        let acks = self.acks.iter().filter(|ack| ack.job == Some(job));
        lines.extend(acks.map(|ack| format!("  client {ack:?}")));
        let runners: Vec<&str> = self
            .events
            .get(&job)
            .into_iter()
            .flatten()
            .filter_map(|event| event.runner.as_deref())
            .collect();
        for fault in &self.faults {
            let concerns = match &fault.what {
                What::Killed(runner) | What::Paused(runner) | What::Drained(runner) => {
                    runners.contains(&runner.as_str())
                }
                What::DatabaseDisturbed | What::Deploy | What::Other(_) => false,
            };
            if concerns {
                lines.push(format!(
                    "  fault {:?} {} to {}",
                    fault.what, fault.from_wall, fault.until_wall
                ));
            }
        }
        lines.join("\n")
    }
}
