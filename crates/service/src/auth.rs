//! Who calls: a key in a header, compared in constant time, before anything else is answered.

mod failures;
mod kept;
mod scope;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use subtle::ConstantTimeEq;

use crate::around::around;
use crate::edge;
use crate::problem::Problem;
use crate::secret::{KeyId, KeySet};
use failures::{Failure, Failures};
use kept::Kept;

pub use failures::FailureCounts;
pub use kept::{Found, Keeper, new_key};
pub use scope::Scope;

/// The one who calls, as a handler may ask for it on a guarded route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Which of the accepted keys was presented.
    pub key_id: KeyId,
    /// What it opens.
    pub scope: Scope,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        // Absent only on a route that nobody guards, which must not act for anybody.
        let caller = parts.extensions.get::<Self>().copied();
        caller.ok_or_else(|| Problem::unauthorized("This route needs a key."))
    }
}

/// So many wrong keys may one address show a minute unless it is set otherwise.
const WRONG_PER_MINUTE: u32 = 3000;

/// Lets only those in who present an accepted key.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Rule>);

#[derive(Debug)]
struct Rule {
    /// The keys of the settings; each opens everything.
    keys: KeySet,
    /// Those that are kept elsewhere.
    kept: Option<Kept>,
    header: HeaderName,
    bearer: Bearer,
    refusal: &'static str,
    failures: Failures,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bearer {
    Ignored,
    Accepted,
}

impl Guard {
    /// Accepts `X-Ops-Key` with a key of the settings, and the usual number of wrong ones.
    pub fn ops_key(keys: KeySet) -> Self {
        Self::ops_key_with(keys, None, WRONG_PER_MINUTE)
    }

    /// Accepts `X-Ops-Key`, or the same key as `Authorization: Bearer`; beside the keys of the settings also those that
    /// `keeper` knows. One address may show so many wrong keys a minute.
    pub fn ops_key_with(
        keys: KeySet,
        keeper: Option<Arc<dyn Keeper>>,
        wrong_per_minute: u32,
    ) -> Self {
        Self(Arc::new(Rule {
            keys,
            kept: keeper.map(Kept),
            header: HeaderName::from_static("x-ops-key"),
            bearer: Bearer::Accepted,
            refusal: "Invalid or missing X-Ops-Key",
            failures: Failures::new(wrong_per_minute),
        }))
    }

    /// Accepts `X-Runner-Token`, and the usual number of wrong ones.
    pub fn runner_token(keys: KeySet) -> Self {
        Self::runner_token_with(keys, WRONG_PER_MINUTE)
    }

    /// Accepts `X-Runner-Token`. One address may show so many wrong ones a minute.
    pub fn runner_token_with(keys: KeySet, wrong_per_minute: u32) -> Self {
        Self(Arc::new(Rule {
            keys,
            kept: None,
            header: HeaderName::from_static("x-runner-token"),
            bearer: Bearer::Ignored,
            refusal: "Invalid or missing X-Runner-Token",
            failures: Failures::new(wrong_per_minute),
        }))
    }

    /// Guards every path of a router: also unknown ones, wrong methods and bodies too large.
    ///
    /// Lay limits around the router before. One that is to stand below a path goes to
    /// [`Guard::nest`] instead.
    pub fn protect<S: Clone + Send + Sync + 'static>(self, router: Router<S>) -> Router<S> {
        // The fallbacks must be there before the layer, or they would be reached around it.
        edge::with_fallbacks(router).layer(around(from_fn_with_state(self, check)))
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

    /// How many requests were refused for want of a key.
    pub fn failures(&self) -> FailureCounts {
        self.0.failures.counts()
    }

    async fn admit(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Caller, Problem> {
        let rule = &*self.0;
        let presented = self.presented(headers);
        if let Some(key_id) = rule.keys.accepts(presented.unwrap_or_default()) {
            let scope = Scope::Admin;
            return Ok(Caller { key_id, scope });
        }
        let Some(presented) = presented else {
            rule.failures.note(peer, Failure::Missing);
            return Err(Problem::unauthorized(rule.refusal));
        };
        let kept = rule.kept.as_ref().zip(kept::digest_of(presented));
        let is_known = kept
            .as_ref()
            .is_some_and(|(kept, key)| kept.0.remembers(key));
        if !is_known && let Some(wait) = rule.failures.wait_of(peer) {
            rule.failures.note_limited(peer);
            let why = "Too many wrong keys came from this address; try again later.";
            return Err(Problem::too_many_requests(why, wait));
        }
        if let Some((kept, digest)) = kept
            && let Some(caller) = kept.0.find(digest).await?
        {
            return Ok(caller);
        }
        rule.failures.note(peer, Failure::Wrong);
        Err(Problem::unauthorized(rule.refusal))
    }

    /// The key of a request; `None` where there is none. What is doubled or contradicts itself is no key of anybody.
    fn presented<'headers>(&self, headers: &'headers HeaderMap) -> Option<&'headers str> {
        let header = single(headers, &self.0.header);
        let bearer = match self.0.bearer {
            Bearer::Accepted => bearer(headers),
            Bearer::Ignored => Presented::Nothing,
        };
        match (header, bearer) {
            (Presented::Nothing, Presented::Nothing) => None,
            (Presented::Key(key), Presented::Nothing)
            | (Presented::Nothing, Presented::Key(key)) => Some(key),
            (Presented::Key(key), Presented::Key(same))
                if bool::from(key.as_bytes().ct_eq(same.as_bytes())) =>
            {
                Some(key)
            }
            // It goes the same way as something wrong, and takes as long.
            _ => Some(""),
        }
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
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|ConnectInfo(address)| address.ip());
    match guard.admit(request.headers(), peer).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Method;
    use axum::routing::post;
    use tower::ServiceExt;

    use super::*;
    use crate::secret::{KeyDigest, Secret};

    fn guard() -> Guard {
        Guard::ops_key_with(
            KeySet::new(&[Secret::new("one"), Secret::new("two")]),
            Some(Arc::new(OneKey)),
            60,
        )
    }

    /// Knows the one key of all zeroes.
    struct OneKey;

    impl Keeper for OneKey {
        fn remembers(&self, _: &KeyDigest) -> bool {
            false
        }

        fn find(&self, digest: KeyDigest) -> Found<'_> {
            let known = KeyDigest::of(&kept_key());
            let found = (digest == known).then(|| Caller {
                key_id: digest.id(),
                scope: Scope::Enqueue,
            });
            Box::pin(async move { Ok(found) })
        }
    }

    fn kept_key() -> String {
        format!("opsd_{}", "0".repeat(64))
    }

    async fn admitted(pairs: &[(&'static str, &str)]) -> Option<Caller> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header value"));
        }
        guard().admit(&headers, None).await.ok()
    }

    async fn accepts(pairs: &[(&'static str, &'static str)]) -> bool {
        admitted(pairs).await.is_some()
    }

    #[tokio::test]
    async fn one_accepted_key_opens_however_it_is_presented() {
        for pairs in [
            [("x-ops-key", "one")].as_slice(),
            &[("x-ops-key", "two")],
            &[("authorization", "Bearer one")],
            &[("authorization", "bearer two")],
            &[("x-ops-key", "one"), ("authorization", "Bearer one")],
            &[("x-ops-key", "one"), ("authorization", "Basic dXNlcg==")],
        ] {
            assert!(accepts(pairs).await, "{pairs:?}");
        }
    }

    #[tokio::test]
    async fn whatever_is_wrong_doubled_or_contradictory_does_not() {
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
            assert!(!accepts(pairs).await, "{pairs:?}");
        }
    }

    #[tokio::test]
    async fn a_guard_without_keys_lets_nobody_in() {
        let guard = Guard::runner_token(KeySet::default());
        let mut headers = HeaderMap::new();
        assert!(guard.admit(&headers, None).await.is_err());
        headers.insert("x-runner-token", "".parse().expect("a header value"));
        assert!(guard.admit(&headers, None).await.is_err());
    }

    #[tokio::test]
    async fn a_key_that_is_kept_elsewhere_opens_with_its_own_scope() {
        let key = kept_key();
        let caller = admitted(&[("x-ops-key", &key)]).await.expect("known");
        assert_eq!(caller.scope, Scope::Enqueue);
        let of_settings = admitted(&[("x-ops-key", "one")]).await.expect("known");
        assert_eq!(of_settings.scope, Scope::Admin);
        let other = key.replace("opsd_0", "opsd_1");
        assert_eq!(admitted(&[("x-ops-key", &other)]).await, None);
    }

    #[tokio::test]
    async fn too_many_wrong_keys_from_one_address_are_429_and_right_ones_still_open() {
        let guard = guard();
        let show = async |key: &str, peer: [u8; 4]| {
            let mut headers = HeaderMap::new();
            headers.insert("x-ops-key", key.parse().expect("a header value"));
            let admitted = guard.admit(&headers, Some(IpAddr::from(peer))).await;
            admitted.map_or_else(|problem| problem.status().as_u16(), |_| 200)
        };
        let mut statuses = Vec::new();
        for _ in 0..70 {
            statuses.push(show("wrong", [10, 0, 0, 1]).await);
        }
        assert_eq!(statuses[..60], [401; 60]);
        assert_eq!(statuses[65..], [429; 5]);
        assert_eq!(show("one", [10, 0, 0, 1]).await, 200);
        assert_eq!(show("wrong", [10, 0, 0, 2]).await, 401);
        assert_eq!(guard.failures().wrong, 71);
        assert!(guard.failures().limited >= 5);
    }

    async fn status(method: Method, path: &str, key: Option<&str>) -> u16 {
        let inner = Router::new().route("/jobs", post(|_: Caller| async { "done" }));
        let inner = crate::limits::Limits::of_body(4).around(inner);
        let other = guard().nest("/api/v1/ops", inner.clone());
        let app = edge::wear(guard().nest("/api/ops", inner).merge(other), None, None);
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
