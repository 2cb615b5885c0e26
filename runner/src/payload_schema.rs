//! Checks payloads against a job type's JSON Schema. What it says never bears a value of the payload.

use std::fmt;
use std::path::Path;

use serde_json::Value;
use service::FieldError;

/// How many faults are listed.
const MOST_FAULTS: usize = 16;

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
            .map_err(|error| {
                format!(
                    "is no usable JSON Schema at \"{}\": correct it",
                    error.instance_path()
                )
            })
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
}
