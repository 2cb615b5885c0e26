//! Readers of single fields: each takes a JSON value and gives a typed one, or says in a few words
//! what the value must be. They never quote the value.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// How deep a free-form value, for example a payload, may nest.
pub const MAX_DEPTH: usize = 64;

/// What a field must be, to follow its name: `must be …`.
pub type Fault = String;

/// A text.
pub fn text(value: &Value) -> Result<String, Fault> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| "must be text".to_owned())
}

/// A text that is then parsed into a type of the caller's, whose error says what it must be.
pub fn text_as<T>(parse: impl Fn(&str) -> Result<T, Fault>) -> impl Fn(&Value) -> Result<T, Fault> {
    move |value| parse(&text(value)?)
}

/// A whole number in the range of its type.
pub fn integer<N: TryFrom<i64>>(value: &Value) -> Result<N, Fault> {
    if !value.is_i64() && !value.is_u64() {
        return Err("must be a whole number".to_owned());
    }
    value
        .as_i64()
        .and_then(|number| N::try_from(number).ok())
        .ok_or_else(|| "is a number out of range".to_owned())
}

/// A whole number within bounds, both included.
pub fn integer_within<N>(low: N, high: N) -> impl Fn(&Value) -> Result<N, Fault>
where
    N: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy,
{
    move |value| {
        integer(value)
            .ok()
            .filter(|number| (low..=high).contains(number))
            .ok_or_else(|| format!("must be a whole number from {low} to {high}"))
    }
}

/// `true` or `false`.
pub fn boolean(value: &Value) -> Result<bool, Fault> {
    value
        .as_bool()
        .ok_or_else(|| "must be true or false".to_owned())
}

/// A UUID.
pub fn uuid(value: &Value) -> Result<Uuid, Fault> {
    let uuid = value.as_str().and_then(|text| Uuid::try_parse(text).ok());
    uuid.ok_or_else(|| "must be a UUID".to_owned())
}

/// An instant as RFC 3339 has it, with any offset.
pub fn instant(value: &Value) -> Result<OffsetDateTime, Fault> {
    let instant = value
        .as_str()
        .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    instant.ok_or_else(|| "must be an RFC 3339 time like 2026-01-31T12:00:00Z".to_owned())
}

/// Any JSON that nests at most [`MAX_DEPTH`] levels.
pub fn json(value: &Value) -> Result<Value, Fault> {
    if depth(value) > MAX_DEPTH {
        return Err(format!("nests deeper than {MAX_DEPTH} levels"));
    }
    Ok(value.clone())
}

/// A JSON object that nests at most [`MAX_DEPTH`] levels.
pub fn object(value: &Value) -> Result<Map<String, Value>, Fault> {
    match json(value)? {
        Value::Object(object) => Ok(object),
        _ => Err("must be an object".to_owned()),
    }
}

/// An object whose every value is text.
pub fn text_map(value: &Value) -> Result<BTreeMap<String, String>, Fault> {
    let wrong = || "must be an object of texts".to_owned();
    let object = value.as_object().ok_or_else(wrong)?;
    object
        .iter()
        .map(|(key, value)| Ok((key.clone(), value.as_str().ok_or_else(wrong)?.to_owned())))
        .collect()
}

/// One text or several, as a query parameter that may be repeated comes.
pub fn texts(value: &Value) -> Result<Vec<String>, Fault> {
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        one => Ok(vec![text(one)?]),
    }
}

/// A whole number written as text, as a query parameter comes, within bounds, both included.
pub fn number_text<N>(low: N, high: N) -> impl Fn(&Value) -> Result<N, Fault>
where
    N: FromStr + PartialOrd + std::fmt::Display + Copy,
{
    move |value| {
        let digits = value.as_str().filter(|text| !text.starts_with('+'));
        digits
            .and_then(|text| text.parse().ok())
            .filter(|number| (low..=high).contains(number))
            .ok_or_else(|| format!("must be a whole number from {low} to {high}"))
    }
}

/// `true`, `false`, `1` or `0` written as text, as a query parameter comes.
pub fn boolean_text(value: &Value) -> Result<bool, Fault> {
    match value.as_str() {
        Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// How many arrays and objects are nested; a number has none.
fn depth(value: &Value) -> usize {
    // Recursion is bounded: the strict reader refuses deep bodies before they are built.
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nested(depth: usize) -> Value {
        (1..depth).fold(json!([]), |inner, _| json!([inner]))
    }

    #[test]
    fn a_value_may_nest_as_deep_as_the_limit_and_no_deeper() {
        assert!(json(&nested(MAX_DEPTH)).is_ok());
        assert!(json(&nested(MAX_DEPTH + 1)).is_err());
    }

    #[test]
    fn an_integer_is_whole_and_in_range() {
        assert_eq!(integer::<i16>(&json!(-7)), Ok(-7));
        for wrong in [
            json!(40_000),
            json!(u64::MAX),
            json!(1.0),
            json!("1"),
            json!(null),
        ] {
            assert!(integer::<i16>(&wrong).is_err(), "{wrong}");
        }
        assert!(integer_within(1, 5)(&json!(5)).is_ok());
        assert!(integer_within(1, 5)(&json!(6)).is_err());
    }

    #[test]
    fn an_instant_has_an_offset() {
        assert!(instant(&json!("2026-01-31T12:00:00Z")).is_ok());
        assert!(instant(&json!("2026-01-31T12:00:00.5+02:00")).is_ok());
        for wrong in [
            "2026-01-31T12:00:00",
            "2026-02-30T12:00:00Z",
            "now",
            "",
            "1234567890",
        ] {
            assert!(instant(&json!(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_query_parameter_is_text_that_reads_as_what_it_is() {
        assert_eq!(number_text(1_u32, 200)(&json!("50")), Ok(50));
        for wrong in [
            "0",
            "201",
            "-1",
            "+5",
            "1e2",
            " 5",
            "",
            "99999999999999999999",
        ] {
            assert!(number_text(1_u32, 200)(&json!(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(texts(&json!("a")), Ok(vec!["a".to_owned()]));
        assert_eq!(
            texts(&json!(["a", "b"])),
            Ok(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(boolean_text(&json!("true")), Ok(true));
        assert!(boolean_text(&json!("yes")).is_err());
    }

    #[test]
    fn labels_are_texts_only() {
        assert!(text_map(&json!({"a": "b"})).is_ok());
        assert!(text_map(&json!({"a": 1})).is_err());
        assert!(text_map(&json!(["a"])).is_err());
    }
}
