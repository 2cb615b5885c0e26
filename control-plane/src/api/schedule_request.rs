//! A request for a schedule, parsed into a type that cannot be wrong. Every wrong field is named at once.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use jobs::{FireOutcome, Grid, Name, ScheduleName, ScheduleTerms};
use serde_json::{Value, json};
use service::{FieldError, Fields, Parse, Path, Problem, read};
use time::OffsetDateTime;

use super::new_job::{instant_within, labels, name};

/// How many instants are shown at most.
const MOST_INSTANTS: usize = 100;
/// How many schedules, or rows of the ledger, a page may have.
const MOST_ROWS: i64 = 200;
/// A schedule leaves room for the labels that say where a job comes from.
const MOST_LABELS: usize = 30;
const DAY: i32 = 86_400;

/// The schedule that the path names; what is no name names none.
pub(crate) struct Named(pub(crate) ScheduleName);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        let name = name.ok().and_then(|Path(name)| name.parse().ok());
        name.map(Self).ok_or_else(no_such_schedule)
    }
}

/// 404.
pub(crate) fn no_such_schedule() -> Problem {
    Problem::not_found("There is no such schedule.")
}

/// A schedule as a client writes it.
#[derive(Debug)]
pub(crate) struct ScheduleRequest {
    pub(crate) name: Option<ScheduleName>,
    pub(crate) terms: ScheduleTerms,
    /// `None`: as it is, or on.
    pub(crate) enabled: Option<bool>,
    /// The revision that is to be changed.
    pub(crate) revision: Option<i64>,
}

impl Parse for ScheduleRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let schedule = fields.optional("name", read::text_as(str::parse::<ScheduleName>));
        let cron = fields.required("cron", cron);
        let timezone = fields.optional("timezone", timezone);
        let job_type = fields.required("job_type", name);
        let payload = fields.optional("payload", read::json);
        let queue = fields.optional("queue", name);
        let priority = fields.optional("priority", read::integer_within(i16::MIN, i16::MAX));
        let labels = fields.optional("labels", own_labels);
        let ttl_seconds = fields.optional("ttl_seconds", read::integer_within(1, 365 * DAY));
        let max_attempts = fields.optional("max_attempts", read::integer_within(1, 1000));
        let timeout_seconds = fields.optional("timeout_seconds", read::integer_within(1, 30 * DAY));
        let catch_up = fields.optional("catch_up", read::text_as(str::parse));
        let catch_up_limit = fields.optional("catch_up_limit", read::integer_within(1, 1000));
        let grace_seconds = fields.optional("grace_seconds", read::integer_within(1, DAY));
        let overlap = fields.optional("overlap", read::text_as(str::parse));
        let jitter_seconds = fields.optional("jitter_seconds", read::integer_within(0, DAY));
        let enabled = fields.optional("enabled", read::boolean);
        let revision = fields.optional("revision", read::integer_within(1, i64::MAX));
        let defaults = ScheduleTerms::new(&cron?, job_type?);
        Some(Self {
            name: schedule,
            terms: ScheduleTerms {
                timezone: timezone.unwrap_or(defaults.timezone),
                payload: payload.unwrap_or_else(|| json!({})),
                queue: queue.unwrap_or_else(Name::default_queue),
                priority: priority.unwrap_or(0),
                labels: labels.unwrap_or_default(),
                ttl_seconds,
                max_attempts,
                timeout_seconds,
                catch_up: catch_up.unwrap_or(defaults.catch_up),
                catch_up_limit: catch_up_limit.unwrap_or(defaults.catch_up_limit),
                grace_seconds: grace_seconds.unwrap_or(defaults.grace_seconds),
                overlap: overlap.unwrap_or(defaults.overlap),
                jitter_seconds: jitter_seconds.unwrap_or(0),
                ..defaults
            },
            enabled,
            revision,
        })
    }
}

fn cron(value: &Value) -> Result<String, read::Fault> {
    let text = read::text(value)?.trim().to_owned();
    Grid::check_cron(&text).map(|()| text)
}

fn timezone(value: &Value) -> Result<String, read::Fault> {
    Grid::check_timezone(&read::text(value)?)
}

fn own_labels(value: &Value) -> Result<std::collections::BTreeMap<String, String>, read::Fault> {
    let labels = labels(value)?;
    if labels.len() > MOST_LABELS {
        return Err(format!("must have at most {MOST_LABELS} labels"));
    }
    match ["schedule", "scheduled_for"]
        .into_iter()
        .find(|name| labels.contains_key(*name))
    {
        Some(name) => Err(format!(
            "must not have the label {name}: every job of a schedule gets it"
        )),
        None => Ok(labels),
    }
}

/// A pattern that is looked at before it is kept.
#[derive(Debug)]
pub(crate) struct PreviewRequest {
    pub(crate) cron: String,
    pub(crate) timezone: String,
    pub(crate) count: usize,
    pub(crate) after: Option<OffsetDateTime>,
}

impl Parse for PreviewRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let cron = fields.required("cron", cron);
        let timezone = fields.optional("timezone", timezone);
        let count = fields.optional("count", read::integer_within(1, 100));
        let after = fields.optional("after", instant_within(2000..=2199));
        Some(Self {
            cron: cron?,
            timezone: timezone.unwrap_or_else(|| "UTC".to_owned()),
            count: usize::try_from(count.unwrap_or(10_i32)).unwrap_or(MOST_INSTANTS),
            after,
        })
    }
}

/// How many instants, and after which.
#[derive(Debug)]
pub(crate) struct NextRequest {
    pub(crate) count: usize,
    pub(crate) after: Option<OffsetDateTime>,
}

impl Parse for NextRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let count = fields.optional("count", read::number_text(1, MOST_INSTANTS));
        let after = fields.optional("after", instant_within(2000..=2199));
        Some(Self {
            count: count.unwrap_or(10),
            after,
        })
    }
}

/// The query of a list of schedules.
#[derive(Debug)]
pub(crate) struct SchedulesRequest {
    pub(crate) limit: i64,
    pub(crate) cursor: Option<ScheduleName>,
}

impl Parse for SchedulesRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let limit = fields.optional("limit", read::number_text(1, MOST_ROWS));
        let cursor = fields.optional("cursor", read::text_as(str::parse::<ScheduleName>));
        Some(Self {
            limit: limit.unwrap_or(50),
            cursor,
        })
    }
}

/// The query of a ledger.
#[derive(Debug)]
pub(crate) struct FiresRequest {
    pub(crate) outcome: Option<FireOutcome>,
    pub(crate) limit: i64,
    pub(crate) cursor: Option<OffsetDateTime>,
}

impl Parse for FiresRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let outcome = fields.optional("outcome", read::text_as(str::parse::<FireOutcome>));
        let limit = fields.optional("limit", read::number_text(1, MOST_ROWS));
        let cursor = fields.optional("cursor", instant_within(2000..=2200));
        Some(Self {
            outcome,
            limit: limit.unwrap_or(50),
            cursor,
        })
    }
}

/// The revision of `If-Match`; `None` where it is not sent, or takes any.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let mut sent = headers.get_all("if-match").iter();
    let Some(value) = sent.next() else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    let tag = text.strip_prefix("W/").unwrap_or(text);
    let revision = tag
        .strip_prefix('"')
        .and_then(|tag| tag.strip_suffix('"')?.parse().ok());
    match (text, revision, sent.next()) {
        ("*", _, None) => Ok(None),
        (_, Some(revision), None) => Ok(Some(revision)),
        _ => {
            let why = "must be sent once, with the ETag that the schedule came with";
            Err(Problem::invalid_fields(vec![FieldError::new(
                "If-Match", why,
            )]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::new_job::tests::parse;
    use super::*;

    #[tokio::test]
    async fn a_pattern_and_a_type_are_enough_and_every_wrong_field_is_named_at_once() {
        let right = json!({"cron": " 0 3 * * * ", "job_type": "a", "timezone": "europe/berlin"});
        let right = parse::<ScheduleRequest>(&right).await.expect("right");
        assert_eq!(right.terms.cron, "0 3 * * *");
        assert_eq!(right.terms.timezone, "Europe/Berlin");
        let wrong = json!({
            "name": "A", "cron": "0 0 30 2 *", "timezone": "Mars", "job_type": "A", "catch_up": "some", "overlap": 1,
            "jitter_seconds": -1, "labels": {"schedule": "x"}, "grace_seconds": 0, "enabled": "yes", "next_fire_at": "now",
        });
        assert_eq!(
            parse::<ScheduleRequest>(&wrong).await.expect_err("wrong"),
            [
                "/name",
                "/cron",
                "/timezone",
                "/job_type",
                "/labels",
                "/catch_up",
                "/grace_seconds",
                "/overlap",
                "/jitter_seconds",
                "/enabled",
                "/next_fire_at"
            ]
        );
    }

    #[test]
    fn a_revision_is_an_etag() {
        let headers = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("if-match", value.parse().expect("a value"));
            headers
        };
        assert_eq!(if_match(&HeaderMap::new()).expect("none"), None);
        assert_eq!(if_match(&headers("\"7\"")).expect("right"), Some(7));
        assert_eq!(if_match(&headers("W/\"7\"")).expect("right"), Some(7));
        assert_eq!(if_match(&headers("*")).expect("any"), None);
        assert!(if_match(&headers("7")).is_err());
        assert!(if_match(&headers("\"x\"")).is_err());
    }
}
