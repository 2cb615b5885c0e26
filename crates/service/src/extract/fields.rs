//! The fields of one object, read one by one while every fault is kept, so that a client hears of
//! all of them at once.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::read::Fault;
use super::strict::pointer_step;
use crate::problem::FieldError;

/// A type that a request's fields are parsed into.
///
/// Read every field into a variable first and build the value after, with `?` on the required
/// ones: so each fault is noted before the first `?` leaves.
pub trait Parse: Sized {
    /// Reads the fields; `None` only where a fault was noted.
    fn parse(fields: &mut Fields<'_>) -> Option<Self>;
}

/// Something without fields, for routes that take an empty object.
impl Parse for () {
    fn parse(_fields: &mut Fields<'_>) -> Option<Self> {
        Some(())
    }
}

/// How a field is named in an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// By its JSON pointer.
    Pointer,
    /// By its plain name.
    Plain,
}

/// The fields of one object, and what was found wrong with them so far.
#[derive(Debug)]
pub struct Fields<'object> {
    object: &'object Map<String, Value>,
    naming: Naming,
    prefix: String,
    read: BTreeSet<&'static str>,
    errors: Vec<FieldError>,
}

impl<'object> Fields<'object> {
    /// Parses a whole object, refusing the fields that the type does not know.
    pub(super) fn parse_all<T: Parse>(
        object: &'object Map<String, Value>,
        naming: Naming,
        prefix: String,
    ) -> Result<T, Vec<FieldError>> {
        let mut fields = Self {
            object,
            naming,
            prefix,
            read: BTreeSet::new(),
            errors: Vec::new(),
        };
        let parsed = T::parse(&mut fields);
        fields.refuse_unknown();
        match parsed {
            Some(parsed) if fields.errors.is_empty() => Ok(parsed),
            _ => Err(fields.errors),
        }
    }

    /// A field that must be there; its fault is noted when `None` comes back.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Result<T, Fault>,
    ) -> Option<T> {
        if self.value(name).is_none() {
            self.refuse(name, "is required");
        }
        self.optional(name, read)
    }

    /// A field that may be absent or null; whatever else is wrong with it is noted.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Result<T, Fault>,
    ) -> Option<T> {
        match read(self.value(name)?) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.refuse(name, fault);
                None
            }
        }
    }

    /// A required object, parsed by its own fields.
    pub fn object<T: Parse>(&mut self, name: &'static str) -> Option<T> {
        let object = self.required(name, |value| match value {
            Value::Object(object) => Ok(object.clone()),
            _ => Err("must be an object".to_owned()),
        })?;
        match Fields::parse_all(&object, self.naming, self.place(name)) {
            Ok(parsed) => Some(parsed),
            Err(errors) => {
                self.errors.extend(errors);
                None
            }
        }
    }

    /// A required list of objects, each parsed by its own fields; at most `limit` of them.
    pub fn objects<T: Parse>(&mut self, name: &'static str, limit: usize) -> Option<Vec<T>> {
        let items = self.required(name, |value| match value {
            Value::Array(items) if items.len() <= limit => Ok(items.clone()),
            Value::Array(_) => Err(format!("must have at most {limit} items")),
            _ => Err("must be a list of objects".to_owned()),
        })?;
        let mut parsed = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let place = format!("{}/{index}", self.place(name));
            let Value::Object(object) = item else {
                self.errors
                    .push(FieldError::new(place, "must be an object"));
                continue;
            };
            match Fields::parse_all(object, self.naming, place) {
                Ok(item) => parsed.push(item),
                Err(errors) => self.errors.extend(errors),
            }
        }
        Some(parsed)
    }

    /// Whether a field is there and not null.
    pub fn has(&self, name: &str) -> bool {
        self.object.get(name).is_some_and(|value| !value.is_null())
    }

    /// Notes a fault that no reader of a single field can see, for example of two fields together.
    pub fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        let place = self.place(name);
        self.errors.push(FieldError::new(place, detail));
    }

    /// The whole object as text that is the same for the same content, for comparing requests.
    pub fn canonical_text(&self) -> String {
        // A JSON map always serialises; its keys are sorted.
        serde_json::to_string(self.object).unwrap_or_default()
    }

    fn value(&mut self, name: &'static str) -> Option<&'object Value> {
        self.read.insert(name);
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn place(&self, name: &str) -> String {
        match self.naming {
            Naming::Pointer => format!("{}/{}", self.prefix, pointer_step(name)),
            Naming::Plain => name.to_owned(),
        }
    }

    fn refuse_unknown(&mut self) {
        let unknown: Vec<&String> = self
            .object
            .keys()
            .filter(|key| !self.read.contains(key.as_str()))
            .collect();
        let known = self.read.iter().copied().collect::<Vec<_>>().join(", ");
        let detail = match known.as_str() {
            "" => "is not known; there are no fields here".to_owned(),
            known => format!("is not known; known are {known}"),
        };
        for key in unknown {
            self.refuse(key, detail.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::read;
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Item {
        name: String,
        size: i16,
    }

    impl Parse for Item {
        fn parse(fields: &mut Fields<'_>) -> Option<Self> {
            let name = fields.required("name", read::text);
            let size = fields.optional("size", read::integer::<i16>);
            Some(Self {
                name: name?,
                size: size.unwrap_or(0),
            })
        }
    }

    #[derive(Debug, PartialEq)]
    struct Batch(Vec<Item>);

    impl Parse for Batch {
        fn parse(fields: &mut Fields<'_>) -> Option<Self> {
            Some(Self(fields.objects("items", 2)?))
        }
    }

    fn parse<T: Parse>(value: &Value) -> Result<T, Vec<String>> {
        let object = value.as_object().expect("an object");
        Fields::parse_all(object, Naming::Pointer, String::new())
            .map_err(|errors| errors.into_iter().map(|error| error.field).collect())
    }

    #[test]
    fn right_fields_are_read_and_null_is_absent() {
        let item = parse::<Item>(&json!({"name": "a", "size": null}));
        assert_eq!(
            item,
            Ok(Item {
                name: "a".to_owned(),
                size: 0
            })
        );
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let item = parse::<Item>(&json!({"size": "big", "status": 1, "x/y": 2}));
        assert_eq!(
            item,
            Err(vec![
                "/name".into(),
                "/size".into(),
                "/status".into(),
                "/x~1y".into()
            ])
        );
    }

    #[test]
    fn wrong_fields_of_listed_objects_are_named_by_their_place() {
        let batch = parse::<Batch>(&json!({"items": [{"name": "a", "b": 1}, 7]}));
        assert_eq!(batch, Err(vec!["/items/0/b".into(), "/items/1".into()]));
        let long = parse::<Batch>(&json!({"items": [{}, {}, {}]}));
        assert_eq!(long, Err(vec!["/items".into()]));
    }
}
