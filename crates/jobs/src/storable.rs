//! The one choke point for what handlers say: text and JSON in a form that PostgreSQL stores. Never refuses; replaces.

use serde_json::{Map, Value};

/// Deeper than this, a handler's JSON is cut off.
const DEEPEST: usize = 64;

/// Text without NUL (which PostgreSQL refuses) and not longer than `limit` bytes; a cut is marked with `…`.
pub fn storable_text(text: &str, limit: usize) -> String {
    let clean = if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text.to_owned()
    };
    if clean.len() <= limit {
        return clean;
    }
    let mut end = limit;
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &clean[..end])
}

/// JSON without NUL in its texts and keys; what is nested deeper than 64 levels is replaced by a remark.
pub fn storable_json(value: Value) -> Value {
    storable_at(value, 0)
}

fn storable_at(value: Value, depth: usize) -> Value {
    match value {
        Value::String(text) => Value::String(storable_text(&text, usize::MAX)),
        Value::Array(_) | Value::Object(_) if depth >= DEEPEST => {
            Value::String("[nested too deeply]".to_owned())
        }
        Value::Array(items) => Value::Array(
            items
                .into_iter()
                .map(|item| storable_at(item, depth + 1))
                .collect(),
        ),
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(key, member)| {
                    (
                        storable_text(&key, usize::MAX),
                        storable_at(member, depth + 1),
                    )
                })
                .collect::<Map<_, _>>(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// About how many bytes it takes as text.
pub(crate) fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 10,
        Value::String(text) => text.len() + 3,
        Value::Array(items) => 2 + items.iter().map(weight).sum::<usize>(),
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| key.len() + 4 + weight(value);
            2 + members.iter().map(member).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nul_is_replaced_wherever_it_stands() {
        assert_eq!(storable_text("a\0b", 10), "a\u{fffd}b");
        assert_eq!(
            storable_json(json!({"a\0": ["\0", 1]})),
            json!({"a\u{fffd}": ["\u{fffd}", 1]})
        );
    }

    #[test]
    fn a_weight_is_about_the_length_of_the_text() {
        for value in [
            json!(null),
            json!({"a": [1, true, "text"], "b": {"c": "x".repeat(1000)}}),
            json!([{}, [], "", 12.5]),
        ] {
            let (weight, length) = (weight(&value), value.to_string().len());
            assert!(
                weight >= length / 2 && weight <= length * 4,
                "{value}: {weight}"
            );
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(storable_text("ääää", 3), "ä…");
    }

    #[test]
    fn deep_json_ends_with_a_remark() {
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!([deep]);
        }
        let stored = storable_json(deep).to_string();
        assert!(stored.contains("[nested too deeply]"), "{stored}");
    }
}
