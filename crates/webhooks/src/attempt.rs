//! One attempt: the request, its answer, and why it failed in words that hold neither a secret nor an address.

use std::time::{Duration, Instant};

use jobs::{ClaimedDelivery, WebhookOutcome};
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use service::{Egress, http_client};

use crate::signing::{Message, SigningKeys};

/// Sends a delivery once; whatever goes wrong is an outcome too. Reads nothing of an answer but its head: what a receiver
/// says may be anything, and of any size.
pub(crate) async fn attempt(
    http: &reqwest::Client,
    egress: &Egress,
    keys: &SigningKeys,
    delivery: &ClaimedDelivery,
    longest: Duration,
) -> WebhookOutcome {
    let begun = Instant::now();
    let sent = send(http, egress, keys, delivery, longest).await;
    let duration_ms = i32::try_from(begun.elapsed().as_millis()).unwrap_or(i32::MAX);
    match sent {
        Ok(answer) => WebhookOutcome {
            status: Some(i32::from(answer.status.as_u16())),
            error: answer.error(),
            duration_ms,
            retry_after: answer.retry_after,
            gone: answer.status == StatusCode::GONE,
        },
        Err(why) => WebhookOutcome {
            status: None,
            error: Some(why),
            duration_ms,
            retry_after: None,
            gone: false,
        },
    }
}

struct Answer {
    status: StatusCode,
    /// Seconds.
    retry_after: Option<i32>,
}

impl Answer {
    fn error(&self) -> Option<String> {
        if self.status.is_success() {
            None
        } else if self.status.is_redirection() {
            Some(format!(
                "answered {}: redirects are not followed, give the endpoint its final address",
                self.status.as_u16()
            ))
        } else {
            Some(format!("answered {}", self.status.as_u16()))
        }
    }
}

async fn send(
    http: &reqwest::Client,
    egress: &Egress,
    keys: &SigningKeys,
    delivery: &ClaimedDelivery,
    longest: Duration,
) -> Result<Answer, String> {
    let timeout = Duration::from_secs(delivery.timeout_seconds.unsigned_abs().into());
    // Made by hand in the database, or before the settings were what they are.
    let url = egress
        .check(&delivery.url)
        .map_err(|why| format!("the address {why}"))?;
    let id = delivery.id.to_string();
    let message = Message {
        id: &id,
        unix_seconds: delivery.unix_seconds,
        body: &delivery.body,
    };
    let signatures = keys.signatures(
        delivery.webhook_id,
        delivery.secret_version,
        delivery.old_secret,
        &message,
    );
    let request = http
        .post(url)
        .timeout(timeout.min(longest))
        .header("content-type", "application/json")
        .header("webhook-timestamp", delivery.unix_seconds.to_string())
        .header("webhook-signature", signatures)
        .header("webhook-id", &id)
        .body(delivery.body.clone());
    let response = request
        .send()
        .await
        .map_err(|error| http_client::why(&error))?;
    let retry_after = response.headers().get(RETRY_AFTER);
    Ok(Answer {
        status: response.status(),
        retry_after: retry_after
            .and_then(|value| value.to_str().ok()?.trim().parse::<i32>().ok())
            .filter(|seconds| *seconds >= 0),
    })
}
