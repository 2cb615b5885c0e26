//! Who calls: a key in a header, compared in constant time, before anything else is answered.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use subtle::ConstantTimeEq;

use crate::edge;
use crate::problem::Problem;
use crate::secret::{KeyId, KeySet};

/// The one who calls, as a handler may ask for it on a guarded route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Which of the accepted keys was presented.
    pub key_id: KeyId,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        // Absent only on a route that nobody guards, which must not act for anybody.
        let caller = parts.extensions.get::<Self>().copied();
        caller.ok_or_else(|| Problem::unauthorized("This route needs a key."))
    }
}

/// Lets only those in who present an accepted key.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    keys: KeySet,
    header: HeaderName,
    bearer: Bearer,
    refusal: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bearer {
    Ignored,
    Accepted,
}

impl Guard {
    /// Accepts `X-Ops-Key`, or the same key as `Authorization: Bearer`.
    pub fn ops_key(keys: KeySet) -> Self {
        Self(Arc::new(Rule {
            keys,
            header: HeaderName::from_static("x-ops-key"),
            bearer: Bearer::Accepted,
            refusal: "Invalid or missing X-Ops-Key",
        }))
    }

    /// Accepts `X-Runner-Token`.
    pub fn runner_token(keys: KeySet) -> Self {
        Self(Arc::new(Rule {
            keys,
            header: HeaderName::from_static("x-runner-token"),
            bearer: Bearer::Ignored,
            refusal: "Invalid or missing X-Runner-Token",
        }))
    }

    /// Guards every path of a router: also unknown ones, wrong methods and bodies too large.
    ///
    /// Lay limits around the router before. One that is to stand below a path goes to
    /// [`Guard::nest`] instead.
    pub fn protect<S: Clone + Send + Sync + 'static>(self, router: Router<S>) -> Router<S> {
        // The fallbacks must be there before the layer, or they would be reached around it.
        edge::with_fallbacks(router).layer(from_fn_with_state(self, check))
    }

    /// Guards a router and puts it below a path, so that nothing below that path answers a
    /// stranger anything but 401.
    pub fn nest<S: Clone + Send + Sync + 'static>(
        self,
        base: &str,
        router: Router<S>,
    ) -> Router<S> {
        // Nesting covers the base and what is below it, but not the base with a bare slash.
        let bare = Router::new().route(&format!("{base}/"), any(edge::not_found));
        let bare = bare.layer(from_fn_with_state(self.clone(), check));
        Router::new().nest(base, self.protect(router)).merge(bare)
    }

    fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let header = single(headers, &self.0.header);
        let bearer = match self.0.bearer {
            Bearer::Accepted => bearer(headers),
            Bearer::Ignored => Presented::Nothing,
        };
        let key = match (header, bearer) {
            (Presented::Key(key), Presented::Nothing)
            | (Presented::Nothing, Presented::Key(key)) => key,
            (Presented::Key(key), Presented::Key(same))
                if bool::from(key.as_bytes().ct_eq(same.as_bytes())) =>
            {
                key
            }
            // Nothing goes the same way as something wrong, and takes as long.
            _ => "",
        };
        self.0.keys.accepts(key).map(|key_id| Caller { key_id })
    }
}

enum Presented<'headers> {
    Nothing,
    Key(&'headers str),
    Unclear,
}

/// The value of a header that may stand only once.
fn single<'headers>(headers: &'headers HeaderMap, name: &HeaderName) -> Presented<'headers> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Presented::Nothing,
        (Some(value), None) => value.to_str().map_or(Presented::Unclear, Presented::Key),
        (Some(_), Some(_)) => Presented::Unclear,
    }
}

fn bearer(headers: &HeaderMap) -> Presented<'_> {
    match single(headers, &header::AUTHORIZATION) {
        Presented::Key(value) => match value.split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => {
                Presented::Key(key.trim())
            }
            // Another scheme is for a proxy in front of us, not for us.
            _ => Presented::Nothing,
        },
        other => other,
    }
}

async fn check(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    match guard.caller(request.headers()) {
        Some(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        None => Problem::unauthorized(guard.0.refusal).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Method;
    use axum::routing::post;
    use tower::ServiceExt;

    use super::*;
    use crate::secret::Secret;

    fn guard() -> Guard {
        Guard::ops_key(KeySet::new(&[Secret::new("one"), Secret::new("two")]))
    }

    fn accepts(pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header value"));
        }
        guard().caller(&headers).is_some()
    }

    #[test]
    fn one_accepted_key_opens_however_it_is_presented() {
        for pairs in [
            [("x-ops-key", "one")].as_slice(),
            &[("x-ops-key", "two")],
            &[("authorization", "Bearer one")],
            &[("authorization", "bearer two")],
            &[("x-ops-key", "one"), ("authorization", "Bearer one")],
            &[("x-ops-key", "one"), ("authorization", "Basic dXNlcg==")],
        ] {
            assert!(accepts(pairs), "{pairs:?}");
        }
    }

    #[test]
    fn whatever_is_wrong_doubled_or_contradictory_does_not() {
        for pairs in [
            [].as_slice(),
            &[("x-ops-key", "")],
            &[("x-ops-key", "three")],
            &[("x-ops-key", "one,two")],
            &[("x-ops-key", "one"), ("x-ops-key", "one")],
            &[("x-ops-key", "one"), ("authorization", "Bearer two")],
            &[
                ("authorization", "Bearer one"),
                ("authorization", "Bearer one"),
            ],
            &[("authorization", "one")],
            &[("x-runner-token", "one")],
            &[("x-ops-key", "\u{e9}")],
        ] {
            assert!(!accepts(pairs), "{pairs:?}");
        }
    }

    #[test]
    fn a_guard_without_keys_lets_nobody_in() {
        let guard = Guard::runner_token(KeySet::default());
        let mut headers = HeaderMap::new();
        assert!(guard.caller(&headers).is_none());
        headers.insert("x-runner-token", "".parse().expect("a header value"));
        assert!(guard.caller(&headers).is_none());
    }

    async fn status(method: Method, path: &str, key: Option<&str>) -> u16 {
        let inner = Router::new().route("/jobs", post(|_: Caller| async { "done" }));
        let inner = crate::limits::with_body_limit(inner, 4);
        let other = guard().nest("/api/v1/ops", inner.clone());
        let app = edge::wear(guard().nest("/api/ops", inner).merge(other), None);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-length", "5");
        if let Some(key) = key {
            request = request.header("x-ops-key", key);
        }
        let request = request.body(Body::from("12345")).expect("a request");
        app.oneshot(request)
            .await
            .expect("an answer")
            .status()
            .as_u16()
    }

    #[tokio::test]
    async fn an_unknown_caller_hears_401_whatever_it_asks_for() {
        for (method, path, with_key) in [
            (Method::POST, "/api/ops/jobs", 413),
            (Method::POST, "/api/ops/nothing", 404),
            (Method::GET, "/api/ops/jobs", 405),
            (Method::TRACE, "/api/ops/jobs", 405),
            (Method::POST, "/api/ops", 404),
            (Method::POST, "/api/ops/", 404),
            (Method::POST, "/api/ops/a/b/c?x=1", 404),
            (Method::POST, "/api/ops//jobs", 404),
            (Method::POST, "/api/v1/ops/", 404),
            (Method::POST, "/api/v1/ops/jobs", 413),
        ] {
            let name = format!("{method} {path}");
            assert_eq!(status(method.clone(), path, None).await, 401, "{name}");
            assert_eq!(
                status(method.clone(), path, Some("wrong")).await,
                401,
                "{name}"
            );
            assert_eq!(status(method, path, Some("one")).await, with_key, "{name}");
        }
        assert_eq!(status(Method::GET, "/elsewhere", None).await, 404);
    }
}
