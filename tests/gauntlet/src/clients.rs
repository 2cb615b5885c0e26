//! Clients that want jobs: each request bears one Idempotency-Key and is sent until it is answered for good, to one
//! control plane after the other. They remember what they were told, and every answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::clock;
use crate::history::{Ack, Answer};
use crate::seed::Numbers;
use crate::system::{KEY, System, TOKEN};
use crate::terms::{CANARY, JOB_TYPES};

/// Requests at work at once.
const CLIENTS: usize = 8;
/// No call takes longer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries of one request.
const AGAIN: Duration = Duration::from_millis(150);
/// A request that got no answer so often is given up, and may or may not have its job.
const TRIES: usize = 400;
/// One job in so many is aborted by who asked for it.
const ABORTED: usize = 50;

/// What the clients know in the end.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) acks: Vec<Ack>,
    pub(crate) answers: Vec<Answer>,
    /// Answers that held a secret.
    pub(crate) canaries: Vec<String>,
}

/// Where calls go, and what came of them.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    http: reqwest::Client,
    control_planes: Vec<String>,
    runners: Vec<String>,
    known: Arc<Mutex<Known>>,
}

impl Clients {
    pub(crate) fn of(system: &System) -> Self {
        service::install_crypto();
        Self {
            http: service::http_client::client(PATIENCE, "gauntlet").expect("a client"),
            control_planes: system
                .control_planes
                .iter()
                .map(|service| format!("http://{}/api/v1/ops", service.to_it.address()))
                .collect(),
            runners: system
                .runners
                .iter()
                .map(|service| format!("http://{}", service.to_it.address()))
                .collect(),
            known: Arc::default(),
        }
    }

    /// Asks for so many jobs of all kinds, evenly over `time`, and comes back when each has its answer.
    pub(crate) async fn ask(&self, seed: u64, jobs: usize, time: Duration) {
        let mut asking = JoinSet::new();
        for client in 0..CLIENTS {
            let mine = (client..jobs).step_by(CLIENTS).count();
            asking.spawn(self.clone().one(seed, client, mine, time));
        }
        while let Some(done) = asking.join_next().await {
            done.expect("a client");
        }
    }

    async fn one(self, seed: u64, client: usize, jobs: usize, time: Duration) {
        let mut numbers = Numbers::of(seed ^ (client as u64 + 1) << 32);
        let begun = tokio::time::Instant::now();
        let each = time / u32::try_from(jobs.max(1)).unwrap_or(u32::MAX);
        for number in 0..jobs {
            tokio::time::sleep_until(begun + each * u32::try_from(number).unwrap_or(0)).await;
            let key = format!("{seed}-{client}-{number}");
            let job_type = any_type(&mut numbers);
            // Half of them also nudge a runner.
            let nudged = numbers.index(2) == 0;
            let wait = Duration::from_millis(numbers.between(0, 1500));
            let aborted = numbers.index(ABORTED) == 0;
            let job = self.want(&key, job_type, nudged).await;
            if let Some(job) = job.filter(|_| aborted) {
                tokio::time::sleep(wait).await;
                self.abort(&key, job).await;
            }
        }
    }

    /// Asks for one job until it is there; `None` when that could not be learnt.
    pub(crate) async fn want(&self, key: &str, job_type: &str, nudged: bool) -> Option<Uuid> {
        let (path, good) = if nudged {
            ("trigger_runner", [202, 202])
        } else {
            ("jobs", [200, 201])
        };
        let body = json!({ "job_type": job_type, "payload": { "key": key } });
        let mut job = None;
        for door in self.doors(key.len()) {
            let call = self
                .http
                .post(format!("{door}/{path}"))
                .header("x-ops-key", KEY);
            // A connection of its own: one that is kept open may be closed in the very moment in which it is used again.
            let call = call.header("connection", "close");
            let heard = self
                .call(call.header("idempotency-key", key).json(&body))
                .await;
            job = heard.and_then(|(status, document)| promised(status, &good, &document));
            if job.is_some() {
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        self.acknowledge(key, job);
        job
    }

    /// Asks for the end of a job until somebody answers.
    pub(crate) async fn abort(&self, key: &str, job: Uuid) {
        for door in self.doors(key.len()) {
            let call = self.http.post(format!("{door}/jobs/{job}/abort"));
            match self.call(call.header("x-ops-key", KEY)).await {
                Some((202, _)) => {
                    let now = clock::monotonic();
                    self.note(|known| {
                        let mut mine = known.acks.iter_mut().filter(|ack| ack.key == key);
                        if let Some(ack) = mine.next() {
                            ack.aborted = Some(now);
                        }
                    });
                    return;
                }
                // It had ended.
                Some((409, _)) => return,
                Some(_) | None => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Asks one control plane once for a job that does nothing; gives the status and the job.
    pub(crate) async fn try_once(&self, door: usize, key: &str) -> Option<(u16, Option<Uuid>)> {
        let url = format!("{}/jobs", self.control_planes[door]);
        let call = self.http.post(url).header("x-ops-key", KEY);
        self.try_any(call, key, &[200, 201]).await
    }

    /// Asks one runner once to take a new job that does nothing.
    pub(crate) async fn try_runner(&self, runner: usize, key: &str) -> Option<(u16, Option<Uuid>)> {
        let url = format!("{}/run", self.runners[runner]);
        let call = self.http.post(url).header("x-runner-token", TOKEN);
        self.try_any(call, key, &[202]).await
    }

    async fn try_any(
        &self,
        call: RequestBuilder,
        key: &str,
        good: &[u16],
    ) -> Option<(u16, Option<Uuid>)> {
        let body = json!({ "job_type": "noop", "payload": { "key": key } });
        let call = call.header("connection", "close");
        let heard = self
            .call(call.header("idempotency-key", key).json(&body))
            .await;
        let job = heard
            .as_ref()
            .and_then(|(status, document)| promised(*status, good, document));
        self.acknowledge(key, job);
        heard.map(|(status, _)| (status, job))
    }

    /// What the clients know now; from here on they know nothing.
    pub(crate) fn known(&self) -> Known {
        self.note(std::mem::take)
    }

    /// Every control plane in turn, so often.
    fn doors(&self, first: usize) -> impl Iterator<Item = &String> {
        self.control_planes
            .iter()
            .cycle()
            .skip(first % 2)
            .take(TRIES)
    }

    fn acknowledge(&self, key: &str, job: Option<Uuid>) {
        let key = key.to_owned();
        self.note(|known| {
            known.acks.push(Ack {
                key,
                job,
                aborted: None,
            });
        });
    }

    /// Makes one call and notes its answer.
    async fn call(&self, call: RequestBuilder) -> Option<(u16, Value)> {
        let heard = match call.send().await {
            Ok(answer) => heard(answer).await,
            Err(_) => None,
        };
        let (answer, document) = heard.unwrap_or_else(|| (no_answer(), Value::Null));
        let status = answer.status;
        let leaks = answer.body.contains(CANARY);
        self.note(|known| {
            if leaks {
                known.canaries.push(format!("an answer: {}", answer.body));
            }
            // The bodies of thousands of good answers are of no use to anybody.
            let body = if status < 400 {
                String::new()
            } else {
                answer.body
            };
            known.answers.push(Answer { body, ..answer });
        });
        (status != 0).then_some((status, document))
    }

    fn note<T>(&self, what: impl FnOnce(&mut Known) -> T) -> T {
        what(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn any_type(numbers: &mut Numbers) -> &'static str {
    let total: usize = JOB_TYPES.iter().map(|job_type| job_type.share).sum();
    let mut left = numbers.index(total);
    for job_type in JOB_TYPES {
        if left < job_type.share {
            return job_type.name;
        }
        left -= job_type.share;
    }
    JOB_TYPES[0].name
}

/// The job that an answer promises. A trigger that could not be sent has recorded its job all the same, and says so.
fn promised(status: u16, good: &[u16], document: &Value) -> Option<Uuid> {
    let id = ["id", "job_id"]
        .into_iter()
        .find_map(|name| document[name].as_str())
        .or_else(|| document["job"]["id"].as_str());
    id?.parse()
        .ok()
        .filter(|_| good.contains(&status) || document["job_id"].is_string())
}

async fn heard(answer: Response) -> Option<(Answer, Value)> {
    let status = answer.status().as_u16();
    let retry_after = answer.headers().contains_key("retry-after");
    let kind = answer.headers().get("content-type");
    let is_problem =
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
    let body = answer.text().await.ok()?;
    let document: Value = serde_json::from_str(&body).unwrap_or_default();
    let answer = Answer {
        status,
        at: clock::wall(),
        problem: is_problem && document["request_id"].is_string(),
        retry_after,
        body,
    };
    Some((answer, document))
}

fn no_answer() -> Answer {
    Answer {
        status: 0,
        at: clock::wall(),
        problem: false,
        retry_after: false,
        body: String::new(),
    }
}
