//! One round: so many jobs by so many callers at once, each followed to its end. Judges nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::sleep;

use super::LoadTest;
use crate::client::ControlPlane;
use crate::error::Error;
use crate::figures::Percentiles;
use crate::jobs::{has_ended, status};

const PAUSE: Duration = Duration::from_millis(50);

/// What came of a round.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) is_warm_up: bool,
    pub(super) sent: Vec<Sent>,
}

/// What came of one job.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) id: Option<String>,
    /// `succeeded`, `failed`, `aborted`, `unfinished`, `refused 503`, `unreachable`.
    pub(super) outcome: String,
    /// From recorded to started and from recorded to finished, by the database's clock.
    pub(super) wait_ms: Option<f64>,
    pub(super) total_ms: Option<f64>,
    /// Refusals and lost calls on the way, by status; 0 is no answer.
    pub(super) refusals: BTreeMap<u16, u32>,
}

pub(super) async fn run(test: &LoadTest, control_plane: &ControlPlane, is_warm_up: bool) -> Round {
    let sent = stream::iter(0..test.jobs)
        .map(|_| send(test, control_plane))
        .buffer_unordered(test.concurrency as usize)
        .collect()
        .await;
    Round { is_warm_up, sent }
}

async fn send(test: &LoadTest, control_plane: &ControlPlane) -> Sent {
    let mut sent = Sent::default();
    let patience = Duration::from_secs(test.patience.into());
    let body = json!({
        "job_type": String::from(test.job_type.clone()),
        "payload": {"do": "succeed"},
        "max_attempts": 1,
        "ttl_seconds": test.patience,
        "labels": {"load-test": "1"},
    });
    let work = follow(&body, control_plane, &mut sent);
    let ended = tokio::time::timeout(patience, work).await;
    if ended.is_err() {
        sent.outcome = "unfinished".to_owned();
    }
    sent
}

async fn follow(body: &Value, control_plane: &ControlPlane, sent: &mut Sent) {
    let answer = match control_plane.post("/trigger_runner", body, &[]).await {
        Ok(answer) => answer,
        Err(error) => {
            sent.outcome = sent.refused(&error);
            // A job that was recorded is followed all the same: the runner finds it later.
            let Error::Refused(refusal) = error else {
                return;
            };
            refusal.document
        }
    };
    let id = answer.pointer("/job/id").or_else(|| answer.get("job_id"));
    let Some(id) = id.and_then(Value::as_str) else {
        return;
    };
    sent.id = Some(id.to_owned());
    loop {
        match control_plane.get(&format!("/jobs/{id}"), &[]).await {
            Ok(job) if has_ended(&job) => return sent.ended(&job),
            Ok(_) => {}
            Err(error) => {
                sent.refused(&error);
            }
        }
        sleep(PAUSE).await;
    }
}

impl Sent {
    fn refused(&mut self, error: &Error) -> String {
        let (status, word) = match error {
            Error::Refused(refusal) => (refusal.status, format!("refused {}", refusal.status)),
            _ => (0, "unreachable".to_owned()),
        };
        *self.refusals.entry(status).or_default() += 1;
        word
    }

    fn ended(&mut self, job: &Value) {
        self.outcome = status(job).to_owned();
        let (created, started, finished) = (
            instant(job, "created_at"),
            instant(job, "started_at"),
            instant(job, "finished_at"),
        );
        self.wait_ms = between(created, started);
        self.total_ms = between(created, finished);
    }
}

fn instant(job: &Value, name: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(job.get(name)?.as_str()?, &Rfc3339).ok()
}

fn between(from: Option<OffsetDateTime>, to: Option<OffsetDateTime>) -> Option<f64> {
    Some((to? - from?).as_seconds_f64() * 1000.0)
}

impl Round {
    pub(super) fn ids(&self) -> impl Iterator<Item = String> {
        self.sent.iter().filter_map(|sent| sent.id.clone())
    }

    pub(super) fn outcomes(&self) -> BTreeMap<&str, u32> {
        let mut outcomes = BTreeMap::new();
        for sent in &self.sent {
            *outcomes.entry(sent.outcome.as_str()).or_default() += 1;
        }
        outcomes
    }

    /// Refusals and lost calls, by status; 0 is no answer.
    pub(super) fn refusals(&self) -> BTreeMap<u16, u32> {
        let mut all = BTreeMap::new();
        for (status, count) in self.sent.iter().flat_map(|sent| &sent.refusals) {
            *all.entry(*status).or_default() += count;
        }
        all
    }

    pub(super) fn wait(&self) -> Option<Percentiles> {
        Percentiles::of(
            &self
                .sent
                .iter()
                .filter_map(|sent| sent.wait_ms)
                .collect::<Vec<_>>(),
        )
    }

    pub(super) fn total(&self) -> Option<Percentiles> {
        Percentiles::of(
            &self
                .sent
                .iter()
                .filter_map(|sent| sent.total_ms)
                .collect::<Vec<_>>(),
        )
    }

    /// The round in a line.
    pub(super) fn told(&self) -> String {
        let outcomes: Vec<String> = self
            .outcomes()
            .iter()
            .map(|(word, count)| format!("{count} {word}"))
            .collect();
        let p95 = |of: Option<Percentiles>| {
            of.map_or_else(|| "-".to_owned(), |of| format!("{:.0} ms", of.p95))
        };
        let warm_up = if self.is_warm_up { " (warm-up)" } else { "" };
        format!(
            "{}, wait p95 {}, total p95 {}{warm_up}",
            outcomes.join(", "),
            p95(self.wait()),
            p95(self.total()),
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "warm_up": self.is_warm_up,
            "outcomes": self.outcomes(),
            "refusals": self.refusals(),
            "wait_ms": self.wait(),
            "total_ms": self.total(),
        })
    }
}
