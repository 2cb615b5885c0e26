//! A request for an endpoint, parsed into a type that cannot be wrong. Every wrong field is named at once.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use jobs::{DeliveryState, Name, WEBHOOK_KINDS, WebhookName, WebhookTerms};
use serde_json::Value;
use service::{Fields, Parse, Path, Problem, read};
use time::OffsetDateTime;
use uuid::Uuid;

use super::new_job::{instant_within, name};

const MOST_ROWS: i64 = 200;
/// More job types or queues than this are no filter.
const MOST_NAMES: usize = 100;
const DAY: i32 = 86_400;

/// The endpoint that the path names; what is no name names none.
pub(crate) struct NamedWebhook(pub(crate) WebhookName);

impl<S: Send + Sync> FromRequestParts<S> for NamedWebhook {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        let name = name.ok().and_then(|Path(name)| name.parse().ok());
        name.map(Self).ok_or_else(no_such_webhook)
    }
}

/// The delivery that the path names.
pub(crate) struct NamedDelivery {
    pub(crate) name: WebhookName,
    pub(crate) id: Uuid,
}

impl<S: Send + Sync> FromRequestParts<S> for NamedDelivery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<(String, Uuid)>::from_request_parts(parts, state).await;
        let named = path
            .ok()
            .and_then(|Path((name, id))| Some((name.parse().ok()?, id)));
        let (name, id) = named.ok_or_else(no_such_delivery)?;
        Ok(Self { name, id })
    }
}

/// 404.
pub(crate) fn no_such_webhook() -> Problem {
    Problem::not_found("There is no such webhook.")
}

/// 404.
pub(crate) fn no_such_delivery() -> Problem {
    Problem::not_found("There is no such delivery.")
}

/// An endpoint as a client writes it. Whether its address may be called is the app's to say.
#[derive(Debug)]
pub(crate) struct WebhookRequest {
    pub(crate) name: Option<WebhookName>,
    pub(crate) terms: WebhookTerms,
    /// `None`: as it is, or on.
    pub(crate) enabled: Option<bool>,
    /// The revision that is to be changed.
    pub(crate) revision: Option<i64>,
}

impl Parse for WebhookRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let webhook = fields.optional("name", read::text_as(str::parse::<WebhookName>));
        let url = fields.required("url", read::text);
        let events = fields.optional("events", kinds);
        let job_types = fields.optional("job_types", names);
        let queues = fields.optional("queues", names);
        let with_payload = fields.optional("with_payload", read::boolean);
        let with_result = fields.optional("with_result", read::boolean);
        let timeout_seconds = fields.optional("timeout_seconds", read::integer_within(1, 30));
        let give_up = fields.optional("give_up_after_seconds", read::integer_within(1, 30 * DAY));
        let disable = fields.optional("disable_after_seconds", read::integer_within(1, 365 * DAY));
        let enabled = fields.optional("enabled", read::boolean);
        let revision = fields.optional("revision", read::integer_within(1, i64::MAX));
        let defaults = WebhookTerms::new(&url?);
        Some(Self {
            name: webhook,
            terms: WebhookTerms {
                events: events.unwrap_or(defaults.events),
                job_types,
                queues,
                with_payload: with_payload.unwrap_or(false),
                with_result: with_result.unwrap_or(false),
                timeout_seconds: timeout_seconds.unwrap_or(defaults.timeout_seconds),
                give_up_after_seconds: give_up.unwrap_or(defaults.give_up_after_seconds),
                disable_after_seconds: disable.unwrap_or(defaults.disable_after_seconds),
                url: defaults.url,
            },
            enabled,
            revision,
        })
    }
}

fn list(value: &Value) -> Result<&Vec<Value>, read::Fault> {
    let items = value.as_array().filter(|items| !items.is_empty());
    items.ok_or_else(|| "must be a list of at least one".to_owned())
}

fn kinds(value: &Value) -> Result<Vec<String>, read::Fault> {
    let kinds = list(value)?.iter().map(|kind| {
        let known = WEBHOOK_KINDS.into_iter().find(|known| *kind == **known);
        known.map(str::to_owned)
    });
    let kinds: Option<Vec<String>> = kinds.collect();
    let mut kinds = kinds.ok_or_else(|| format!("must hold only {}", WEBHOOK_KINDS.join(", ")))?;
    let mut seen = std::collections::BTreeSet::new();
    kinds.retain(|kind| seen.insert(kind.clone()));
    Ok(kinds)
}

fn names(value: &Value) -> Result<Vec<Name>, read::Fault> {
    let items = list(value)?;
    if items.len() > MOST_NAMES {
        return Err(format!("must have at most {MOST_NAMES} names"));
    }
    items.iter().map(name).collect()
}

/// The query of a list of endpoints.
#[derive(Debug)]
pub(crate) struct WebhooksRequest {
    pub(crate) limit: i64,
    pub(crate) cursor: Option<WebhookName>,
}

impl Parse for WebhooksRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let limit = fields.optional("limit", read::number_text(1, MOST_ROWS));
        let cursor = fields.optional("cursor", read::text_as(str::parse::<WebhookName>));
        Some(Self {
            limit: limit.unwrap_or(50),
            cursor,
        })
    }
}

/// The query of a list of deliveries.
#[derive(Debug)]
pub(crate) struct DeliveriesRequest {
    pub(crate) state: Option<DeliveryState>,
    pub(crate) limit: i64,
    pub(crate) cursor: Option<Uuid>,
}

impl Parse for DeliveriesRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let state = fields.optional("state", read::text_as(str::parse::<DeliveryState>));
        let limit = fields.optional("limit", read::number_text(1, MOST_ROWS));
        let cursor = fields.optional("cursor", read::uuid);
        Some(Self {
            state,
            limit: limit.unwrap_or(50),
            cursor,
        })
    }
}

/// Since when what was given up is to be sent again.
#[derive(Debug)]
pub(crate) struct ResendRequest {
    pub(crate) since: Option<OffsetDateTime>,
}

impl Parse for ResendRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let since = fields.optional("since", instant_within(2000..=2200));
        Some(Self { since })
    }
}

/// For how long the old secret holds beside the new one.
#[derive(Debug)]
pub(crate) struct RotateRequest {
    pub(crate) overlap_seconds: i32,
}

impl Parse for RotateRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let overlap = fields.optional("overlap_seconds", read::integer_within(0, 30 * DAY));
        Some(Self {
            overlap_seconds: overlap.unwrap_or(DAY),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::new_job::tests::parse;
    use super::*;

    #[tokio::test]
    async fn an_address_is_enough_and_every_wrong_field_is_named_at_once() {
        let right = json!({"url": "https://h/", "events": ["failed", "failed"], "queues": ["q"]});
        let right = parse::<WebhookRequest>(&right).await.expect("right");
        assert_eq!(right.terms.events, ["failed"]);
        assert_eq!(right.terms.job_types, None);
        let wrong = json!({
            "name": "A", "url": 7, "events": ["note"], "job_types": [], "queues": ["A"], "with_payload": 1,
            "timeout_seconds": 31, "give_up_after_seconds": 0, "secret": "whsec_x",
        });
        assert_eq!(
            parse::<WebhookRequest>(&wrong).await.expect_err("wrong"),
            [
                "/name",
                "/url",
                "/events",
                "/job_types",
                "/queues",
                "/with_payload",
                "/timeout_seconds",
                "/give_up_after_seconds",
                "/secret"
            ]
        );
    }
}
