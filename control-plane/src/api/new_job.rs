//! A request for a job, parsed into a type that cannot be wrong. Every wrong field is named at once.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use jobs::{Name, NewJob};
use serde_json::{Value, json};
use service::{Fields, Parse, read};

use super::stages::stages;
use time::OffsetDateTime;

/// What a year may be where a person plans ahead; another one is a slip of the pen.
const RUN_AT_YEARS: RangeInclusive<i32> = 2000..=2200;
/// Longest time to live, in seconds: a year.
const LONGEST_TTL: i32 = 31_536_000;
/// Longest time limit of an attempt, in seconds: 30 days.
pub(super) const LONGEST_TIMEOUT: i32 = 2_592_000;

/// The fields of a job that is asked for.
#[derive(Debug)]
pub(crate) struct JobRequest(pub(crate) NewJob);

impl Parse for JobRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let job_type = fields.required("job_type", name);
        let payload = fields.optional("payload", read::json);
        let queue = fields.optional("queue", name);
        let priority = fields.optional("priority", read::integer_within(i16::MIN, i16::MAX));
        let run_at = fields.optional("run_at", instant_within(RUN_AT_YEARS));
        let ttl_seconds = fields.optional("ttl_seconds", read::integer_within(1, LONGEST_TTL));
        let max_attempts = fields.optional("max_attempts", read::integer_within(1, 1000));
        let timeout_seconds =
            fields.optional("timeout_seconds", read::integer_within(1, LONGEST_TIMEOUT));
        let labels = fields.optional("labels", labels);
        let stages = stages(fields);
        Some(Self(NewJob {
            job_type: job_type?,
            payload: payload.unwrap_or_else(|| json!({})),
            queue: queue.unwrap_or_else(Name::default_queue),
            priority: priority.unwrap_or(0),
            run_at,
            ttl_seconds,
            max_attempts,
            timeout_seconds,
            labels: labels.unwrap_or_default(),
            idempotency_key: None,
            stages: stages?,
            traceparent: None,
            tracestate: None,
        }))
    }
}

/// A job type or a queue.
pub(super) fn name(value: &Value) -> Result<Name, read::Fault> {
    read::text_as(|text| text.parse::<Name>().map_err(|fault| fault.to_string()))(value)
}

/// An instant whose year the database and its drivers can surely hold.
pub(super) fn instant_within(
    years: RangeInclusive<i32>,
) -> impl Fn(&Value) -> Result<OffsetDateTime, read::Fault> {
    move |value| {
        let instant = read::instant(value)?;
        if years.contains(&instant.year()) {
            Ok(instant)
        } else {
            Err(format!(
                "must be a time of the years {} to {}",
                years.start(),
                years.end()
            ))
        }
    }
}

/// Names and values of the caller's own.
pub(super) fn labels(value: &Value) -> Result<BTreeMap<String, String>, read::Fault> {
    let labels = read::text_map(value)?;
    if labels.len() > 32 {
        return Err("must have at most 32 labels".to_owned());
    }
    if labels
        .keys()
        .any(|name| !(1..=64).contains(&name.chars().count()))
    {
        return Err("must have names of 1 to 64 characters".to_owned());
    }
    if labels.values().any(|value| value.chars().count() > 256) {
        return Err("must have values of at most 256 characters".to_owned());
    }
    Ok(labels)
}

#[cfg(test)]
pub(super) mod tests {
    use axum::body::Body;
    use axum::extract::{FromRequest, Request};
    use service::Json;

    use super::*;

    /// Parses a body as the routes do; gives the wrong fields by their pointers.
    pub(in crate::api) async fn parse<T: Parse>(body: &Value) -> Result<T, Vec<String>> {
        let request = Request::builder().header("content-type", "application/json");
        let request = request
            .body(Body::from(body.to_string()))
            .expect("a request");
        match Json::<T>::from_request(request, &()).await {
            Ok(Json(parsed)) => Ok(parsed),
            Err(problem) => Err(problem
                .document()
                .errors
                .into_iter()
                .map(|error| error.field)
                .collect()),
        }
    }

    #[tokio::test]
    async fn a_job_type_is_enough() {
        let JobRequest(job) = parse(&json!({"job_type": "a"})).await.expect("right");
        assert_eq!(job, NewJob::new("a".parse().expect("a name"), json!({})));
        let JobRequest(job) = parse(&json!({"job_type": "a", "payload": null}))
            .await
            .expect("right");
        assert_eq!(job.payload, json!({}));
        let JobRequest(job) = parse(&json!({"job_type": "a", "payload": [1, "x"]}))
            .await
            .expect("right");
        assert_eq!(job.payload, json!([1, "x"]));
    }

    #[tokio::test]
    async fn the_ends_of_every_range_are_taken() {
        for (field, values) in [
            ("priority", [json!(-32768), json!(32767)]),
            ("ttl_seconds", [json!(1), json!(31_536_000)]),
            ("max_attempts", [json!(1), json!(1000)]),
            ("timeout_seconds", [json!(1), json!(2_592_000)]),
            (
                "run_at",
                [
                    json!("2000-01-01T00:00:00Z"),
                    json!("2200-12-31T23:59:59.999999+02:00"),
                ],
            ),
            (
                "labels",
                [json!({}), json!({"a".repeat(64): "b".repeat(256)})],
            ),
            ("queue", [json!("q"), json!("q".repeat(64))]),
        ] {
            for value in values {
                let body = json!({"job_type": "a", field: value});
                assert!(parse::<JobRequest>(&body).await.is_ok(), "{body}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_out_of_range_is_named() {
        let many: BTreeMap<String, &str> = (0..33).map(|index| (index.to_string(), "")).collect();
        for (field, values) in [
            (
                "job_type",
                vec![json!(null), json!("A"), json!(1), json!("a".repeat(65))],
            ),
            ("queue", vec![json!(""), json!("a-b"), json!(["a"])]),
            (
                "priority",
                vec![
                    json!(32768),
                    json!(-32769),
                    json!(1.5),
                    json!("1"),
                    json!(u64::MAX),
                ],
            ),
            ("ttl_seconds", vec![json!(0), json!(31_536_001)]),
            ("max_attempts", vec![json!(0), json!(1001)]),
            ("timeout_seconds", vec![json!(0), json!(2_592_001)]),
            (
                "run_at",
                vec![
                    json!("1999-12-31T23:59:59Z"),
                    json!("2201-01-01T00:00:00Z"),
                    json!("now"),
                    json!(1),
                ],
            ),
            (
                "labels",
                vec![
                    json!({"a": 1}),
                    json!({"": "x"}),
                    json!({"a".repeat(65): ""}),
                    json!({"a": "b".repeat(257)}),
                    json!(many),
                ],
            ),
            ("status", vec![json!("succeeded")]),
            ("stages", vec![json!([])]),
        ] {
            for value in values {
                let mut body = json!({"job_type": "a"});
                body[field] = value;
                assert_eq!(
                    parse::<JobRequest>(&body).await.expect_err("wrong"),
                    [format!("/{field}")],
                    "{body}"
                );
            }
        }
    }

    #[tokio::test]
    async fn every_wrong_field_is_named_at_once() {
        let body = json!({"priority": "high", "queue": "A", "attempt": 3});
        let wrong = parse::<JobRequest>(&body).await.expect_err("wrong");
        assert_eq!(wrong, ["/job_type", "/queue", "/priority", "/attempt"]);
    }
}
