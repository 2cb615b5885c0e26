//! Checks payloads against a job type's JSON Schema. What it says never bears a value of the payload.

use std::fmt;
use std::path::Path;

use jsonschema::PatternOptions;
use serde_json::Value;
use service::FieldError;

/// How many faults are listed.
const MOST_FAULTS: usize = 16;
/// So many values may be in a schema that comes with a job.
const MOST_VALUES: usize = 2_000;
/// What one of its patterns may come to.
const LARGEST_PATTERN: usize = 64 * 1024;

/// A compiled schema; references to other files and hosts are not followed.
pub(crate) struct PayloadSchema(jsonschema::Validator);

impl fmt::Debug for PayloadSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PayloadSchema")
    }
}

impl PayloadSchema {
    /// Reads a schema file, or says what is wrong with it without quoting it.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot be read ({}): check the path", error.kind()))?;
        let schema = serde_json::from_str(&text)
            .map_err(|error| format!("is not valid JSON in line {}: correct it", error.line()))?;
        Self::new(&schema)
    }

    /// Compiles a schema, or says where it is wrong.
    pub(crate) fn new(schema: &Value) -> Result<Self, String> {
        jsonschema::validator_for(schema)
            .map(Self)
            .map_err(|error| unusable(&error))
    }

    /// Compiles a schema that came with a job. Nobody can stop the thread that checks it: so it is bounded, refers to
    /// nothing, as references double the work again and again, and its patterns take as long as the text is long.
    pub(crate) fn of_a_stranger(schema: &Value) -> Result<Self, String> {
        check_bounds(schema, &mut { MOST_VALUES })?;
        let patterns = PatternOptions::regex().size_limit(LARGEST_PATTERN);
        jsonschema::options()
            .with_pattern_options(patterns)
            .build(schema)
            .map(Self)
            .map_err(|error| unusable(&error))
    }

    /// What of the payload is wrong, by JSON pointers below `/payload`; empty when it fits.
    pub(crate) fn faults(&self, payload: &Value) -> Vec<FieldError> {
        self.0
            .iter_errors(payload)
            .take(MOST_FAULTS)
            .map(|error| {
                FieldError::new(
                    format!("/payload{}", error.instance_path()),
                    error.masked_with("it").to_string(),
                )
            })
            .collect()
    }
}

fn unusable(error: &jsonschema::ValidationError<'_>) -> String {
    format!(
        "is no usable JSON Schema at \"{}\": correct it",
        error.instance_path()
    )
}

fn check_bounds(schema: &Value, left: &mut usize) -> Result<(), String> {
    *left = left.checked_sub(1).ok_or_else(|| {
        format!("has more than {MOST_VALUES} values: check less, or check before")
    })?;
    match schema {
        Value::Array(items) => items.iter().try_for_each(|item| check_bounds(item, left)),
        Value::Object(members) => members.iter().try_for_each(|(key, member)| {
            if ["$ref", "$dynamicRef", "$recursiveRef"].contains(&key.as_str()) {
                return Err(format!("has {key}: write out what it refers to"));
            }
            check_bounds(member, left)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn faults_name_places_and_never_values() {
        let schema = PayloadSchema::new(&json!({
            "type": "object",
            "properties": { "hours": { "type": "integer", "maximum": 744 }, "name": { "enum": ["a"] } },
            "additionalProperties": false,
        }))
        .expect("a schema");
        assert!(schema.faults(&json!({ "hours": 2 })).is_empty());
        let faults = schema.faults(&json!({ "hours": "canary", "name": "canary" }));
        let places: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(places, ["/payload/hours", "/payload/name"]);
        assert!(
            faults.iter().all(|fault| !fault.detail.contains("canary")),
            "{faults:?}"
        );
    }

    #[test]
    fn a_schema_that_points_elsewhere_is_refused() {
        assert!(PayloadSchema::new(&json!({ "$ref": "https://example.com/schema.json" })).is_err());
    }

    #[test]
    fn a_schema_of_a_stranger_cannot_take_for_ever() {
        let double =
            json!({ "additionalProperties": { "allOf": [{ "$ref": "#" }, { "$ref": "#" }] } });
        assert!(PayloadSchema::of_a_stranger(&double).is_err());
        let many: Vec<_> = (0..MOST_VALUES).map(|_| json!({})).collect();
        assert!(PayloadSchema::of_a_stranger(&json!({ "anyOf": many })).is_err());
        for slow in ["(?=(a+)+$)x", "(a{1000}){1000}"] {
            let schema = json!({ "properties": { "a": { "pattern": slow } } });
            assert!(PayloadSchema::of_a_stranger(&schema).is_err(), "{slow}");
        }
        let usual = json!({ "required": ["a"], "properties": { "a": { "pattern": "^(a+)+$" } } });
        let usual = PayloadSchema::of_a_stranger(&usual).expect("a schema");
        let long = format!("{}b", "a".repeat(500_000));
        assert_eq!(usual.faults(&json!({ "a": long })).len(), 1);
        assert!(usual.faults(&json!({ "a": "aa" })).is_empty());
    }
}
