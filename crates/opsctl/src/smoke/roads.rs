//! The roads of `opsctl smoke`: what is sent down each, and what must come of it. Shows nothing.

use std::cell::RefCell;
use std::time::Duration;

use jobs::Name;
use reqwest::Method;
use serde_json::{Value, json};
use service::Secret;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use crate::client::ControlPlane;
use crate::error::Error;
use crate::jobs::{has_ended, status};
use crate::settings::Access;

const PAUSE: Duration = Duration::from_millis(50);

/// A job of ours that nobody takes is not left in the queue for ever.
const TTL_SECONDS: u32 = 600;

/// Every road, in the order in which they are taken.
pub(super) const ROADS: [Road; 9] = [
    Road::Meta,
    Road::Key,
    Road::Submit,
    Road::Log,
    Road::Artifact,
    Road::Trigger,
    Road::Replay,
    Road::Abort,
    Road::Fail,
];

/// One way to use the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Road {
    Meta,
    Key,
    Submit,
    Log,
    Artifact,
    Trigger,
    Replay,
    Abort,
    Fail,
}

impl Road {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Key => "key",
            Self::Submit => "submit",
            Self::Log => "log",
            Self::Artifact => "artifact",
            Self::Trigger => "trigger",
            Self::Replay => "replay",
            Self::Abort => "abort",
            Self::Fail => "fail",
        }
    }
}

/// Where the roads are, and what has been seen on them.
pub(super) struct Trip {
    control_plane: ControlPlane,
    stranger: ControlPlane,
    job_type: Name,
    /// In every payload, so that no answer can be that of an older job.
    mark: String,
    patience: Duration,
    /// The job that succeeded, for the roads that look at what it left.
    done: RefCell<Option<String>>,
    /// The last job that was asked about, and how it was.
    seen: RefCell<String>,
}

/// Nothing, or what is wrong instead.
fn must(right: bool, wrong: impl FnOnce() -> String) -> Result<(), Error> {
    if right {
        Ok(())
    } else {
        Err(Error::Failed(wrong()))
    }
}

fn id(job: &Value) -> Result<String, Error> {
    let id = job.get("id").and_then(Value::as_str);
    id.map(str::to_owned)
        .ok_or_else(|| Error::Failed("the answer names no job".to_owned()))
}

impl Trip {
    pub(super) fn new(access: Access, job_type: Name, patience: Duration) -> Result<Self, Error> {
        let stranger = Access {
            url: access.url.clone(),
            key: Secret::new(service::ids::random_hex::<16>()),
        };
        Ok(Self {
            control_plane: ControlPlane::new(access)?,
            stranger: ControlPlane::new(stranger)?,
            job_type,
            mark: service::ids::random_hex::<8>(),
            patience,
            done: RefCell::default(),
            seen: RefCell::default(),
        })
    }

    /// The job that was waited for, for the message of a road without end.
    pub(super) fn last_seen(&self) -> String {
        self.seen.borrow().clone()
    }

    /// Takes a road; says what it saw.
    pub(super) async fn take(&self, road: Road) -> Result<String, Error> {
        self.seen.borrow_mut().clear();
        match road {
            Road::Meta => self.meta().await,
            Road::Key => self.key().await,
            Road::Submit => self.submit().await,
            Road::Log => self.log().await,
            Road::Artifact => self.artifact().await,
            Road::Trigger => self.trigger().await,
            Road::Replay => self.replay().await,
            Road::Abort => self.abort().await,
            Road::Fail => self.fail().await,
        }
    }

    async fn meta(&self) -> Result<String, Error> {
        let name = String::from(self.job_type.clone());
        // A runner that has just started is known a moment later.
        let begun = tokio::time::Instant::now();
        loop {
            let meta = self.control_plane.get("/meta", &[]).await?;
            let types = meta.get("job_types").and_then(Value::as_array);
            if types.is_some_and(|types| types.iter().any(|one| one == &name)) {
                let version = meta.get("version").and_then(Value::as_str);
                return Ok(format!("version {}", version.unwrap_or("unknown")));
            }
            if begun.elapsed() > self.patience / 2 {
                return Err(Error::Failed(format!(
                    "no live runner serves the type `{name}`: give one the type of docs/operations.md, or name another with --type"
                )));
            }
            sleep(PAUSE).await;
        }
    }

    async fn key(&self) -> Result<String, Error> {
        match self.stranger.get("/meta", &[]).await {
            Err(Error::Refused(refusal)) if refusal.status == 401 => {
                Ok("401 for a wrong key".to_owned())
            }
            Err(error) => Err(error),
            Ok(_) => Err(Error::Failed("a wrong key is accepted".to_owned())),
        }
    }

    async fn submit(&self) -> Result<String, Error> {
        let recorded = self
            .control_plane
            .post("/jobs", &self.job("succeed"), &[])
            .await?;
        must(status(&recorded) == "queued", || {
            format!("a new job is `{}`, not queued", status(&recorded))
        })?;
        let id = self.to_success(&recorded).await?;
        let events = self
            .control_plane
            .get(&format!("/jobs/{id}/events"), &[])
            .await?;
        let kinds = kinds(&events);
        must(kinds.first().is_some_and(|kind| kind == "queued"), || {
            format!("the history of job {id} does not begin with queued: {kinds:?}")
        })?;
        must(kinds.iter().any(|kind| kind == "succeeded"), || {
            format!("the history of job {id} does not tell its success: {kinds:?}")
        })?;
        let saw = format!("job {id} succeeded, {} events", kinds.len());
        *self.done.borrow_mut() = Some(id);
        Ok(saw)
    }

    async fn log(&self) -> Result<String, Error> {
        let id = self.finished()?;
        let text = self
            .control_plane
            .get_text(&format!("/jobs/{id}/log"))
            .await?;
        let text = String::from_utf8_lossy(&text);
        must(text.contains(&self.mark), || {
            format!("the log of job {id} lacks what it printed")
        })?;
        Ok(format!("{} bytes", text.len()))
    }

    async fn artifact(&self) -> Result<String, Error> {
        let id = self.finished()?;
        let path = format!("/jobs/{id}/artifacts");
        let list = self.control_plane.get(&path, &[]).await?;
        let one = list.pointer("/artifacts/0").unwrap_or(&Value::Null);
        let word = |name: &str| one.get(name).and_then(Value::as_str).unwrap_or_default();
        must(word("name") == "smoke.json", || {
            format!("job {id} left no smoke.json")
        })?;
        let answer = self
            .control_plane
            .request(Method::GET, &format!("{path}/smoke.json"));
        let answer = self.control_plane.answer(answer).await?;
        let body = answer.bytes().await;
        let body = body.map_err(|error| self.control_plane.unreachable(error))?;
        let sum: String = Sha256::digest(&body)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        must(sum == word("sha256"), || {
            format!("smoke.json of job {id} is not what its sha256 says")
        })?;
        must(String::from_utf8_lossy(&body).contains(&self.mark), || {
            format!("smoke.json of job {id} is not what the job wrote")
        })?;
        Ok(format!("smoke.json, {} bytes, its sha256 fits", body.len()))
    }

    async fn trigger(&self) -> Result<String, Error> {
        let answer = self
            .control_plane
            .post("/trigger_runner", &self.job("succeed"), &[])
            .await?;
        let outcome = answer.pointer("/trigger/outcome").and_then(Value::as_str);
        let outcome = outcome.unwrap_or_default();
        must(matches!(outcome, "accepted" | "deferred"), || {
            format!("the trigger came to `{outcome}`, neither accepted nor deferred")
        })?;
        let id = self.to_success(&answer["job"]).await?;
        Ok(format!("{outcome}, job {id} succeeded"))
    }

    async fn replay(&self) -> Result<String, Error> {
        let mut body = self.job("succeed");
        let (first, was_replay) = self.keyed(&body).await?;
        must(!was_replay, || {
            "a new key is answered as a replay".to_owned()
        })?;
        let (second, is_replay) = self.keyed(&body).await?;
        must(is_replay && id(&first)? == id(&second)?, || {
            "the same key and body again gave another job, or no `Idempotency-Replayed`".to_owned()
        })?;
        body["payload"]["do"] = "other".into();
        match self.keyed(&body).await {
            Err(Error::Refused(refusal)) if refusal.status == 422 => {}
            Err(error) => return Err(error),
            Ok(_) => {
                return Err(Error::Failed(
                    "the same key with another body is accepted".to_owned(),
                ));
            }
        }
        let id = self.to_success(&first).await?;
        Ok(format!("one job {id}, another body 422"))
    }

    async fn abort(&self) -> Result<String, Error> {
        let recorded = self
            .control_plane
            .post("/trigger_runner", &self.job("sleep"), &[])
            .await?;
        let id = id(&recorded["job"])?;
        self.until(&id, |job| status(job) == "running" || has_ended(job))
            .await?;
        let reason = json!({"reason": "opsctl smoke"});
        self.control_plane
            .post(&format!("/jobs/{id}/abort"), &reason, &[])
            .await?;
        let job = self.until(&id, has_ended).await?;
        must(status(&job) == "aborted", || {
            format!(
                "job {id} was aborted while it ran and is `{}`",
                status(&job)
            )
        })?;
        Ok(format!("job {id} aborted while it ran"))
    }

    async fn fail(&self) -> Result<String, Error> {
        let recorded = self
            .control_plane
            .post("/jobs", &self.job("fail"), &[])
            .await?;
        let id = id(&recorded)?;
        let job = self.until(&id, has_ended).await?;
        must(status(&job) == "failed", || {
            format!("job {id} ended with exit code 1 and is `{}`", status(&job))
        })?;
        let error = job.get("error").and_then(Value::as_str).unwrap_or_default();
        must(!error.is_empty(), || {
            format!("job {id} failed without saying why")
        })?;
        Ok(format!("job {id} failed: {error}"))
    }

    fn job(&self, what: &str) -> Value {
        json!({
            "job_type": String::from(self.job_type.clone()),
            "payload": {"do": what, "mark": self.mark},
            "max_attempts": 1,
            "ttl_seconds": TTL_SECONDS,
            "labels": {"smoke": self.mark},
        })
    }

    /// Records a job under this trip's key; whether the answer says that it was there already.
    async fn keyed(&self, body: &Value) -> Result<(Value, bool), Error> {
        let request = self.control_plane.request(Method::POST, "/jobs").json(body);
        let request = request.header("idempotency-key", format!("smoke-{}", self.mark));
        let answer = self.control_plane.answer(request).await?;
        let replayed = answer.headers().get("idempotency-replayed");
        let replayed = replayed.is_some_and(|word| word.as_bytes() == b"true");
        let job = answer.json().await;
        let job = job.map_err(|error| self.control_plane.unreachable(error))?;
        Ok((job, replayed))
    }

    /// Waits until the job has ended; it must have succeeded with what it was given.
    async fn to_success(&self, recorded: &Value) -> Result<String, Error> {
        let id = id(recorded)?;
        let job = self.until(&id, has_ended).await?;
        must(status(&job) == "succeeded", || {
            let error = job
                .get("error")
                .and_then(Value::as_str)
                .unwrap_or("no error");
            format!("job {id} is `{}`: {error}", status(&job))
        })?;
        must(
            job.pointer("/result/mark") == Some(&json!(self.mark)),
            || format!("the result of job {id} is not what it was given"),
        )?;
        Ok(id)
    }

    async fn until(&self, id: &str, is_there: impl Fn(&Value) -> bool) -> Result<Value, Error> {
        loop {
            let job = self.control_plane.get(&format!("/jobs/{id}"), &[]).await?;
            if is_there(&job) {
                return Ok(job);
            }
            *self.seen.borrow_mut() = format!(
                ": job {id} is `{}`, see `opsctl jobs events {id}`",
                status(&job)
            );
            sleep(PAUSE).await;
        }
    }

    fn finished(&self) -> Result<String, Error> {
        let done = self.done.borrow().clone();
        done.ok_or_else(|| Error::Failed("there is no job to look at: see submit".to_owned()))
    }
}

fn kinds(events: &Value) -> Vec<String> {
    let events = events.get("events").and_then(Value::as_array);
    let kind = |event: &Value| Some(event.get("kind")?.as_str()?.to_owned());
    events.into_iter().flatten().filter_map(kind).collect()
}
