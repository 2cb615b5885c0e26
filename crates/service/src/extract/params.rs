//! Path and query parameters, with rejections as problems.

use axum::extract::{FromRequestParts, Path as AxumPath};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::fields::{Fields, Naming, Parse};
use crate::problem::{FieldError, Problem};

/// Path parameters; one that cannot be read names nothing that exists, so it answers 404.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match AxumPath::<T>::from_request_parts(parts, state).await {
            Ok(AxumPath(value)) => Ok(Self(value)),
            Err(_) => Err(Problem::not_found("Nothing has this name.")),
        }
    }
}

/// Query parameters, parsed as fields that are all text, or lists of texts where repeated.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T: Parse, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parse_query(parts.uri.query().unwrap_or_default())
            .map(Self)
            .map_err(Problem::invalid_fields)
    }
}

fn parse_query<T: Parse>(query: &str) -> Result<T, Vec<FieldError>> {
    let mut object = Map::new();
    for (name, text) in url::form_urlencoded::parse(query.as_bytes()) {
        if name.contains('\0') || text.contains('\0') {
            let name = name.replace('\0', "");
            return Err(vec![FieldError::new(name, "must not contain U+0000")]);
        }
        let text = Value::from(text.into_owned());
        match object.get_mut(name.as_ref()) {
            None => {
                object.insert(name.into_owned(), text);
            }
            Some(Value::Array(texts)) => texts.push(text),
            Some(one) => *one = Value::Array(vec![one.take(), text]),
        }
    }
    Fields::parse_all(&object, Naming::Plain, String::new())
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[derive(Debug, PartialEq)]
    struct List {
        limit: Option<u32>,
        labels: Vec<String>,
    }

    impl Parse for List {
        fn parse(fields: &mut Fields<'_>) -> Option<Self> {
            let limit = fields.optional("limit", read::number_text(1, 200));
            let labels = fields.optional("label", read::texts);
            Some(Self {
                limit,
                labels: labels.unwrap_or_default(),
            })
        }
    }

    #[test]
    fn parameters_are_read_by_name_and_may_be_repeated_where_a_list_is_meant() {
        let list = parse_query::<List>("limit=5&label=a%3Db&label=c").expect("right");
        assert_eq!(list.limit, Some(5));
        assert_eq!(list.labels, ["a=b", "c"]);
        assert_eq!(parse_query::<List>("").expect("right").limit, None);
    }

    #[test]
    fn wrong_unknown_and_doubled_parameters_are_refused_by_name() {
        for (query, names) in [
            ("limit=1e9", vec!["limit"]),
            ("limit=1&limit=2", vec!["limit"]),
            ("limit=0&x=1", vec!["limit", "x"]),
            ("label=%00", vec!["label"]),
        ] {
            let errors = parse_query::<List>(query).expect_err(query);
            let found: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(found, names, "{query}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_query_is_read_or_refused(query: String) {
            let _ = parse_query::<List>(&query);
        }
    }
}
