//! Metrics for Prometheus: a registry of the program's own, what every service counts of its requests, and the page that
//! shows it all. Labels are words of ours and names that are bounded, never ids, paths as sent, or anything of a payload.

use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
pub use prometheus::{
    Error as MetricsError, Gauge, GaugeVec, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec,
    Registry,
};
use prometheus::{HistogramOpts, Opts, TextEncoder};

use crate::around::around;
use crate::auth::FailureCounts;
use crate::edge::method_word;
use crate::problem::Problem;

/// The format that every reader of metrics knows.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Seconds, from what a lookup takes to what a slow client takes.
pub const REQUEST_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Seconds, from a wake-up that came at once to a backlog of a day.
pub const WAIT_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
    3600.0, 14_400.0, 86_400.0,
];

/// Seconds, from a lookup to a job of half a day.
pub const RUN_SECONDS: &[f64] = &[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
    3600.0, 10_800.0, 43_200.0,
];

/// What one program counts of itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
}

impl Metrics {
    /// Begins to count, for a program of this name and version.
    ///
    /// # Errors
    /// When a name is taken or no name, which is a mistake of ours.
    pub fn new(program: &str, version: &str) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        gauges(
            &registry,
            "ops_build_info",
            "Always 1; what runs here.",
            &["program", "version"],
        )?
        .with_label_values(&[program, version])
        .set(1.0);
        Ok(Self {
            requests: counters(
                &registry,
                "ops_http_requests_total",
                "Requests answered.",
                &["method", "route", "status"],
            )?,
            request_seconds: histograms(
                &registry,
                "ops_http_request_duration_seconds",
                "How long a request took until its answer began.",
                &["method", "route"],
                REQUEST_SECONDS,
            )?,
            registry,
        })
    }

    /// Where the program registers what else it counts.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts what a router answers; lay it around everything but [`crate::edge::wear`].
    pub fn watch<S: Clone + Send + Sync + 'static>(&self, router: Router<S>) -> Router<S> {
        router.layer(around(from_fn_with_state(self.clone(), count_request)))
    }

    /// The page: what is registered here, and what was gathered for this one request.
    pub fn page(&self, gathered: &Registry) -> Response {
        let mut families = self.registry.gather();
        families.extend(gathered.gather());
        match TextEncoder::new().encode_to_string(&families) {
            Ok(text) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
            Err(error) => {
                tracing::error!(event = "metrics_not_encoded", %error);
                Problem::internal().into_response()
            }
        }
    }
}

async fn count_request(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = method_word(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let status = response.status();
    // Methods that a route does not have are the callers' words: nine for each route, were they told apart.
    let method = if status == StatusCode::METHOD_NOT_ALLOWED {
        "other"
    } else {
        method
    };
    metrics
        .requests
        .with_label_values(&[method, route, status.as_str()])
        .inc();
    metrics
        .request_seconds
        .with_label_values(&[method, route])
        .observe(begun.elapsed().as_secs_f64());
    response
}

/// Registers gauges.
///
/// # Errors
/// When the name is taken or no name.
pub fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<GaugeVec, MetricsError> {
    let made = GaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

/// Registers a gauge without labels.
///
/// # Errors
/// When the name is taken or no name.
pub fn gauge(registry: &Registry, name: &str, help: &str) -> Result<Gauge, MetricsError> {
    let made = Gauge::new(name, help)?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

/// Registers counters; their name ends with `_total`.
///
/// # Errors
/// When the name is taken or no name.
pub fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, MetricsError> {
    let made = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

/// Registers histograms; their name ends with their unit.
///
/// # Errors
/// When the name is taken or no name.
pub fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, MetricsError> {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let made = HistogramVec::new(options, labels)?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

/// Shows how many requests a guard refused for want of a key.
///
/// # Errors
/// When a name is taken, which is a mistake of ours.
pub fn refusals(registry: &Registry, refused: FailureCounts) -> Result<(), MetricsError> {
    let failed = counters(
        registry,
        "ops_http_failed_authentications_total",
        "Requests without a key, or with one that is not accepted.",
        &["reason"],
    )?;
    for (reason, count) in [("missing", refused.missing), ("wrong", refused.wrong)] {
        failed.with_label_values(&[reason]).inc_by(count);
    }
    counters(
        registry,
        "ops_http_limited_authentications_total",
        "Of the wrong ones, those answered 429 because too many came from one address.",
        &[],
    )?
    .with_label_values::<&str>(&[])
    .inc_by(refused.limited);
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn text(response: Response) -> String {
        let body = response.into_body().collect().await.expect("a body");
        String::from_utf8(body.to_bytes().to_vec()).expect("text")
    }

    #[tokio::test]
    async fn requests_are_counted_by_route_and_never_by_path() {
        let metrics = Metrics::new("test", "1.2.3").expect("metrics");
        let router = Router::new().route("/jobs/{id}", get(|| async { "job" }));
        let router: Router = crate::edge::wear(metrics.watch(router), None, None);
        for path in ["/jobs/1", "/jobs/2", "/unknown/secret"] {
            let request = Request::builder().uri(path);
            let request = request.body(Body::empty()).expect("a request");
            router.clone().oneshot(request).await.expect("an answer");
        }
        let page = metrics.page(&Registry::new());
        assert_eq!(page.headers()[header::CONTENT_TYPE], TEXT);
        let page = text(page).await;
        for line in [
            "# TYPE ops_build_info gauge",
            r#"ops_build_info{program="test",version="1.2.3"} 1"#,
            "# TYPE ops_http_requests_total counter",
            r#"ops_http_requests_total{method="GET",route="/jobs/{id}",status="200"} 2"#,
            "# TYPE ops_http_request_duration_seconds histogram",
            r#"ops_http_request_duration_seconds_count{method="GET",route="/jobs/{id}"} 2"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        assert!(
            !page.contains("secret") && !page.contains("/jobs/1"),
            "{page}"
        );
    }
}
