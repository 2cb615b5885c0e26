//! Whether pages of other origins may call: nobody's, unless settings name them.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::settings::{Fallback, Kind, Setting, Values};

/// Which other origins may call, and how.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Origins,
    max_age: Duration,
}

/// Credentials for every origin cannot be said, because browsers rightly refuse it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origins {
    Any,
    Listed(Vec<HeaderValue>),
    ListedWithCredentials(Vec<HeaderValue>),
}

impl Cors {
    /// The declarations; a program that serves browsers lists them beside its own.
    pub const SETTINGS: &'static [Setting] = &[
        Setting::new(
            "CORS_ENABLED",
            Kind::Switch,
            Fallback::Is("0"),
            "whether pages of other origins may call",
        ),
        Setting::new(
            "CORS_ALLOW_ORIGINS",
            Kind::List,
            Fallback::Means("`*` when enabled"),
            "which origins may",
        ),
        Setting::new(
            "CORS_ALLOW_CREDENTIALS",
            Kind::Switch,
            Fallback::Is("0"),
            "whether they may send credentials; refused at startup with `*`",
        ),
        Setting::new(
            "CORS_MAX_AGE",
            Kind::Seconds(0, 86_400),
            Fallback::Is("600"),
            "how long a browser may remember the answer",
        ),
    ];

    /// Reads the CORS settings; `None` when CORS is off, and then no CORS header is ever sent.
    pub fn read(values: &mut Values) -> Option<Self> {
        let enabled = values.switch("CORS_ENABLED");
        let credentials = values.switch("CORS_ALLOW_CREDENTIALS");
        let max_age = values.seconds("CORS_MAX_AGE");
        let listed = values.list("CORS_ALLOW_ORIGINS");
        if !enabled {
            return None;
        }
        let origins = if listed.is_empty() || listed.iter().any(|origin| origin == "*") {
            if credentials {
                values.refuse(
                    "CORS_ALLOW_CREDENTIALS",
                    "cannot go with every origin: list the origins in CORS_ALLOW_ORIGINS, or set this to 0",
                );
            }
            Origins::Any
        } else {
            let listed = parse_origins(&listed, values);
            if credentials {
                Origins::ListedWithCredentials(listed)
            } else {
                Origins::Listed(listed)
            }
        };
        Some(Self { origins, max_age })
    }

    pub(crate) fn layer(&self) -> CorsLayer {
        let layer = CorsLayer::new()
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers([
                header::CONTENT_TYPE,
                header::AUTHORIZATION,
                HeaderName::from_static("x-ops-key"),
                HeaderName::from_static("x-request-id"),
                HeaderName::from_static("idempotency-key"),
                HeaderName::from_static("last-event-id"),
            ])
            .expose_headers([
                HeaderName::from_static("x-request-id"),
                HeaderName::from_static("idempotency-replayed"),
                header::LOCATION,
                header::RETRY_AFTER,
            ])
            .max_age(self.max_age);
        match &self.origins {
            Origins::Any => layer.allow_origin(tower_http::cors::Any),
            Origins::Listed(origins) => layer.allow_origin(AllowOrigin::list(origins.clone())),
            Origins::ListedWithCredentials(origins) => layer
                .allow_origin(AllowOrigin::list(origins.clone()))
                .allow_credentials(true),
        }
    }
}

/// Origins are compared as browsers send them: scheme and host, no path.
fn parse_origins(listed: &[String], values: &mut Values) -> Vec<HeaderValue> {
    let parsed: Option<Vec<HeaderValue>> = listed
        .iter()
        .map(|origin| {
            let url = url::Url::parse(origin).ok()?;
            let exact = url.origin().ascii_serialization() == *origin && !origin.contains('*');
            exact.then(|| origin.parse().ok()).flatten()
        })
        .collect();
    parsed.unwrap_or_else(|| {
        values.refuse(
            "CORS_ALLOW_ORIGINS",
            "is no list of origins: write them like https://app.example.com, without a path",
        );
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::Request;
    use axum::response::Response;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::settings::{Environment, SettingsError, Sources};

    fn cors(pairs: &[(&str, &str)]) -> Result<Option<Cors>, SettingsError> {
        let environment = Environment::from_pairs(pairs.iter().copied());
        let sources = Sources {
            config: None,
            environment,
        };
        let mut values = Values::load(&[Cors::SETTINGS], &[], sources);
        let cors = Cors::read(&mut values);
        values.finish(cors)
    }

    async fn ask(cors: Option<&Cors>, method: &str, origin: &str) -> Response {
        ask_at(cors, method, "/", origin).await
    }

    async fn broken() -> &'static str {
        panic!("a handler with a mistake")
    }

    async fn ask_at(cors: Option<&Cors>, method: &str, path: &str, origin: &str) -> Response {
        let app: Router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/broken", get(broken));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ORIGIN, origin)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET")
            .body(Body::empty())
            .expect("a request");
        crate::edge::wear(app, cors, None)
            .oneshot(request)
            .await
            .expect("an answer")
    }

    fn allowed(response: &Response) -> Option<&str> {
        response
            .headers()
            .get(header::ACCESS_CONTROL_ALLOW_ORIGIN)?
            .to_str()
            .ok()
    }

    #[tokio::test]
    async fn no_header_is_sent_while_cors_is_off() {
        let off = cors(&[("CORS_ALLOW_ORIGINS", "*")]).expect("right");
        assert!(off.is_none());
        for method in ["GET", "OPTIONS"] {
            let response = ask(off.as_ref(), method, "https://a.example").await;
            let mut names = response.headers().keys();
            assert!(
                names.all(|name| !name.as_str().starts_with("access-control")),
                "{method}"
            );
        }
    }

    #[tokio::test]
    async fn listed_origins_may_call_and_no_others() {
        let pairs = [
            ("CORS_ENABLED", "1"),
            (
                "CORS_ALLOW_ORIGINS",
                "https://a.example,http://b.example:81",
            ),
            ("CORS_ALLOW_CREDENTIALS", "1"),
        ];
        let listed = cors(&pairs).expect("right");
        for method in ["GET", "OPTIONS"] {
            let response = ask(listed.as_ref(), method, "https://a.example").await;
            assert_eq!(allowed(&response), Some("https://a.example"), "{method}");
            let response = ask(listed.as_ref(), method, "https://a.example.evil").await;
            assert_eq!(allowed(&response), None, "{method}");
        }
    }

    #[tokio::test]
    async fn a_page_of_another_origin_may_read_that_a_handler_broke() {
        let any = cors(&[("CORS_ENABLED", "1")]).expect("right");
        let response = ask_at(any.as_ref(), "GET", "/broken", "https://a.example").await;
        assert_eq!(response.status(), 500);
        assert_eq!(allowed(&response), Some("*"));
    }

    #[tokio::test]
    async fn every_origin_may_call_when_none_is_listed_and_sees_the_request_id() {
        let any = cors(&[("CORS_ENABLED", "1")]).expect("right");
        let response = ask(any.as_ref(), "GET", "https://a.example").await;
        assert_eq!(allowed(&response), Some("*"));
        let exposed = &response.headers()[header::ACCESS_CONTROL_EXPOSE_HEADERS];
        assert!(exposed.to_str().expect("text").contains("x-request-id"));
        let preflight = ask(any.as_ref(), "OPTIONS", "https://a.example").await;
        assert_eq!(preflight.headers()[header::ACCESS_CONTROL_MAX_AGE], "600");
    }

    #[tokio::test]
    async fn an_options_that_is_no_preflight_is_a_request_like_any_other() {
        let any = cors(&[("CORS_ENABLED", "1")]).expect("right");
        let keys = crate::KeySet::new(&[crate::Secret::new("k")]);
        let inner: Router = Router::new().route("/jobs", get(|| async { "hello" }));
        let app = crate::Guard::ops_key(keys).nest("/ops", inner);
        let app = crate::edge::wear(app, any.as_ref(), None);
        let origin = (header::ORIGIN, "https://a.example");
        let wanted = (header::ACCESS_CONTROL_REQUEST_METHOD, "GET");
        for (headers, status) in [
            (vec![origin.clone(), wanted.clone()], 200),
            (vec![origin], 401),
            (vec![wanted], 401),
            (vec![], 401),
        ] {
            let mut request = Request::builder().method("OPTIONS").uri("/ops/jobs");
            for (name, value) in &headers {
                request = request.header(name, *value);
            }
            let request = request.body(Body::empty()).expect("a request");
            let response = app.clone().oneshot(request).await.expect("an answer");
            assert_eq!(response.status(), status, "{headers:?}");
        }
    }

    #[test]
    fn credentials_for_everyone_and_odd_origins_are_refused() {
        let on = ("CORS_ENABLED", "1");
        for pairs in [
            [on, ("CORS_ALLOW_CREDENTIALS", "1")].as_slice(),
            &[
                on,
                ("CORS_ALLOW_CREDENTIALS", "1"),
                ("CORS_ALLOW_ORIGINS", "https://a.example,*"),
            ],
            &[on, ("CORS_ALLOW_ORIGINS", "https://a.example/path")],
            &[on, ("CORS_ALLOW_ORIGINS", "a.example")],
            &[on, ("CORS_ALLOW_ORIGINS", "https://*.example")],
        ] {
            assert!(cors(pairs).is_err(), "{pairs:?}");
        }
    }
}
