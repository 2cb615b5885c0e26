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
}

/// An answer that a client got.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
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
}

/// A thing that was done, as far as the checker must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// This runner was killed, and until then down.
    Killed(String),
    /// This runner and all that it runs stood still.
    Paused(String),
    /// The database was away, or somebody was cut off from it.
    DatabaseDisturbed,
    /// Anything else.
    Other(&'static str),
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
                What::Killed(runner) | What::Paused(runner) => runners.contains(&runner.as_str()),
                What::DatabaseDisturbed | What::Other(_) => false,
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
