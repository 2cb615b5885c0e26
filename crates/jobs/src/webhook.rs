//! Webhooks: endpoints that are told what happens to jobs, and what is told them. Pure; the database writes deliveries.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::name::Name;

/// The kinds of events that an endpoint may choose.
pub const WEBHOOK_KINDS: [&str; 21] = [
    "queued",
    "running",
    "succeeded",
    "failed",
    "dead_lettered",
    "aborted",
    "retry_scheduled",
    "lease_expired",
    "held",
    "released",
    "resumed",
    "replayed",
    "abort_requested",
    "stale_result_refused",
    "stage_queued",
    "stage_succeeded",
    "gate_opened",
    "gate_approval",
    "gate_approved",
    "gate_rejected",
    "gate_expired",
];

/// The kinds that an endpoint is told of unless it chooses.
pub const USUAL_WEBHOOK_KINDS: [&str; 5] = [
    "succeeded",
    "failed",
    "dead_lettered",
    "aborted",
    "gate_opened",
];

/// What an endpoint is called: `[a-z0-9][a-z0-9_.-]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct WebhookName(String);

impl WebhookName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WebhookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<WebhookName> for String {
    fn from(name: WebhookName) -> Self {
        name.0
    }
}

impl FromStr for WebhookName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b);
        let starts_well = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if starts_well && text.len() <= 64 && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must match [a-z0-9][a-z0-9_.-]{0,63}".to_owned())
        }
    }
}

/// What an endpoint wants, already parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookTerms {
    /// Where deliveries are posted.
    pub url: String,
    /// The kinds of events.
    pub events: Vec<String>,
    /// Only of jobs of these types; `None`: of all.
    pub job_types: Option<Vec<Name>>,
    /// Only of jobs of these queues; `None`: of all.
    pub queues: Option<Vec<Name>>,
    /// Whether deliveries hold the job's payload.
    pub with_payload: bool,
    /// Whether deliveries hold the job's result.
    pub with_result: bool,
    /// How long an attempt may take, in seconds.
    pub timeout_seconds: i32,
    /// After how long a delivery is given up, in seconds.
    pub give_up_after_seconds: i32,
    /// After how long without any success the endpoint is disabled, in seconds.
    pub disable_after_seconds: i32,
}

impl WebhookTerms {
    /// The usual events to an address, everything else by default.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            events: USUAL_WEBHOOK_KINDS.map(str::to_owned).to_vec(),
            job_types: None,
            queues: None,
            with_payload: false,
            with_result: false,
            timeout_seconds: 10,
            give_up_after_seconds: 3 * 86_400,
            disable_after_seconds: 5 * 86_400,
        }
    }
}

/// An endpoint as it stands in `ops_webhooks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// What it is called.
    pub name: WebhookName,
    /// What its secret is derived from, among other things.
    pub id: Uuid,
    /// What it wants.
    pub terms: WebhookTerms,
    /// Whether it is told anything.
    pub enabled: bool,
    /// Since when it is not.
    pub disabled_at: Option<OffsetDateTime>,
    /// By whom.
    pub disabled_by: Option<String>,
    /// Why.
    pub disabled_reason: Option<String>,
    /// Since when no attempt has succeeded.
    pub failing_since: Option<OffsetDateTime>,
    /// Counts the rotations of its secret.
    pub secret_version: i32,
    /// Until when the secret before holds too.
    pub old_secret_until: Option<OffsetDateTime>,
    /// Which key its secret is derived from.
    pub signing_key_id: Option<String>,
    /// Grows with each change.
    pub revision: i64,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: OffsetDateTime,
    /// Who changed it last.
    pub updated_by: String,
    /// When.
    pub updated_at: OffsetDateTime,
    /// How many deliveries wait.
    pub pending: i64,
    /// How many were given up, of those that are kept.
    pub dead: i64,
}

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It waits to be sent, or is being sent.
    Pending,
    /// It arrived.
    Delivered,
    /// It was given up.
    Dead,
}

impl DeliveryState {
    /// Its word, in SQL, JSON and logs alike.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

impl FromStr for DeliveryState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pending" => Ok(Self::Pending),
            "delivered" => Ok(Self::Delivered),
            "dead" => Ok(Self::Dead),
            _ => Err("must be pending, delivered or dead".to_owned()),
        }
    }
}

/// A message to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its id, the same in each attempt.
    pub id: Uuid,
    /// The kind of its event; `ping` for a trial.
    pub kind: String,
    /// The job; `None`: a trial.
    pub job_id: Option<Uuid>,
    /// The number of the event within its job.
    pub event_seq: Option<i32>,
    /// What is posted.
    pub body: String,
    /// Where it is.
    pub state: DeliveryState,
    /// How often it was taken to be sent.
    pub attempts: i32,
    /// When it is to be sent next.
    pub due_at: OffsetDateTime,
    /// From when on a failure is the last.
    pub give_up_at: OffsetDateTime,
    /// Who is sending it just now.
    pub sender: Option<String>,
    /// What the receiver last answered.
    pub last_status: Option<i32>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When the event happened.
    pub created_at: OffsetDateTime,
    /// When it was delivered or given up.
    pub ended_at: Option<OffsetDateTime>,
}

/// One attempt to deliver a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// 1, 2, 3 …
    pub attempt: i32,
    /// When it was taken to be sent.
    pub at: OffsetDateTime,
    /// Who sent it.
    pub sender: String,
    /// What the receiver answered.
    pub status: Option<i32>,
    /// Why it failed.
    pub error: Option<String>,
    /// How long it took; `None`: its sender was lost before it could say.
    pub duration_ms: Option<i32>,
}

/// A delivery that is to be sent now, once, by whoever claimed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedDelivery {
    /// Its id.
    pub id: Uuid,
    /// The number of the attempt: what is recorded of it names this.
    pub attempt: i32,
    /// When that begins, in seconds since 1970 by the database's clock.
    pub unix_seconds: i64,
    /// What is posted.
    pub body: String,
    /// Where to.
    pub url: String,
    /// How long it may take.
    pub timeout_seconds: i32,
    /// The endpoint's id.
    pub webhook_id: Uuid,
    /// The endpoint.
    pub webhook: String,
    /// Which secret it is signed with.
    pub secret_version: i32,
    /// Whether the one before is to sign too.
    pub old_secret: bool,
}

/// How an attempt went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookOutcome {
    /// What the receiver answered.
    pub status: Option<i32>,
    /// Why it failed; `None`: it did not. Holds no secret and no address.
    pub error: Option<String>,
    /// How long it took.
    pub duration_ms: i32,
    /// The receiver asked to be left alone for so many seconds.
    pub retry_after: Option<i32>,
    /// The receiver says that it is gone for good.
    pub gone: bool,
}

/// What came of a recorded attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookRecord {
    /// It arrived.
    Delivered,
    /// It is tried again later.
    Retry,
    /// It was given up.
    Dead,
    /// The endpoint was disabled because of it.
    Disabled,
    /// It was no longer the newest: another sender has it.
    Late,
}

impl WebhookRecord {
    /// Its word, in SQL and logs alike.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::Dead => "dead",
            Self::Disabled => "disabled",
            Self::Late => "late",
        }
    }
}

impl FromStr for WebhookRecord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "delivered" => Ok(Self::Delivered),
            "retry" => Ok(Self::Retry),
            "dead" => Ok(Self::Dead),
            "disabled" => Ok(Self::Disabled),
            "late" => Ok(Self::Late),
            _ => Err("must be delivered, retry, dead, disabled or late".to_owned()),
        }
    }
}
