//! One round: takes what is due, sends it side by side, and records each attempt as it ends. A round that is cut off loses
//! nothing: what it had not recorded is sent again, under the same id, once its time is over.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jobs::{ClaimedDelivery, Store, StoreError, WebhookRecord};
use service::{Egress, http_client};

use crate::attempt::attempt;
use crate::signing::SigningKeys;

/// So many deliveries a round; the others are the next one's, or another sender's.
const MOST: i32 = 16;

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Deliveries that arrived.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Deliveries that were given up.
    pub dead: u64,
}

impl Round {
    /// Whether there was anything to send.
    pub fn found_work(&self) -> bool {
        self.delivered + self.failed > 0
    }
}

/// Sends what is due, as one of any number of senders.
#[derive(Debug)]
pub struct Sender {
    store: Store,
    keys: SigningKeys,
    egress: Egress,
    http: reqwest::Client,
}

impl Sender {
    /// The longest that an endpoint may ask for.
    pub const LONGEST: Duration = Duration::from_secs(30);

    /// Prepares it; connects to nothing.
    ///
    /// # Errors
    /// When no client can be made here.
    pub fn new(store: Store, keys: SigningKeys, egress: Egress) -> Result<Self, reqwest::Error> {
        let user_agent = concat!("ops-jobs-webhooks/", env!("CARGO_PKG_VERSION"));
        Ok(Self {
            http: http_client::guarded(&egress, Self::LONGEST, user_agent)?,
            store,
            keys,
            egress,
        })
    }

    /// What may be called.
    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Sends what is due, at most some of it; no attempt takes longer than its endpoint and `longest` allow.
    ///
    /// # Errors
    /// When the database does not answer; what was sent and not recorded is sent again.
    pub async fn round(&self, actor: &str, longest: Duration) -> Result<Round, StoreError> {
        let claimed = self
            .store
            .claim_deliveries(actor, &self.keys.ids(), MOST)
            .await?;
        let mut under_way: FuturesUnordered<_> = claimed
            .iter()
            .map(|delivery| self.deliver(actor, delivery, longest))
            .collect();
        let mut round = Round::default();
        let mut failed = None;
        while let Some(recorded) = under_way.next().await {
            match recorded {
                Ok(WebhookRecord::Delivered) => round.delivered += 1,
                Ok(WebhookRecord::Retry | WebhookRecord::Late) => round.failed += 1,
                Ok(WebhookRecord::Dead | WebhookRecord::Disabled) => {
                    round.failed += 1;
                    round.dead += 1;
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(round), Err)
    }

    async fn deliver(
        &self,
        actor: &str,
        delivery: &ClaimedDelivery,
        longest: Duration,
    ) -> Result<WebhookRecord, StoreError> {
        let outcome = attempt(&self.http, &self.egress, &self.keys, delivery, longest).await;
        let record = self
            .store
            .record_attempt(actor, delivery.id, delivery.attempt, &outcome)
            .await?;
        match record {
            WebhookRecord::Delivered => tracing::debug!(
                event = "webhook_delivered",
                webhook = delivery.webhook,
                delivery = %delivery.id,
                status = outcome.status,
                duration_ms = outcome.duration_ms
            ),
            WebhookRecord::Retry | WebhookRecord::Dead | WebhookRecord::Late => tracing::warn!(
                event = "webhook_failed",
                webhook = delivery.webhook,
                delivery = %delivery.id,
                attempt = delivery.attempt,
                became = record.as_str(),
                error = outcome.error
            ),
            WebhookRecord::Disabled => tracing::error!(
                event = "webhook_disabled",
                webhook = delivery.webhook,
                delivery = %delivery.id,
                error = outcome.error,
                "nothing is sent to it until somebody switches it on"
            ),
        }
        Ok(record)
    }
}
