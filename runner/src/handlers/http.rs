//! Job types declared with `http`: the payload is sent as JSON to a fixed address, and the answer is the outcome.
//! Redirects are not followed, and no error bears the address, which may hold a secret.

use std::time::Duration;

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::Handler;
use crate::config::HttpCall;
use crate::context::Context;
use crate::error::JobError;

/// Where neither the job nor its type names a limit.
pub(crate) const USUAL_LIMIT: Duration = Duration::from_secs(300);

const LARGEST_RESULT: usize = 1024 * 1024;

/// Sends one request an attempt.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) client: Client,
    pub(crate) call: HttpCall,
}

impl Handler for Http {
    type Payload = Value;
    type Output = Value;

    async fn run(&self, context: &Context, payload: Value) -> Result<Value, JobError> {
        tokio::select! {
            answer = self.send(context, &payload) => answer,
            () = context.cancelled() => Err(JobError::retry("cancelled")),
        }
    }
}

impl Http {
    async fn send(&self, context: &Context, payload: &Value) -> Result<Value, JobError> {
        let mut request = self
            .client
            .request(self.call.method.clone(), self.call.url.clone())
            .timeout(context.timeout.unwrap_or(USUAL_LIMIT))
            .headers(self.call.headers.clone())
            .header("X-Ops-Job-Id", context.job_id().to_string())
            .header("X-Ops-Attempt", context.attempt())
            .header("X-Ops-Fence", context.fence());
        if let Some(stage) = context.stage() {
            request = request.header("X-Ops-Stage", stage.name.as_str());
        }
        if let Some((parent, state)) = context.trace() {
            request = request.header("traceparent", parent);
            if let Some(state) = state {
                request = request.header("tracestate", state);
            }
        }
        if self.call.method != Method::GET {
            request = request.json(payload);
        }
        let response = request.send().await.map_err(not_reached)?;
        let status = response.status();
        match self.verdict(status) {
            Verdict::Succeeded => read(response).await,
            Verdict::Retry => Err(JobError::retry(format!("answered {status}"))),
            Verdict::Failed => Err(JobError::fail(format!("answered {status}"))),
        }
    }

    fn verdict(&self, status: StatusCode) -> Verdict {
        if self.call.expect.contains(&status)
            || (self.call.expect.is_empty() && status.is_success())
        {
            Verdict::Succeeded
        } else if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) {
            Verdict::Retry
        } else {
            Verdict::Failed
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Succeeded,
    Retry,
    Failed,
}

fn not_reached(error: reqwest::Error) -> JobError {
    let why = if error.is_timeout() {
        "was too slow"
    } else {
        "could not be reached"
    };
    tracing::debug!(event = "http_failed", error = %error.without_url());
    JobError::retry(format!("the address {why}"))
}

/// The body where it is JSON and not too large, else the status alone.
async fn read(mut response: Response) -> Result<Value, JobError> {
    let status = json!({ "status": response.status().as_u16() });
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(not_reached)? {
        body.extend_from_slice(&piece);
        if body.len() > LARGEST_RESULT {
            return Ok(status);
        }
    }
    Ok(serde_json::from_slice(&body).unwrap_or(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(expect: &[u16]) -> Http {
        service::install_crypto();
        let expect = expect
            .iter()
            .map(|status| StatusCode::from_u16(*status).expect("a status"))
            .collect();
        let url = "http://127.0.0.1/".parse().expect("an address");
        Http {
            client: service::http_client::client(USUAL_LIMIT, "test").expect("a client"),
            call: HttpCall {
                method: Method::POST,
                url,
                headers: reqwest::header::HeaderMap::new(),
                expect,
            },
        }
    }

    #[test]
    fn the_status_decides_the_outcome() {
        let verdict = |expect: &[u16], status: u16| {
            http(expect).verdict(StatusCode::from_u16(status).expect("a status"))
        };
        for (status, expected) in [
            (200, Verdict::Succeeded),
            (204, Verdict::Succeeded),
            (302, Verdict::Failed),
            (404, Verdict::Failed),
            (408, Verdict::Retry),
            (425, Verdict::Retry),
            (429, Verdict::Retry),
            (500, Verdict::Retry),
            (503, Verdict::Retry),
        ] {
            assert_eq!(verdict(&[], status), expected, "{status}");
        }
        assert_eq!(verdict(&[202], 200), Verdict::Failed);
        assert_eq!(verdict(&[404], 404), Verdict::Succeeded);
    }
}
