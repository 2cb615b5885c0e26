//! Requests as spans, and what caused them, for the handlers.

use std::convert::Infallible;

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use opentelemetry::Value;

use super::{Carried, Role, Tracing};
use crate::around::around;
use crate::edge::method_word;

/// Asked every few seconds by machines; nobody looks at their traces.
const PROBES: [&str; 4] = ["/healthz", "/livez", "/readyz", "/metrics"];

/// The span that a request's work is a child of, if there is any: its own, or its caller's where nothing is exported.
#[derive(Debug, Clone, Default)]
pub struct Caused(pub Option<Carried>);

impl<S: Send + Sync> FromRequestParts<S> for Caused {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

impl Tracing {
    /// Gives every request its span; lay it around everything but [`crate::edge::wear`].
    pub fn watch<S: Clone + Send + Sync + 'static>(&self, router: Router<S>) -> Router<S> {
        router.layer(around(from_fn_with_state(self.clone(), trace_request)))
    }
}

async fn trace_request(
    State(tracing): State<Tracing>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = Carried::of_headers(request.headers());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    if PROBES.iter().any(|probe| route.ends_with(probe)) {
        return next.run(request).await;
    }
    let method = method_word(request.method());
    let mut span = tracing.begin(Role::Server, caller.as_ref(), || {
        let attributes = [
            ("http.request.method", Value::from(method)),
            ("http.route", Value::from(route.to_owned())),
        ];
        (format!("{method} {route}"), attributes)
    });
    let caused = Caused(span.carried());
    if let Some(carried) = &caused.0 {
        tracing::Span::current().record("trace_id", carried.trace_id());
    }
    request.extensions_mut().insert(caused);
    let response = next.run(request).await;
    let status = response.status();
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.fail("server_error");
    }
    response
}
