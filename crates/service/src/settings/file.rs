//! The configuration file, TOML or YAML by its extension, as a tree of values.
//!
//! Parsers show the offending line in their messages, and that line may hold a secret: only the
//! line's number leaves this file.

use std::collections::BTreeMap;
use std::path::Path;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};
use serde::de::DeserializeOwned;

struct Yaml;

impl Format for Yaml {
    type Error = serde_norway::Error;
    const NAME: &'static str = "YAML";

    fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Self::Error> {
        serde_norway::from_str(text)
    }
}

/// Reads a file as a tree, or says what is wrong with it without quoting it.
pub(super) fn read(path: &Path) -> Result<Dict, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot be read ({}): check the path", error.kind()))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => read_toml(&text),
        Some("yaml" | "yml") => read_yaml(&text),
        _ => Err("is neither .toml nor .yaml: rename it".to_owned()),
    }
}

fn read_toml(text: &str) -> Result<Dict, String> {
    Toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..start]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        format!("line {line} is not valid TOML: correct it")
    })
}

fn read_yaml(text: &str) -> Result<Dict, String> {
    if text.trim().is_empty() {
        return Ok(Dict::new());
    }
    <Yaml as Format>::from_str(text).map_err(|error| match error.location() {
        Some(place) => format!("line {} is not valid YAML: correct it", place.line()),
        None => "is not a YAML mapping of setting names: correct it".to_owned(),
    })
}

/// The text that an environment variable of the same meaning would have.
pub(super) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Bool(_, on) => Some(if *on { "1" } else { "0" }.to_owned()),
        Value::Num(_, number) => number
            .to_u128()
            .map(|n| n.to_string())
            .or_else(|| number.to_i128().map(|n| n.to_string())),
        Value::Array(_, items) => {
            let texts: Option<Vec<String>> = items.iter().map(as_text).collect();
            texts.map(|texts| texts.join(","))
        }
        Value::Char(..) | Value::Empty(..) | Value::Dict(..) => None,
    }
}

/// A table, or what is wrong with each of its keys.
pub(super) fn table<T: DeserializeOwned>(table: &Value) -> Result<T, Vec<String>> {
    let mut faults = Vec::new();
    for (key, value) in table.as_dict().into_iter().flatten() {
        let alone = Value::from(BTreeMap::from([(key.clone(), value.clone())]));
        if let Err(error) = alone.deserialize::<T>() {
            faults.push(section_fault(&error));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    table
        .deserialize()
        .map_err(|error| vec![section_fault(&error)])
}

/// What a section of the file may not be, said without the value that was found.
pub(super) fn section_fault(error: &figment::Error) -> String {
    use figment::error::Kind;
    let place = if error.path.is_empty() {
        String::new()
    } else {
        format!("at {}: ", error.path.join("."))
    };
    let fault = match &error.kind {
        Kind::InvalidType(_, expected)
        | Kind::InvalidValue(_, expected)
        | Kind::InvalidLength(_, expected) => format!("must be {expected}"),
        Kind::UnknownVariant(_, known) => format!("must be one of {}", known.join(", ")),
        Kind::UnknownField(name, []) => format!("unknown key `{name}`"),
        Kind::UnknownField(name, known) => {
            format!("unknown key `{name}`, known are {}", known.join(", "))
        }
        Kind::MissingField(name) => format!("`{name}` is missing"),
        Kind::DuplicateField(name) => format!("`{name}` is given twice"),
        Kind::Message(_)
        | Kind::ISizeOutOfRange(_)
        | Kind::USizeOutOfRange(_)
        | Kind::Unsupported(_)
        | Kind::UnsupportedKey(..) => "cannot be used as it is written".to_owned(),
    };
    format!("{place}{fault}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(name: &str, text: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        read(&path).expect_err("must be refused")
    }

    #[test]
    fn a_broken_file_is_told_by_its_line_and_never_quoted() {
        for (name, text) in [
            (
                "a.toml",
                "runner_bind = \"x\"\nrunner_token = canary secret\n",
            ),
            ("a.yaml", "runner_bind: x\nrunner_token: canary: secret\n"),
        ] {
            let fault = fault(name, text);
            assert!(fault.contains("line 2"), "{name}: {fault}");
            assert!(!fault.contains("canary"), "{name}: {fault}");
        }
    }

    #[test]
    fn a_file_of_another_format_or_none_is_refused() {
        assert!(fault("a.json", "{}").contains(".toml"));
        assert!(fault("a.yaml", "- a\n- b\n").contains("YAML"));
        assert!(read(Path::new("/nonexistent/a.toml")).is_err());
    }

    #[test]
    fn numbers_switches_and_lists_read_as_their_text() {
        let dict = read_toml("a = 7\nb = true\nc = [\"x\", \"y\"]\nd = -3\n").expect("valid");
        let text = |name: &str| dict.get(name).and_then(as_text);
        assert_eq!(text("a").as_deref(), Some("7"));
        assert_eq!(text("b").as_deref(), Some("1"));
        assert_eq!(text("c").as_deref(), Some("x,y"));
        assert_eq!(text("d").as_deref(), Some("-3"));
    }
}
