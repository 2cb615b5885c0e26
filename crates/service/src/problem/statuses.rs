//! A constructor for each status that a service answers with; what a status means is said here only.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};

use super::{Detail, FieldError, Problem};

impl Problem {
    /// 400: the request cannot be read at all.
    pub fn bad_request(detail: impl Into<Detail>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "Bad request",
            detail,
        )
    }

    /// 401, with the challenge that RFC 9110 wants beside it.
    pub fn unauthorized(detail: impl Into<Detail>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "Unauthorized",
            detail,
        )
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403: known, but not allowed.
    pub fn forbidden(detail: impl Into<Detail>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<Detail>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 410: it was there, and is no longer good.
    pub fn gone(detail: impl Into<Detail>) -> Self {
        Self::new(StatusCode::GONE, "gone", "Gone", detail)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            "This path does not take this method; the Allow header lists those it takes.",
        )
    }

    /// 408: the request was not done in time.
    pub fn timeout(detail: impl Into<Detail>) -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "Request timeout",
            detail,
        )
        .with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// 409: right in itself, but not in the state in which things are.
    pub fn conflict(detail: impl Into<Detail>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "Conflict", detail)
    }

    /// 412: it has changed since the version that the request is for.
    pub fn precondition_failed(detail: impl Into<Detail>) -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
            "Precondition failed",
            detail,
        )
    }

    /// 413, with the limit in bytes.
    pub fn payload_too_large(limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "payload-too-large",
            "Payload too large",
            format!("The body is larger than {limit} bytes; send less."),
        )
        .with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// 415.
    pub fn unsupported_media_type(detail: impl Into<Detail>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "Unsupported media type",
            detail,
        )
    }

    /// 416: the file has no such bytes.
    pub fn range_not_satisfiable(size: u64) -> Self {
        let problem = Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "range-not-satisfiable",
            "Range not satisfiable",
            format!("There are {size} bytes; ask for some of them."),
        );
        match HeaderValue::try_from(format!("bytes */{size}")) {
            Ok(range) => problem.with_header(header::CONTENT_RANGE, range),
            // Digits always are a header value.
            Err(_) => problem,
        }
    }

    /// 422: readable, but wrong in itself.
    pub fn unprocessable(detail: impl Into<Detail>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unprocessable",
            "Unprocessable content",
            detail,
        )
    }

    /// 422 that names every wrong field.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let mut problem = Self::unprocessable("The request is wrong; `errors` says where.");
        problem.0.errors = errors;
        problem
    }

    /// 429, with the time after which to try again.
    pub fn too_many_requests(detail: impl Into<Detail>, retry_after: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-requests",
            "Too many requests",
            detail,
        )
        .retry_after(retry_after)
    }

    /// 431.
    pub fn headers_too_large(detail: impl Into<Detail>) -> Self {
        Self::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers-too-large",
            "Request header fields too large",
            detail,
        )
    }

    /// 500, which tells the client nothing but the request id; log the cause before.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal server error",
            "Something went wrong here; the server's log has it under this request id.",
        )
    }

    /// 502: the service behind this one answered wrongly or not at all.
    pub fn bad_gateway(detail: impl Into<Detail>) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "bad-gateway",
            "Bad gateway",
            detail,
        )
    }

    /// 503, with the time after which to try again.
    pub fn unavailable(detail: impl Into<Detail>, retry_after: Duration) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Service unavailable",
            detail,
        )
        .retry_after(retry_after)
    }

    /// 504: the service behind this one was too slow.
    pub fn gateway_timeout(detail: impl Into<Detail>) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "gateway-timeout",
            "Gateway timeout",
            detail,
        )
    }
}
