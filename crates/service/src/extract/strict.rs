//! JSON read strictly: duplicate keys, U+0000, deep nesting and numbers that cannot be kept are
//! refused by their place. Knows no HTTP.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::numbers::{self, Scan};
use super::read::MAX_DEPTH;
use crate::problem::FieldError;

/// A free-form value may be [`MAX_DEPTH`] deep and stands at most this deep in a body.
const MAX_ENVELOPE: usize = 8;

/// How many errors are listed; who sends more has seen enough.
const MAX_ERRORS: usize = 32;

/// Why a text was not taken.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is no JSON; with the line and column where that shows.
    Malformed(usize, usize),
    /// It is JSON that cannot be kept as it is.
    Wrong(Vec<FieldError>),
}

/// Parses a text, or says everything that is wrong with it.
pub(super) fn parse(text: &[u8]) -> Result<Value, Refusal> {
    let Scan {
        depth,
        text,
        refused,
    } = numbers::scan(text);
    if depth > MAX_DEPTH + MAX_ENVELOPE {
        let detail = format!("nests deeper than {MAX_DEPTH} levels");
        return Err(Refusal::Wrong(vec![FieldError::new("", detail)]));
    }
    let reader = Reader {
        refused: &refused,
        numbers: Cell::new(0),
        place: RefCell::new(String::new()),
        errors: RefCell::new(Vec::new()),
    };
    let mut deserializer = serde_json::Deserializer::from_slice(&text);
    let value = reader
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| Refusal::Malformed(error.line(), error.column()))?;
    let errors = reader.errors.into_inner();
    if errors.is_empty() {
        Ok(value)
    } else {
        Err(Refusal::Wrong(errors))
    }
}

/// A key as one step of a JSON pointer (RFC 6901), after its slash.
pub(super) fn pointer_step(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

struct Reader<'scan> {
    refused: &'scan [usize],
    numbers: Cell<usize>,
    place: RefCell<String>,
    errors: RefCell<Vec<FieldError>>,
}

impl Reader<'_> {
    fn refuse(&self, detail: &str) {
        let mut errors = self.errors.borrow_mut();
        if errors.len() < MAX_ERRORS {
            errors.push(FieldError::new(self.place.borrow().as_str(), detail));
        }
    }

    fn text(&self, text: String) -> String {
        if text.contains('\0') {
            self.refuse("must not contain U+0000");
        }
        text
    }

    fn number(&self, number: impl Into<Value>) -> Value {
        let index = self.numbers.replace(self.numbers.get() + 1);
        if self.refused.binary_search(&index).is_ok() {
            self.refuse("is a number that cannot be kept exactly: send it as text");
        }
        number.into()
    }

    /// Reads what stands at one step further into the tree.
    fn at<T>(&self, step: &str, read: impl FnOnce() -> T) -> T {
        let length = self.place.borrow().len();
        self.place.borrow_mut().push('/');
        self.place.borrow_mut().push_str(step);
        let value = read();
        self.place.borrow_mut().truncate(length);
        value
    }
}

impl<'de> DeserializeSeed<'de> for &Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(self.number(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(self.number(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(self.number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(self.text(value.to_owned()).into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(self.text(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) =
            self.at(&array.len().to_string(), || items.next_element_seed(self))?
        {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = self.at(&pointer_step(&key), || {
                let key = self.text(key.clone());
                if object.contains_key(&key) {
                    self.refuse("is given twice");
                }
                entries.next_value_seed(self)
            })?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_places(text: &str) -> Vec<String> {
        match parse(text.as_bytes()) {
            Err(Refusal::Wrong(errors)) => errors.into_iter().map(|error| error.field).collect(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_can_be_kept_is_read_as_it_is() {
        let text = r#"{"a":[1,-2,0.5,"x\u00e9",null,true],"b":{"":{}}}"#;
        let expected: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(parse(text.as_bytes()).expect("kept"), expected);
    }

    #[test]
    fn what_cannot_be_kept_is_named_by_its_pointer() {
        for (text, places) in [
            (r#"{"a":"x\u0000"}"#, vec!["/a"]),
            (r#"{"a":{"k\u0000":1}}"#, vec!["/a/k\0"]),
            (r#"{"a":1,"a":2}"#, vec!["/a"]),
            (
                r#"{"a":[1,1e400,2,99999999999999999999]}"#,
                vec!["/a/1", "/a/3"],
            ),
            (r#"{"a/b":{"c~d":"\u0000"}}"#, vec!["/a~1b/c~0d"]),
            (r#"{"x":"\u0000","y":1e-400}"#, vec!["/x", "/y"]),
        ] {
            assert_eq!(wrong_places(text), places, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for text in [
            "",
            "{",
            "{]",
            "{\"a\":01}",
            "[1,]",
            "nul",
            "{} x",
            "\"\\ud800\"",
            "NaN",
            "{'a':1}",
        ] {
            assert!(
                matches!(parse(text.as_bytes()), Err(Refusal::Malformed(..))),
                "{text}"
            );
        }
        assert!(matches!(parse(b"\"\xff\""), Err(Refusal::Malformed(..))));
    }

    #[test]
    fn depth_is_refused_before_it_can_hurt() {
        for depth in [MAX_DEPTH + MAX_ENVELOPE + 1, 3_000, 1_000_000] {
            let text = "[".repeat(depth) + &"]".repeat(depth);
            assert_eq!(wrong_places(&text), [""], "{depth}");
        }
        let deepest = MAX_DEPTH + MAX_ENVELOPE;
        assert!(parse(("[".repeat(deepest) + &"]".repeat(deepest)).as_bytes()).is_ok());
    }

    #[test]
    fn the_list_of_errors_ends() {
        let text = format!("[{}]", vec!["1e400"; 1000].join(","));
        assert_eq!(wrong_places(&text).len(), MAX_ERRORS);
    }
}
