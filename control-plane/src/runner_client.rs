//! The nudge: tells the runner to take a queued job, and reads its answer. Bounded in time and size; changes no row.

use std::fmt;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use jobs::{Status, Trigger, TriggerAccepted, storable_text};
use reqwest::Response;
use service::trace::{Carried, Role, Tracing};
use service::{Secret, http_client};
use url::Url;
use uuid::Uuid;

use crate::config::RunnerAddress;
use crate::error::chain;

/// More than this, nobody reads of a runner's answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// More than this, nobody keeps of a runner's reason, in bytes.
const MAX_REASON_BYTES: usize = 1000;

/// What came of a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TriggerAnswer {
    /// The runner runs the job.
    Accepted,
    /// The runner has no free slot, or is shutting down: the job waits.
    Busy,
    /// The runner found the job not queued, or not to be taken now.
    NotQueued,
    /// The runner will never take the job; with its reason, in a form that can be stored.
    Refused(Refusal, String),
    /// The runner could not be reached.
    Unreachable,
    /// What answered was no runner of ours, or one that does not know our token; with the status that it gave.
    Strange(u16),
    /// Nothing is known: the answer did not come in time.
    TooSlow,
}

/// What of a job a runner refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its type, which another runner may take.
    Type,
    /// Its payload.
    Payload,
}

/// As it stands with the job.
impl fmt::Display for TriggerAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Busy => f.write_str("deferred"),
            Self::NotQueued => f.write_str("not_queued"),
            Self::Refused(_, why) => write!(f, "refused: {why}"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Strange(status) => write!(f, "strange: {status}"),
            Self::TooSlow => f.write_str("too_slow"),
        }
    }
}

/// Sends triggers to the one runner address.
pub(crate) struct RunnerClient {
    http: reqwest::Client,
    /// For asking again: where one kept connection has ended, all of them may have.
    unpooled: reqwest::Client,
    url: Url,
    token: Secret,
    timeout: Duration,
}

/// A trigger whose connection ended without an answer is asked again after each of these. A kept connection may end just as it is
/// used, whenever a runner is replaced, and a balancer needs a moment to see that the old one has gone. Asking again is safe: a job is
/// claimed once, however often it is triggered.
const PAUSES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(250)];

impl RunnerClient {
    /// Prepares the client; connects to nothing.
    pub(crate) fn new(address: &RunnerAddress) -> Result<Self, reqwest::Error> {
        let user_agent = concat!("ops-jobs-control-plane/", env!("CARGO_PKG_VERSION"));
        Ok(Self {
            http: http_client::client(address.timeout, user_agent)?,
            unpooled: http_client::unpooled(address.timeout, user_agent)?,
            url: run_url(&address.url),
            token: address.token.clone(),
            timeout: address.timeout,
        })
    }

    /// Asks the runner to take the job; whatever goes wrong is an answer too.
    pub(crate) async fn trigger(
        &self,
        job_id: Uuid,
        request_id: &str,
        tracing: &Tracing,
        cause: Option<&Carried>,
    ) -> TriggerAnswer {
        let mut span = tracing.begin(Role::Client, cause, || {
            let attributes = [
                ("http.request.method", "POST".into()),
                ("messaging.message.id", job_id.to_string().into()),
            ];
            ("POST /run".to_owned(), attributes)
        });
        let answer = self
            .trigger_as(job_id, request_id, span.carried().as_ref())
            .await;
        match answer {
            TriggerAnswer::Accepted | TriggerAnswer::Busy | TriggerAnswer::NotQueued => {}
            TriggerAnswer::Refused(_, _) => span.fail("refused"),
            TriggerAnswer::Unreachable => span.fail("unreachable"),
            TriggerAnswer::Strange(_) => span.fail("strange"),
            TriggerAnswer::TooSlow => span.fail("timeout"),
        }
        answer
    }

    async fn trigger_as(
        &self,
        job_id: Uuid,
        request_id: &str,
        span: Option<&Carried>,
    ) -> TriggerAnswer {
        let asked_at = Instant::now();
        let ask = |http, timeout| self.ask(http, job_id, request_id, span, timeout);
        let mut answer = ask(&self.http, self.timeout).await;
        for pause in PAUSES {
            if !answer.as_ref().is_err_and(broke_off) {
                break;
            }
            tokio::time::sleep(pause).await;
            let left = self.timeout.saturating_sub(asked_at.elapsed());
            answer = ask(&self.unpooled, left).await;
        }
        answer.unwrap_or_else(|error| explain(error, job_id))
    }

    async fn ask(
        &self,
        http: &reqwest::Client,
        job_id: Uuid,
        request_id: &str,
        span: Option<&Carried>,
        timeout: Duration,
    ) -> Result<TriggerAnswer, reqwest::Error> {
        let mut request = http
            .post(self.url.clone())
            .timeout(timeout)
            .header("X-Runner-Token", self.token.expose())
            .header("X-Request-Id", request_id);
        if let Some(span) = span {
            request = request.header("traceparent", &span.traceparent);
            if let Some(state) = &span.tracestate {
                request = request.header("tracestate", state);
            }
        }
        let response = request.json(&Trigger { job_id }).send().await?;
        read(response, job_id).await
    }
}

/// The base address with `/run` appended to whatever path it has.
fn run_url(base: &Url) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push("run");
    }
    url
}

async fn read(response: Response, job_id: Uuid) -> Result<TriggerAnswer, reqwest::Error> {
    let status = response.status();
    let body = read_bounded(response).await?;
    let answer = answer_of(status, &body, job_id);
    if let TriggerAnswer::Strange(status) = answer {
        tracing::warn!(event = "trigger_failed", %job_id, status, "what answered is no runner of ours");
    }
    Ok(answer)
}

/// The body, or nothing where it is longer than any answer of ours.
async fn read_bounded(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Ok(Vec::new());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn answer_of(status: StatusCode, body: &[u8], job_id: Uuid) -> TriggerAnswer {
    match status.as_u16() {
        202 => match serde_json::from_slice::<TriggerAccepted>(body) {
            Ok(accepted) if accepted.job_id == job_id && accepted.status == Status::Running => {
                TriggerAnswer::Accepted
            }
            Ok(_) | Err(_) => TriggerAnswer::Strange(202),
        },
        403 => TriggerAnswer::Refused(Refusal::Type, reason(status, body)),
        422 => TriggerAnswer::Refused(Refusal::Payload, reason(status, body)),
        409 => TriggerAnswer::NotQueued,
        429 | 503 => TriggerAnswer::Busy,
        other => TriggerAnswer::Strange(other),
    }
}

/// Why the runner refused: the `detail` of its problem document with the fields it names, or its status where it sent none.
fn reason(status: StatusCode, body: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match document.get("detail").and_then(serde_json::Value::as_str) {
        Some(detail) => {
            let fields = document.get("errors").and_then(serde_json::Value::as_array);
            let fields = fields.into_iter().flatten().filter_map(|error| {
                Some(format!(
                    "{} {}",
                    error.get("field")?.as_str()?,
                    error.get("detail")?.as_str()?
                ))
            });
            let parts: Vec<String> = std::iter::once(detail.to_owned()).chain(fields).collect();
            storable_text(&parts.join("; "), MAX_REASON_BYTES)
        }
        None => format!("it answered {}", status.as_u16()),
    }
}

/// The connection was there, and ended without an answer.
fn broke_off(error: &reqwest::Error) -> bool {
    !error.is_connect() && !error.is_timeout()
}

fn explain(error: reqwest::Error, job_id: Uuid) -> TriggerAnswer {
    // A connection that was never made has carried nothing, however long it took.
    let answer = match error.is_timeout() && !error.is_connect() {
        true => TriggerAnswer::TooSlow,
        false => TriggerAnswer::Unreachable,
    };
    tracing::warn!(event = "trigger_failed", %job_id, error = %chain(&error.without_url()));
    answer
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::Barrier;
    use tokio::task::JoinSet;

    use super::*;

    const JOB: Uuid = Uuid::from_u128(7);

    fn answer(status: u16, body: &str) -> TriggerAnswer {
        answer_of(
            StatusCode::from_u16(status).expect("a status"),
            body.as_bytes(),
            JOB,
        )
    }

    fn accepted(job_id: Uuid, status: &str) -> String {
        format!(r#"{{"job_id":"{job_id}","status":"{status}","attempt":1,"runner_id":"r"}}"#)
    }

    async fn listener_and_client() -> (TcpListener, RunnerClient) {
        service::install_crypto();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let client = RunnerClient::new(&RunnerAddress {
            url: url.parse().expect("an address"),
            token: Secret::new("a token of a test"),
            timeout: Duration::from_secs(20),
        });
        (listener, client.expect("a client"))
    }

    /// Answers the first request of each connection, once two connections have been made, and ends it at the second.
    async fn answer_once_a_connection(listener: TcpListener) {
        let (mut connections, both) = (JoinSet::new(), Arc::new(Barrier::new(2)));
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let both = Arc::clone(&both);
            connections.spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    stream.read_buf(&mut request).await.expect("a request");
                }
                if number < 2 {
                    both.wait().await;
                }
                let body = accepted(JOB, "running");
                let answer = format!(
                    "HTTP/1.1 202 Accepted\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.expect("answered");
                let _ = stream.read_buf(&mut request).await;
            });
        }
    }

    #[tokio::test]
    async fn where_every_kept_connection_has_ended_a_trigger_goes_by_a_new_one() {
        let (listener, client) = listener_and_client().await;
        let mut server = JoinSet::new();
        server.spawn(answer_once_a_connection(listener));
        let tracing = Tracing::default();
        let trigger = || client.trigger(JOB, "a request", &tracing, None);
        let kept = tokio::join!(trigger(), trigger());
        assert_eq!(kept, (TriggerAnswer::Accepted, TriggerAnswer::Accepted));
        assert_eq!(trigger().await, TriggerAnswer::Accepted);
    }

    #[tokio::test]
    async fn a_trigger_finds_the_new_runner_where_new_connections_still_went_to_the_old_one() {
        let (listener, client) = listener_and_client().await;
        let mut server = JoinSet::new();
        server.spawn(async move {
            // A balancer that has nobody to pass them on to: each trigger is cut off twice.
            for _ in 0..4 {
                drop(listener.accept().await.expect("a connection"));
            }
            answer_once_a_connection(listener).await;
        });
        let tracing = Tracing::default();
        let trigger = || client.trigger(JOB, "a request", &tracing, None);
        let (first, second) = tokio::join!(trigger(), trigger());
        assert_eq!(first, TriggerAnswer::Accepted);
        assert_eq!(second, TriggerAnswer::Accepted);
    }

    #[test]
    fn only_our_own_202_is_an_acceptance() {
        assert_eq!(
            answer(202, &accepted(JOB, "running")),
            TriggerAnswer::Accepted
        );
        for (status, body) in [
            (202, accepted(Uuid::from_u128(8), "running")),
            (202, accepted(JOB, "queued")),
            (202, String::new()),
            (202, "<html>".to_owned()),
            (200, accepted(JOB, "running")),
            (302, String::new()),
            (400, String::new()),
            (401, String::new()),
            (404, String::new()),
            (500, String::new()),
            (504, String::new()),
        ] {
            assert_eq!(
                answer(status, &body),
                TriggerAnswer::Strange(status),
                "{status} {body}"
            );
        }
    }

    #[test]
    fn a_busy_runner_defers_and_a_refusing_one_says_why() {
        assert_eq!(answer(429, ""), TriggerAnswer::Busy);
        assert_eq!(answer(503, ""), TriggerAnswer::Busy);
        assert_eq!(answer(409, ""), TriggerAnswer::NotQueued);
        assert_eq!(
            answer(403, r#"{"detail":"not\u0000allowed"}"#),
            TriggerAnswer::Refused(Refusal::Type, "not\u{fffd}allowed".into())
        );
        assert_eq!(
            answer(422, "<html>"),
            TriggerAnswer::Refused(Refusal::Payload, "it answered 422".into())
        );
    }

    #[test]
    fn run_is_appended_to_whatever_path_the_address_has() {
        for (base, url) in [
            ("https://h", "https://h/run"),
            ("https://h:1/", "https://h:1/run"),
            ("https://h/a/b", "https://h/a/b/run"),
            ("https://h/a/?x=1#y", "https://h/a/run"),
        ] {
            assert_eq!(run_url(&base.parse().expect("an address")).as_str(), url);
        }
    }
}
