//! I4, I5, I7, I15: a job's events as a life, folded once more by other code than the product's.

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Invariant, Verdict};
use crate::history::{Event, History, Row};

/// No retry is put off longer, in seconds.
const LONGEST_WAIT: i64 = 600;

pub(super) fn check(history: &History, verdict: &mut Verdict) {
    for (job, row) in &history.rows {
        let events = history
            .events
            .get(job)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let mut life = Life {
            job: *job,
            verdict,
            told: Told::default(),
        };
        for (index, event) in events.iter().enumerate() {
            life.read(
                event,
                index.checked_sub(1).and_then(|before| events.get(before)),
            );
        }
        life.compare(row);
        check_instants(*job, events, history.read_at, verdict);
    }
    for job in history
        .events
        .keys()
        .filter(|job| !history.rows.contains_key(job))
    {
        verdict.add(Invariant::Fold, *job, "events without a job");
    }
}

/// The row that the events tell.
#[derive(Default)]
struct Told {
    status: String,
    attempt: i32,
    claims: i32,
    runner: Option<String>,
    fence: i64,
    taken_away: bool,
    started_at: Option<OffsetDateTime>,
    finished_at: Option<OffsetDateTime>,
    dead: bool,
    run_at: Option<OffsetDateTime>,
    abort_asked: bool,
}

struct Life<'a> {
    job: Uuid,
    verdict: &'a mut Verdict,
    told: Told,
}

/// The states in which a kind may come, and the state that it makes; `None` where it makes none.
fn rule(kind: &str) -> Option<(&'static [&'static str], Option<&'static str>)> {
    Some(match kind {
        "queued" => (&[""], Some("queued")),
        "running" => (&["queued"], Some("running")),
        "succeeded" => (&["running"], Some("succeeded")),
        "retry_scheduled" => (&["running", "lost"], Some("queued")),
        "released" => (&["running"], Some("queued")),
        "failed" => (&["queued", "running", "lost"], Some("failed")),
        "aborted" => (&["queued", "waiting", "running", "lost"], Some("aborted")),
        "lease_expired" => (&["running"], Some("lost")),
        "dead_lettered" => (&["failed"], None),
        "replayed" => (&["failed", "aborted"], Some("queued")),
        "held" | "gate_opened" => (&["running", "lost"], Some("waiting")),
        "resumed" | "gate_approved" => (&["waiting"], Some("queued")),
        "stage_succeeded" => (&["running"], None),
        "stage_queued" => (&["running"], Some("queued")),
        "gate_rejected" | "gate_approval" | "gate_expired" => (&["waiting"], None),
        "progress" | "progress_refused" | "warning" => (&["running"], None),
        "stale_result_refused" | "abort_requested" => (
            &[
                "queued",
                "running",
                "waiting",
                "succeeded",
                "failed",
                "aborted",
            ],
            None,
        ),
        _ => return None,
    })
}

impl Life<'_> {
    fn read(&mut self, event: &Event, before: Option<&Event>) {
        if event.seq != before.map_or(1, |before| before.seq + 1) {
            self.wrong(
                Invariant::Language,
                format!("number {} after {:?}", event.seq, before.map(|b| b.seq)),
            );
        }
        let before = self.told.status.clone();
        match rule(&event.kind) {
            // Notes of kinds that this suite does not know may stand anywhere but between a loss and what comes of it.
            None if self.told.status != "lost" => return,
            None => self.wrong(
                Invariant::Language,
                format!("{} after lease_expired", event.kind),
            ),
            Some((allowed, next)) => {
                if !allowed.contains(&self.told.status.as_str()) {
                    let what = format!("{} while {:?}", event.kind, self.told.status);
                    self.wrong(Invariant::Language, what);
                }
                if let Some(next) = next {
                    next.clone_into(&mut self.told.status);
                }
            }
        }
        self.fold(event, &before);
    }

    fn fold(&mut self, event: &Event, before: &str) {
        let told = &mut self.told;
        match event.kind.as_str() {
            "abort_requested" => told.abort_asked = true,
            "running" => {
                told.attempt += 1;
                told.claims += 1;
                told.runner.clone_from(&event.runner);
                told.fence = event.fence().unwrap_or(0);
                told.taken_away = false;
                told.started_at = Some(event.at);
                if told.abort_asked {
                    self.wrong(
                        Invariant::Language,
                        "claimed after its abort was asked for".to_owned(),
                    );
                } else if let Some(run_at) = told.run_at.filter(|run_at| *run_at > event.at) {
                    self.wrong(
                        Invariant::Budget,
                        format!("claimed at {} before {run_at}", event.at),
                    );
                }
            }
            "lease_expired" => told.taken_away = true,
            "succeeded" => told.finished_at = Some(event.at),
            "failed" | "aborted" => {
                told.finished_at = Some(event.at);
                // Only who runs it has a fence to lose; in the queue an end leaves the fence of the newest claim.
                told.taken_away |= before == "running" && !event.actor.starts_with("runner:");
            }
            "dead_lettered" => told.dead = true,
            "queued" | "retry_scheduled" | "released" | "replayed" | "resumed" | "stage_queued"
            | "gate_approved" => {
                self.queued(event);
            }
            "held" | "gate_opened" => told.runner = None,
            _ => {}
        }
    }

    fn queued(&mut self, event: &Event) {
        let told = &mut self.told;
        told.runner = None;
        told.finished_at = None;
        told.run_at = event
            .data
            .get("run_at")
            .and_then(serde_json::Value::as_str)
            .and_then(|text| {
                OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()
            });
        match event.kind.as_str() {
            "released" => {
                told.attempt -= 1;
                told.claims -= 1;
            }
            "replayed" => {
                told.attempt = 0;
                told.claims = 0;
                told.started_at = None;
                told.dead = false;
                told.abort_asked = false;
            }
            _ => {}
        }
        let wait = told.run_at.map(|run_at| run_at - event.at);
        let too_long = wait.is_some_and(|wait| wait > Duration::seconds(LONGEST_WAIT));
        if event.kind == "retry_scheduled" && (wait.is_none() || too_long) {
            self.wrong(Invariant::Budget, format!("the retry waits {wait:?}"));
        }
    }

    fn compare(&mut self, row: &Row) {
        let told = &self.told;
        let fence_is_told = if told.taken_away {
            row.fence > told.fence
        } else {
            row.fence == told.fence
        };
        let differences = [
            ("status", row.status == told.status),
            ("attempt", row.attempt == told.attempt),
            ("runner_id", row.runner == told.runner),
            ("fence", fence_is_told),
            ("started_at", row.started_at == told.started_at),
            ("finished_at", row.finished_at == told.finished_at),
            (
                "dead_lettered_at",
                row.dead_lettered_at.is_some() == told.dead,
            ),
        ];
        let (claims, row_text) = (told.claims, format!("{row:?}"));
        for (column, _) in differences.into_iter().filter(|(_, same)| !same) {
            self.wrong(
                Invariant::Fold,
                format!("the events do not explain {column} of {row_text}"),
            );
        }
        if claims > row.max_attempts {
            self.wrong(
                Invariant::Budget,
                format!("{claims} attempts of {}", row.max_attempts),
            );
        }
    }

    fn wrong(&mut self, invariant: Invariant, what: String) {
        self.verdict.add(invariant, self.job, what);
    }
}

fn check_instants(
    job: Uuid,
    events: &[Event],
    read_at: Option<OffsetDateTime>,
    verdict: &mut Verdict,
) {
    for pair in events.windows(2) {
        if pair[1].at < pair[0].at {
            verdict.add(
                Invariant::Time,
                job,
                format!("event {} is before its predecessor", pair[1].seq),
            );
        }
    }
    if let Some(event) = events
        .iter()
        .find(|event| read_at.is_some_and(|read_at| event.at > read_at))
    {
        verdict.add(
            Invariant::Time,
            job,
            format!("event {} is in the future", event.seq),
        );
    }
}
