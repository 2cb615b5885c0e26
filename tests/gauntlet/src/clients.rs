//! Clients that want jobs: each request bears one Idempotency-Key and is sent until it is answered for good, to one
//! control plane after the other. They remember what they were told, and every answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::history::{Ack, Answer};
use crate::seed::Numbers;
use crate::system::{JOB_TYPES, KEY, System};

/// Requests at work at once.
const CLIENTS: usize = 8;
/// No call takes longer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries of one request.
const AGAIN: Duration = Duration::from_millis(150);
/// A request that got no answer so often is given up, and may or may not have its job.
const TRIES: usize = 400;

/// What the clients know in the end.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) acks: Vec<Ack>,
    pub(crate) answers: Vec<Answer>,
}

/// Where calls go.
#[derive(Clone, Debug)]
struct Doors {
    http: reqwest::Client,
    urls: Vec<String>,
    known: Arc<Mutex<Known>>,
}

/// Asks for so many jobs, evenly over `time`, and comes back when each has its answer.
pub(crate) async fn ask(system: &System, seed: u64, jobs: usize, time: Duration) -> Known {
    service::install_crypto();
    let doors = Doors {
        http: service::http_client::client(PATIENCE, "gauntlet").expect("a client"),
        urls: system
            .control_planes
            .iter()
            .map(|service| format!("http://{}/api/v1/ops", service.to_it.address()))
            .collect(),
        known: Arc::default(),
    };
    let mut asking = JoinSet::new();
    for client in 0..CLIENTS {
        let mine = (client..jobs).step_by(CLIENTS).count();
        asking.spawn(one(doors.clone(), seed, client, mine, time));
    }
    while let Some(done) = asking.join_next().await {
        done.expect("a client");
    }
    std::mem::take(&mut *doors.known.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn one(doors: Doors, seed: u64, client: usize, jobs: usize, time: Duration) {
    let mut numbers = Numbers::of(seed ^ (client as u64 + 1) << 32);
    let begun = tokio::time::Instant::now();
    let each = time / u32::try_from(jobs.max(1)).unwrap_or(u32::MAX);
    for number in 0..jobs {
        tokio::time::sleep_until(begun + each * u32::try_from(number).unwrap_or(0)).await;
        let job = request(&doors, &format!("{seed}-{client}-{number}"), &mut numbers).await;
        doors.note(|known| known.acks.push(job));
    }
}

async fn request(doors: &Doors, key: &str, numbers: &mut Numbers) -> Ack {
    let total: usize = JOB_TYPES.iter().map(|(_, share)| share).sum();
    let mut left = numbers.index(total);
    let (job_type, _) = JOB_TYPES
        .into_iter()
        .find(|(_, share)| {
            let here = left < *share;
            left = left.saturating_sub(*share);
            here
        })
        .unwrap_or(JOB_TYPES[0]);
    let body = json!({ "job_type": job_type, "payload": { "key": key } });
    // Half of them also nudge a runner.
    let (path, status) = if numbers.index(2) == 0 {
        ("jobs", [200, 201])
    } else {
        ("trigger_runner", [202, 202])
    };
    let mut door = numbers.index(doors.urls.len());
    for _ in 0..TRIES {
        let call = doors
            .http
            .post(format!("{}/{path}", doors.urls[door]))
            .header("x-ops-key", KEY);
        let answer = call.header("idempotency-key", key).json(&body).send().await;
        if let Ok(answer) = answer
            && let Some(job) = doors.hear(answer, &status).await
        {
            return Ack {
                key: key.to_owned(),
                job: Some(job),
            };
        }
        door = (door + 1) % doors.urls.len();
        tokio::time::sleep(AGAIN).await;
    }
    Ack {
        key: key.to_owned(),
        job: None,
    }
}

impl Doors {
    /// Notes the answer; gives the job where it promises one.
    async fn hear(&self, answer: reqwest::Response, good: &[u16]) -> Option<uuid::Uuid> {
        let status = answer.status().as_u16();
        let retry_after = answer.headers().contains_key("retry-after");
        let body = answer.text().await.ok()?;
        let document: Value = serde_json::from_str(&body).unwrap_or_default();
        let promised = good.contains(&status);
        self.note(|known| {
            known.answers.push(Answer {
                status,
                retry_after,
                body: if promised { String::new() } else { body },
            });
        });
        // A trigger that could not be sent has recorded its job all the same, and says so.
        let id = ["id", "job_id"]
            .into_iter()
            .find_map(|name| document[name].as_str())
            .or_else(|| document["job"]["id"].as_str());
        id?.parse()
            .ok()
            .filter(|_| promised || document["job_id"].is_string())
    }

    fn note(&self, what: impl FnOnce(&mut Known)) {
        what(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
