//! What one request may cost: bytes, time, and a place among the others. All of it is one layer, since each layer has its
//! price a request.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http_body_util::Limited;
use tokio::sync::{Semaphore, SemaphorePermit};
use tower::layer::util::Stack;

use crate::around::around;
use crate::problem::Problem;

/// How many bytes the body of this request may have; the JSON extractors answer 413 by it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimit {
    pub(crate) bytes: u64,
}

/// How many bytes all files of this upload may have; the multipart extractor answers 413 by it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UploadLimit {
    pub(crate) json: u64,
    pub(crate) files: u64,
}

/// What stands in an upload beside its files: their headers, the boundaries.
const AROUND_FILES: u64 = 64 * 1024;

/// What a request to a router may cost. Who finds no place among the others is told so first (429), then who says that it is
/// too long (413); then the clock runs (408), also while bytes are counted (413).
#[derive(Debug, Clone)]
pub struct Limits {
    json: u64,
    files: u64,
    time: Option<Duration>,
    upload_time: Option<Duration>,
    places: Option<Concurrency>,
}

impl Limits {
    /// Lets bodies have this many bytes, counted while they are read; over it, 413. Nothing else is limited.
    pub fn of_body(bytes: u64) -> Self {
        Self {
            json: bytes,
            files: 0,
            time: None,
            upload_time: None,
            places: None,
        }
    }

    /// Lets the files of a multipart body have another number of bytes in all.
    #[must_use]
    pub fn with_uploads(mut self, bytes: u64) -> Self {
        self.files = bytes;
        self
    }

    /// Lets a request take this long until its answer begins, whatever its body; over it, 408, and its work is dropped.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.time = Some(limit);
        self.upload_time = Some(limit);
        self
    }

    /// Lets a request with a multipart body take another time; said after [`Limits::with_timeout`].
    #[must_use]
    pub fn with_upload_timeout(mut self, limit: Duration) -> Self {
        self.upload_time = Some(limit);
        self
    }

    /// Lets only so many requests be at work at once; over it, 429 with `Retry-After: 1`.
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: Concurrency) -> Self {
        self.places = Some(concurrency);
        self
    }

    /// Lays them around a router.
    pub fn around<S: Clone + Send + Sync + 'static>(self, router: Router<S>) -> Router<S> {
        router
            // axum's own limit would answer before ours, and in plain text.
            .layer(around(Stack::new(
                from_fn_with_state(Arc::new(self), limit),
                DefaultBodyLimit::disable(),
            )))
    }

    fn lay(&self, request: Request, is_upload: bool) -> Result<Request, Problem> {
        let limit = BodyLimit {
            bytes: if is_upload {
                self.files
                    .saturating_add(self.json)
                    .saturating_add(AROUND_FILES)
            } else {
                self.json
            },
        };
        let announced = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit.bytes) {
            let most = if is_upload { self.files } else { self.json };
            return Err(Problem::payload_too_large(most));
        }
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(limit);
        if is_upload {
            let (json, files) = (self.json, self.files);
            parts.extensions.insert(UploadLimit { json, files });
        }
        let most = usize::try_from(limit.bytes).unwrap_or(usize::MAX);
        let body = Body::new(Limited::new(body, most));
        Ok(Request::from_parts(parts, body))
    }
}

async fn limit(State(limits): State<Arc<Limits>>, request: Request, next: Next) -> Response {
    let _place = match &limits.places {
        Some(places) => match places.take().await {
            Some(place) => Some(place),
            None => return too_many(),
        },
        None => None,
    };
    let is_upload = limits.files > 0 && crate::extract::is_multipart(request.headers());
    let request = match limits.lay(request, is_upload) {
        Ok(request) => request,
        Err(problem) => return problem.into_response(),
    };
    let answer = next.run(request);
    let time = if is_upload {
        limits.upload_time
    } else {
        limits.time
    };
    let Some(time) = time else {
        return answer.await;
    };
    match tokio::time::timeout(time, answer).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("The request was not done within {} s.", time.as_secs_f64());
            Problem::timeout(detail).into_response()
        }
    }
}

fn too_many() -> Response {
    Problem::too_many_requests(
        "As many requests are at work as may be; try again.",
        Duration::from_secs(1),
    )
    .into_response()
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

    async fn take(&self) -> Option<SemaphorePermit<'_>> {
        match self.places.try_acquire() {
            Ok(place) => Some(place),
            Err(_) if self.patience.is_zero() => None,
            Err(_) => {
                let waited = tokio::time::timeout(self.patience, self.places.acquire()).await;
                waited.ok().and_then(Result::ok)
            }
        }
    }
}
