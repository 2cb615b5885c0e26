//! JSON bodies: content type, size, syntax and fields, in that order.

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError};
use serde::Serialize;
use serde_json::{Map, Value};

use super::fields::{Fields, Naming, Parse};
use super::strict::{self, Refusal};
use crate::limits::BodyLimit;
use crate::problem::{FieldError, Problem};

/// A JSON body: of a request parsed strictly, of a response written at once into room for what most answers need.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

/// A JSON body that may be left out, which reads as an empty object.
#[derive(Debug, Clone, Copy)]
pub struct OptionalJson<T>(pub T);

impl<T: Parse, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        check_content_type(request.headers())?;
        let body = collect(request).await?;
        parse_body(&body).map(Self)
    }
}

/// Bytes that nearly every job fits into.
const USUAL_ANSWER: usize = 1024;

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(USUAL_ANSWER);
        match serde_json::to_writer(&mut body, &self.0) {
            Ok(()) => {
                let json = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, json)], body).into_response()
            }
            Err(error) => {
                tracing::error!(event = "answer_not_written", %error);
                Problem::internal().into_response()
            }
        }
    }
}

impl<T: Parse, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let content_type = check_content_type(request.headers());
        let body = collect(request).await?;
        if body.is_empty() {
            return parse_object(&Map::new()).map(Self);
        }
        content_type?;
        parse_body(&body).map(Self)
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let wrong = || {
        Problem::unsupported_media_type(
            "Send JSON, with the header Content-Type: application/json.",
        )
    };
    let value = headers.get(header::CONTENT_TYPE).ok_or_else(wrong)?;
    let mut parts = value
        .to_str()
        .map_err(|_| wrong())?
        .split(';')
        .map(str::trim);
    let is_json = parts
        .next()
        .is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let is_utf8 = |parameter: &str| {
        let parameter = parameter.replace('"', "").to_ascii_lowercase();
        !parameter.starts_with("charset")
            || parameter == "charset=utf-8"
            || parameter == "charset=utf8"
    };
    if is_json && parts.all(is_utf8) {
        Ok(())
    } else {
        Err(wrong())
    }
}

async fn collect(request: Request) -> Result<Bytes, Problem> {
    let limit = request.extensions().get::<BodyLimit>().copied();
    match request.into_body().collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => match limit {
            Some(limit) if is_too_long(&error) => Err(Problem::payload_too_large(limit.bytes)),
            _ => Err(Problem::bad_request(
                "The body ended before it was complete.",
            )),
        },
    }
}

/// Whether a body went over its limit, said by whoever read it.
pub(super) fn is_too_long(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Parses a whole JSON text.
pub(super) fn parse_body<T: Parse>(body: &[u8]) -> Result<T, Problem> {
    match strict::parse(body) {
        Ok(Value::Object(object)) => parse_object(&object),
        Ok(_) => Err(Problem::invalid_fields(vec![FieldError::new(
            "",
            "must be an object",
        )])),
        Err(Refusal::Malformed(line, column)) => Err(Problem::bad_request(format!(
            "The body is not valid JSON; see line {line}, column {column}."
        ))),
        Err(Refusal::Wrong(errors)) => Err(Problem::invalid_fields(errors)),
    }
}

fn parse_object<T: Parse>(object: &Map<String, Value>) -> Result<T, Problem> {
    Fields::parse_all(object, Naming::Pointer, String::new()).map_err(Problem::invalid_fields)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::super::read;
    use super::*;

    #[derive(Debug)]
    struct Named(String);

    impl Parse for Named {
        fn parse(fields: &mut Fields<'_>) -> Option<Self> {
            let name = fields.optional("name", read::text);
            Some(Self(name.unwrap_or_default()))
        }
    }

    fn request(content_type: Option<&str>, body: &'static str) -> Request {
        let mut request = Request::new(Body::from(body));
        if let Some(content_type) = content_type {
            let value = content_type.parse().expect("a header value");
            request.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        request
    }

    async fn status(content_type: Option<&str>, body: &'static str) -> u16 {
        match Json::<Named>::from_request(request(content_type, body), &()).await {
            Ok(_) => 200,
            Err(problem) => problem.status().as_u16(),
        }
    }

    #[tokio::test]
    async fn a_body_is_checked_for_type_then_syntax_then_content() {
        let json = Some("application/json");
        for (content_type, body, expected) in [
            (json, r#"{"name":"a"}"#, 200),
            (Some("Application/JSON; charset=UTF-8"), "{}", 200),
            (Some("application/json; charset=\"utf-8\""), "{}", 200),
            (Some("application/json; charset=latin1"), "{}", 415),
            (Some("text/plain"), "{}", 415),
            (Some("application/json-patch+json"), "{}", 415),
            (None, "{}", 415),
            (json, "{", 400),
            (json, "", 400),
            (json, "[]", 422),
            (json, r#"{"name":1}"#, 422),
            (json, r#"{"other":1}"#, 422),
            (json, r#"{"name":"\u0000"}"#, 422),
            (json, r#"{"name":"a","name":"b"}"#, 422),
        ] {
            assert_eq!(
                status(content_type, body).await,
                expected,
                "{content_type:?} {body}"
            );
        }
    }

    #[tokio::test]
    async fn a_body_that_may_be_left_out_reads_as_an_empty_object() {
        let OptionalJson(Named(name)) = OptionalJson::from_request(request(None, ""), &())
            .await
            .expect("taken");
        assert_eq!(name, "");
        let refused = OptionalJson::<Named>::from_request(request(None, "{}"), &()).await;
        assert_eq!(refused.expect_err("no type").status().as_u16(), 415);
    }
}
