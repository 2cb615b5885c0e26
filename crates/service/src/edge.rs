//! What every response of a service wears: a request id, a log line, safe headers, a problem where
//! nothing matches, and a 500 instead of a dropped connection when a handler panics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tracing::Instrument;

use crate::around::around;
use crate::cors::Cors;
use crate::ids;
use crate::problem::Problem;
use crate::stop::Stop;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, as its log lines, its response and its problem have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

/// Dresses a whole service; call it last, after every route and limit. Once `leaving` is requested, each response asks
/// its caller to close the connection: kept ones would else be closed at the end of the drain, perhaps under a request
/// that is just being sent.
pub fn wear<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    cors: Option<&Cors>,
    leaving: Option<&Stop>,
) -> Router<S> {
    let router = with_fallbacks(router);
    let router = match cors {
        // The layer takes every OPTIONS for a preflight and answers it, past the guard; only a true one may have that.
        Some(cors) => router
            // Below CORS too, so that a page of another origin may read the 500.
            .layer(around(from_fn(catch_panic)))
            .layer(around(from_fn(show_method)))
            .layer(cors.layer())
            .layer(around(from_fn(hide_plain_options))),
        None => router,
    };
    let leaving = leaving.cloned().map(Arc::new);
    router.layer(around(from_fn_with_state(leaving, identify)))
}

/// Marks an OPTIONS that is no preflight while it passes the CORS layer under another method.
#[derive(Clone, Copy)]
struct PlainOptions;

async fn hide_plain_options(mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_preflight = headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if request.method() == Method::OPTIONS && !is_preflight {
        request.extensions_mut().insert(PlainOptions);
        *request.method_mut() = Method::TRACE;
    }
    next.run(request).await
}

async fn show_method(mut request: Request, next: Next) -> Response {
    if request.extensions_mut().remove::<PlainOptions>().is_some() {
        *request.method_mut() = Method::OPTIONS;
    }
    next.run(request).await
}

/// Answers unknown paths and wrong methods with problems.
pub fn with_fallbacks<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
        .fallback(not_found)
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
}

/// What an unknown path answers, for a router that must have a route for it.
pub(crate) async fn not_found() -> Problem {
    Problem::not_found("There is nothing at this path.")
}

async fn identify(
    State(leaving): State<Option<Arc<Stop>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let method = method_word(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    request
        .extensions_mut()
        .insert(RequestId(request_id.clone()));
    let span = tracing::info_span!("request", request_id, trace_id = tracing::field::Empty);
    let answer = catch_panic(request, next).instrument(span.clone());
    let mut response = answer.await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = with_request_id(response, &problem, &request_id);
    }
    let status = response.status();
    dress(response.headers_mut(), &request_id);
    if leaving.is_some_and(|stop| stop.is_requested()) {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    span.in_scope(|| {
        tracing::info!(
            event = "request",
            method,
            route = route.as_ref().map_or("none", MatchedPath::as_str),
            status = status.as_u16(),
            outcome = outcome(status),
            duration_ms = started.elapsed().as_secs_f64() * 1000.0,
        );
    });
    response
}

/// The caller's id where it sent one that is fit for a log, else one of ours.
fn request_id(headers: &HeaderMap) -> String {
    let mut sent = headers.get_all(X_REQUEST_ID).iter();
    let only = sent.next().filter(|_| sent.next().is_none());
    only.and_then(|value| value.to_str().ok())
        .filter(|id| (1..=128).contains(&id.len()))
        .filter(|id| {
            id.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte))
        })
        .map_or_else(ids::request_id, str::to_owned)
}

/// Writes the problem anew, now that its request has a name; headers laid on since then stay.
fn with_request_id(response: Response, problem: &Problem, request_id: &str) -> Response {
    let (mut parts, _) = response.into_parts();
    let named = problem.clone().with_request_id(request_id).into_response();
    // The old length is that of the old body.
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, named.into_body())
}

fn dress(headers: &mut HeaderMap, request_id: &str) {
    // An id of ours or a checked one of the caller's is always a header value.
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(X_REQUEST_ID, value);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

/// A known method, so that a caller cannot write words of its own into the log.
pub(crate) fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// What became of a request, in one word.
fn outcome(status: StatusCode) -> &'static str {
    match status.as_u16() {
        ..400 => "ok",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        408 | 504 => "timeout",
        409 => "conflict",
        413 => "payload_too_large",
        422 => "unprocessable",
        429 => "rate_limited",
        400..500 => "bad_request",
        502 | 503 => "unavailable",
        _ => "internal_error",
    }
}

async fn catch_panic(request: Request, next: Next) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        // The panic hook has logged where, within this request's span.
        Err(_) => Problem::internal().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    async fn broken() -> &'static str {
        panic!("a handler with a mistake")
    }

    async fn ask(method: &str, path: &str, request_id: &[&str]) -> (Response, Value) {
        let app = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/broken", get(broken));
        let app: Router = wear(app, None, None);
        let mut request = Request::builder().method(method).uri(path);
        for id in request_id {
            request = request.header("x-request-id", *id);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = app.oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let document = serde_json::from_slice(&body).unwrap_or(Value::Null);
        (Response::from_parts(parts, Body::empty()), document)
    }

    #[tokio::test]
    async fn a_sane_request_id_is_kept_and_any_other_replaced() {
        let longest = "a".repeat(128);
        for id in ["abc-1.2:3_", longest.as_str()] {
            let (response, _) = ask("GET", "/", &[id]).await;
            assert_eq!(response.headers()[X_REQUEST_ID], id);
        }
        let too_long = "a".repeat(129);
        for ids in [
            &[""][..],
            &["a b"],
            &["a\"b"],
            &[too_long.as_str()],
            &["a", "b"],
            &[],
        ] {
            let (response, _) = ask("GET", "/", ids).await;
            let made = response.headers()[X_REQUEST_ID]
                .to_str()
                .expect("text")
                .to_owned();
            assert_eq!(made.len(), 36, "{ids:?}");
        }
    }

    #[tokio::test]
    async fn whatever_goes_wrong_is_a_problem_that_names_the_request() {
        for (method, path, status) in [
            ("GET", "/none", 404),
            ("POST", "/", 405),
            ("GET", "/broken", 500),
        ] {
            let (response, document) = ask(method, path, &["r-1"]).await;
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(
                response.headers()[header::CONTENT_TYPE],
                "application/problem+json"
            );
            assert_eq!(document["request_id"], "r-1");
            assert_eq!(document["status"], status);
        }
        let (response, _) = ask("POST", "/", &[]).await;
        assert!(response.headers().contains_key(header::ALLOW));
    }

    #[tokio::test]
    async fn every_response_is_dressed() {
        for path in ["/", "/none", "/broken"] {
            let (response, _) = ask("GET", path, &[]).await;
            assert_eq!(
                response.headers()[header::X_CONTENT_TYPE_OPTIONS],
                "nosniff",
                "{path}"
            );
            assert_eq!(
                response.headers()[header::CACHE_CONTROL],
                "no-store",
                "{path}"
            );
        }
    }

    #[test]
    fn every_status_has_its_word() {
        for (status, word) in [
            (200, "ok"),
            (304, "ok"),
            (400, "bad_request"),
            (401, "unauthorized"),
            (405, "bad_request"),
            (408, "timeout"),
            (413, "payload_too_large"),
            (429, "rate_limited"),
            (500, "internal_error"),
            (502, "unavailable"),
            (504, "timeout"),
        ] {
            assert_eq!(
                outcome(StatusCode::from_u16(status).expect("a status")),
                word,
                "{status}"
            );
        }
    }
}
