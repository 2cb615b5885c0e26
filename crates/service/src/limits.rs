//! What one request may cost: bytes, time, and a place among the others. Each limit is laid around
//! a router; the one laid last is asked first.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http_body_util::Limited;
use tokio::sync::Semaphore;
use tower::layer::util::Stack;

use crate::around::around;
use crate::problem::Problem;

/// How many bytes the body of this request may have; the JSON extractors answer 413 by it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimit {
    pub(crate) bytes: u64,
}

/// What stands in an upload beside its files: their headers, the boundaries.
const AROUND_FILES: u64 = 64 * 1024;

/// Bytes of JSON bodies, and of all files of an upload.
#[derive(Debug, Clone, Copy)]
struct BodyLimits {
    json: u64,
    files: u64,
}

/// How many bytes all files of this upload may have; the multipart extractor answers 413 by it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UploadLimit {
    pub(crate) json: u64,
    pub(crate) files: u64,
}

/// Lets bodies have this many bytes, counted while they are read; over it, 413.
pub fn with_body_limit<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    bytes: u64,
) -> Router<S> {
    with_body_and_upload_limits(router, bytes, 0)
}

/// As [`with_body_limit`], and lets the files of a multipart body have another number of bytes in all.
pub fn with_body_and_upload_limits<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    json: u64,
    files: u64,
) -> Router<S> {
    router
        // axum's own limit would answer before ours, and in plain text.
        .layer(around(Stack::new(
            from_fn_with_state(BodyLimits { json, files }, limit_body),
            DefaultBodyLimit::disable(),
        )))
}

async fn limit_body(State(limits): State<BodyLimits>, request: Request, next: Next) -> Response {
    let is_upload = limits.files > 0 && crate::extract::is_multipart(request.headers());
    let limit = BodyLimit {
        bytes: if is_upload {
            limits
                .files
                .saturating_add(limits.json)
                .saturating_add(AROUND_FILES)
        } else {
            limits.json
        },
    };
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit.bytes) {
        let most = if is_upload { limits.files } else { limits.json };
        return Problem::payload_too_large(most).into_response();
    }
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(limit);
    if is_upload {
        let BodyLimits { json, files } = limits;
        parts.extensions.insert(UploadLimit { json, files });
    }
    let most = usize::try_from(limit.bytes).unwrap_or(usize::MAX);
    let body = Body::new(Limited::new(body, most));
    next.run(Request::from_parts(parts, body)).await
}

/// Lets a request take this long until its answer begins; over it, 408, and its work is dropped.
pub fn with_timeout<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    limit: Duration,
) -> Router<S> {
    router.layer(around(from_fn_with_state(limit, limit_time)))
}

/// As [`with_timeout`], and lets a multipart body take another time.
pub fn with_timeouts<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    limit: Duration,
    upload: Duration,
) -> Router<S> {
    let by_kind = move |request: Request, next: Next| {
        let is_upload = crate::extract::is_multipart(request.headers());
        limit_time(State(if is_upload { upload } else { limit }), request, next)
    };
    router.layer(around(from_fn(by_kind)))
}

async fn limit_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("The request was not done within {} s.", limit.as_secs_f64());
            Problem::timeout(detail).into_response()
        }
    }
}

/// A number of requests at work at once, shared by every router it is laid around.
#[derive(Debug, Clone)]
pub struct Concurrency {
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Concurrency {
    /// Room for `places` requests; another one waits for `patience` and is then answered 429.
    pub fn new(places: usize, patience: Duration) -> Self {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { places, patience }
    }
}

/// Lets only so many requests be at work at once; over it, 429 with `Retry-After: 1`.
pub fn with_concurrency<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    concurrency: Concurrency,
) -> Router<S> {
    router.layer(around(from_fn_with_state(concurrency, limit_concurrency)))
}

async fn limit_concurrency(
    State(limit): State<Concurrency>,
    request: Request,
    next: Next,
) -> Response {
    let place = match limit.places.try_acquire() {
        Ok(place) => Some(place),
        Err(_) if limit.patience.is_zero() => None,
        Err(_) => {
            let waited = tokio::time::timeout(limit.patience, limit.places.acquire()).await;
            waited.ok().and_then(Result::ok)
        }
    };
    let Some(_place) = place else {
        return Problem::too_many_requests(
            "As many requests are at work as may be; try again.",
            Duration::from_secs(1),
        )
        .into_response();
    };
    next.run(request).await
}
