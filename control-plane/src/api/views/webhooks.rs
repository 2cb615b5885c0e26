//! What webhooks look like in JSON, as answered and as asked for. Holds no logic, and no secret.

use jobs::{Delivery, DeliveryAttempt, DeliveryState, Name, Webhook, WebhookName};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// An endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(crate) struct WebhookView {
    /// What it is called.
    #[schema(value_type = String)]
    name: WebhookName,
    /// What its secret is derived from, among other things.
    id: Uuid,
    /// Where deliveries are posted.
    url: String,
    /// The kinds of events that it is told of.
    events: Vec<String>,
    /// Only of jobs of these types; null: of all.
    #[schema(value_type = Option<Vec<String>>)]
    job_types: Option<Vec<Name>>,
    /// Only of jobs of these queues; null: of all.
    #[schema(value_type = Option<Vec<String>>)]
    queues: Option<Vec<Name>>,
    /// Whether deliveries hold the job's payload.
    with_payload: bool,
    /// Whether deliveries hold the job's result.
    with_result: bool,
    /// How long an attempt may take.
    timeout_seconds: i32,
    /// After how long a delivery is given up.
    give_up_after_seconds: i32,
    /// After how long without any success it is disabled.
    disable_after_seconds: i32,
    /// Whether it is told anything.
    enabled: bool,
    /// Since when it is not.
    #[serde(with = "time::serde::rfc3339::option")]
    disabled_at: Option<OffsetDateTime>,
    /// By whom: a key, a login, or the sender that found it failing.
    disabled_by: Option<String>,
    /// Why.
    disabled_reason: Option<String>,
    /// Since when no attempt has succeeded; null: the last one did.
    #[serde(with = "time::serde::rfc3339::option")]
    failing_since: Option<OffsetDateTime>,
    /// How many deliveries wait.
    pending: i64,
    /// How many were given up, of those that are kept.
    dead: i64,
    /// Which of its secrets is the newest: grows with each rotation.
    secret_version: i32,
    /// Until when the one before signs too.
    #[serde(with = "time::serde::rfc3339::option")]
    old_secret_until: Option<OffsetDateTime>,
    /// Which signing key its secrets are derived from; null: nothing was sent yet.
    signing_key_id: Option<String>,
    /// Grows with each change; also its ETag.
    revision: i64,
    /// Who made it.
    created_by: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Who changed it last.
    updated_by: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

impl From<Webhook> for WebhookView {
    fn from(webhook: Webhook) -> Self {
        let terms = webhook.terms;
        Self {
            name: webhook.name,
            id: webhook.id,
            url: terms.url,
            events: terms.events,
            job_types: terms.job_types,
            queues: terms.queues,
            with_payload: terms.with_payload,
            with_result: terms.with_result,
            timeout_seconds: terms.timeout_seconds,
            give_up_after_seconds: terms.give_up_after_seconds,
            disable_after_seconds: terms.disable_after_seconds,
            enabled: webhook.enabled,
            disabled_at: webhook.disabled_at,
            disabled_by: webhook.disabled_by,
            disabled_reason: webhook.disabled_reason,
            failing_since: webhook.failing_since,
            pending: webhook.pending,
            dead: webhook.dead,
            secret_version: webhook.secret_version,
            old_secret_until: webhook.old_secret_until,
            signing_key_id: webhook.signing_key_id,
            revision: webhook.revision,
            created_by: webhook.created_by,
            created_at: webhook.created_at,
            updated_by: webhook.updated_by,
            updated_at: webhook.updated_at,
        }
    }
}

/// A page of endpoints.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhooks)]
pub(crate) struct WebhooksView {
    /// By name.
    pub(crate) webhooks: Vec<WebhookView>,
    /// Asks for the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// A message to an endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(crate) struct DeliveryView {
    /// The `webhook-id` that the receiver sees, the same in each attempt.
    id: Uuid,
    /// The kind of its event; `ping` for a trial.
    kind: String,
    /// The job; null: a trial.
    job_id: Option<Uuid>,
    /// The number of the event within its job.
    event_seq: Option<i32>,
    /// `pending`, `delivered` or `dead` (given up).
    #[schema(value_type = String)]
    state: DeliveryState,
    /// How often it was taken to be sent.
    attempts: i32,
    /// When it is to be sent next; null once it has ended.
    #[serde(with = "time::serde::rfc3339::option")]
    due_at: Option<OffsetDateTime>,
    /// From when on a failure is the last.
    #[serde(with = "time::serde::rfc3339")]
    give_up_at: OffsetDateTime,
    /// Who is sending it just now.
    sender: Option<String>,
    /// What the receiver last answered; null: nothing.
    last_status: Option<i32>,
    /// Why the last attempt failed.
    last_error: Option<String>,
    /// When the event happened.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When it was delivered or given up.
    #[serde(with = "time::serde::rfc3339::option")]
    ended_at: Option<OffsetDateTime>,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        Self {
            id: delivery.id,
            kind: delivery.kind,
            job_id: delivery.job_id,
            event_seq: delivery.event_seq,
            state: delivery.state,
            attempts: delivery.attempts,
            due_at: delivery.ended_at.is_none().then_some(delivery.due_at),
            give_up_at: delivery.give_up_at,
            sender: delivery.sender,
            last_status: delivery.last_status,
            last_error: delivery.last_error,
            created_at: delivery.created_at,
            ended_at: delivery.ended_at,
        }
    }
}

/// A page of deliveries.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Deliveries)]
pub(crate) struct DeliveriesView {
    /// Newest first.
    pub(crate) deliveries: Vec<DeliveryView>,
    /// Asks for the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// One attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryAttempt)]
pub(crate) struct AttemptView {
    /// 1, 2, 3 …
    attempt: i32,
    /// When it was taken to be sent.
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// Who sent it.
    sender: String,
    /// What the receiver answered; null: nothing.
    status: Option<i32>,
    /// Why it failed; null: it did not, or nothing is known.
    error: Option<String>,
    /// How long it took; null: it is under way, or its sender was lost before it could say.
    duration_ms: Option<i32>,
}

impl From<DeliveryAttempt> for AttemptView {
    fn from(attempt: DeliveryAttempt) -> Self {
        Self {
            attempt: attempt.attempt,
            at: attempt.at,
            sender: attempt.sender,
            status: attempt.status,
            error: attempt.error,
            duration_ms: attempt.duration_ms,
        }
    }
}

/// A delivery with what is sent and how each attempt went.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WholeDelivery)]
pub(crate) struct WholeDeliveryView {
    /// The delivery.
    #[serde(flatten)]
    pub(crate) delivery: DeliveryView,
    /// What is posted, letter for letter.
    pub(crate) body: String,
    /// Its attempts, in order.
    pub(crate) log: Vec<AttemptView>,
}

/// A trial that will be sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ping)]
pub(crate) struct PingView {
    /// Its delivery.
    pub(crate) delivery_id: Uuid,
}

/// What will be sent again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Resent)]
pub(crate) struct ResentView {
    /// How many deliveries.
    pub(crate) resent: u64,
}

/// An endpoint that is asked for.
#[derive(ToSchema)]
#[schema(as = NewWebhook)]
#[expect(dead_code, reason = "describes a request, which WebhookRequest parses")]
pub(crate) struct WebhookRequestView {
    /// What it is called; may be left out of a change.
    #[schema(pattern = "^[a-z0-9][a-z0-9_.-]{0,63}$")]
    name: Option<String>,
    /// Where deliveries are posted: `https://`, and public unless `WEBHOOK_ALLOW` says otherwise.
    #[schema(example = "https://example.com/hooks/ops")]
    url: String,
    /// The kinds of events; succeeded, failed, dead_lettered, aborted and gate_opened unless asked otherwise.
    events: Option<Vec<String>>,
    /// Only of jobs of these types.
    job_types: Option<Vec<String>>,
    /// Only of jobs of these queues.
    queues: Option<Vec<String>>,
    /// Whether deliveries hold the job's payload; not unless asked otherwise.
    with_payload: Option<bool>,
    /// Whether deliveries hold the job's result; not unless asked otherwise.
    with_result: Option<bool>,
    /// How long an attempt may take; 10 unless asked otherwise.
    #[schema(minimum = 1, maximum = 30)]
    timeout_seconds: Option<i32>,
    /// After how long a delivery is given up; 3 days unless asked otherwise.
    #[schema(minimum = 1, maximum = 2_592_000)]
    give_up_after_seconds: Option<i32>,
    /// After how long without any success it is disabled; 5 days unless asked otherwise.
    #[schema(minimum = 1, maximum = 31_536_000)]
    disable_after_seconds: Option<i32>,
    /// Whether it is told anything. A new one is unless asked otherwise; a change leaves it as it is.
    enabled: Option<bool>,
    /// Change only this revision.
    revision: Option<i64>,
}

/// A rotation that is asked for.
#[derive(ToSchema)]
#[schema(as = Rotation)]
#[expect(dead_code, reason = "describes a request, which RotateRequest parses")]
pub(crate) struct RotateRequestView {
    /// For how long the old secret signs too; a day unless asked otherwise.
    #[schema(minimum = 0, maximum = 2_592_000)]
    overlap_seconds: Option<i32>,
}

/// What is to be sent again.
#[derive(ToSchema)]
#[schema(as = Resend)]
#[expect(dead_code, reason = "describes a request, which ResendRequest parses")]
pub(crate) struct ResendRequestView {
    /// Only of events since then.
    since: Option<OffsetDateTime>,
}
