//! The table of routes against its description, its gates and its guard; what needs a database is tested from outside.

use std::collections::BTreeSet;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, header};
use axum::response::Response;
use serde_json::Value;
use service::{Environment, Sources};
use tower::ServiceExt;

use super::*;

/// A service whose database is away for good: what is answered without it can be tested without one.
fn service(settings: &[(&str, &str)]) -> Router {
    service::install_crypto();
    let base = [
        ("APP_ENV", "test"),
        ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
        ("SECRET_KEY", "s"),
        ("OPS_API_KEY", "k"),
        ("RUNNER_URL", "http://127.0.0.1:1"),
        ("RUNNER_TOKEN_OUTBOUND", "t"),
        ("MAX_BODY_BYTES", "64"),
    ];
    let environment = Environment::from_pairs(base.into_iter().chain(settings.iter().copied()));
    let config = Config::load(Sources {
        config: None,
        environment,
    })
    .expect("right settings");
    let (stopper, leaving) = service::Stop::new();
    // Dropped, it would count as asked.
    std::mem::forget(stopper);
    router(Arc::new(App::new(config, leaving).expect("an app")))
}

fn all_on() -> Router {
    let flags = Flag::all().map(|flag| (flag.name(), "1"));
    let notion = [
        ("NOTION_TOKEN", "t"),
        ("NOTION_DATABASE_ID", "0123456789abcdef0123456789abcdef"),
    ];
    let settings: Vec<_> = flags.chain(notion).collect();
    service(&settings)
}

async fn ask(service: &Router, method: &str, path: &str, key: &str) -> Response {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("x-ops-key", key)
        .header("x-request-id", "r");
    let request = request.body(Body::empty()).expect("a request");
    service.clone().oneshot(request).await.expect("an answer")
}

async fn text(response: Response) -> String {
    let bytes = to_bytes(response.into_body(), usize::MAX)
        .await
        .expect("a body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The methods that a path takes, as its 405 lists them.
async fn methods(service: &Router, path: &str) -> BTreeSet<String> {
    let response = ask(service, "TRACE", path, "k").await;
    assert_eq!(response.status().as_u16(), 405, "{path}");
    let allowed = response.headers()[header::ALLOW].to_str().expect("text");
    allowed
        .split(',')
        .filter(|method| *method != "HEAD")
        .map(str::to_lowercase)
        .collect()
}

#[tokio::test]
async fn every_route_is_described_with_its_methods_and_nothing_else_is() {
    let service = all_on();
    let document = openapi::openapi();
    assert!(
        document["openapi"]
            .as_str()
            .expect("a version")
            .starts_with("3.1")
    );
    let described = document["paths"].as_object().expect("paths");
    let beside = ["/healthz", "/livez", "/readyz", LINK].map(str::to_owned);
    let ops = routes()
        .into_iter()
        // OpenAPI has no word for a parameter that holds slashes.
        .map(|(path, ..)| format!("{BASE}{}", path.replace("{*", "{")));
    let there: BTreeSet<String> = ops.chain(beside).collect();
    assert_eq!(described.keys().cloned().collect::<BTreeSet<_>>(), there);
    for path in there {
        let methods_described: BTreeSet<_> = described[&path]
            .as_object()
            .expect("methods")
            .keys()
            .cloned()
            .collect();
        assert_eq!(methods_described, methods(&service, &path).await, "{path}");
    }
}

#[test]
fn every_route_below_the_base_is_described_as_needing_a_key_and_every_reference_leads_somewhere() {
    let document = openapi::openapi();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for operation in item.as_object().expect("methods").values() {
            assert_eq!(
                operation["security"].is_array(),
                path.starts_with(BASE),
                "{path}"
            );
            assert_eq!(
                operation["responses"]["401"].is_object(),
                path.starts_with(BASE),
                "{path}"
            );
        }
    }
    let whole = document.to_string();
    for reference in whole.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(
            document["components"]["schemas"][name].is_object(),
            "{name}"
        );
    }
    assert!(document["components"]["schemas"]["ProblemDocument"].is_object());
    assert!(document["components"]["securitySchemes"]["ops_key"].is_object());
}

#[tokio::test]
async fn a_route_whose_gate_is_closed_cannot_be_told_from_an_unknown_path() {
    let closed = service(&[("META_ENABLED", "0")]);
    let paths = routes()
        .into_iter()
        .filter(|(_, gate, ..)| *gate != OPEN)
        .map(|(path, ..)| path);
    for path in paths {
        for base in [BASE, ALIAS] {
            for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
                let there = ask(&closed, method, &format!("{base}{path}"), "k").await;
                let unknown = ask(&closed, method, &format!("{base}/nonexistent"), "k").await;
                assert_eq!(there.status().as_u16(), 404, "{method} {path}");
                assert_eq!(there.headers(), unknown.headers(), "{method} {path}");
                assert_eq!(text(there).await, text(unknown).await, "{method} {path}");
            }
        }
    }
    let served: Value =
        serde_json::from_str(&text(ask(&closed, "GET", "/api/ops/openapi.json", "k").await).await)
            .expect("JSON");
    assert_eq!(served["paths"].as_object().expect("paths").len(), 12);
}

#[tokio::test]
async fn without_a_key_everything_below_the_bases_is_401() {
    let services = [all_on(), service(&[]), service(&[("OPS_API_KEY", "")])];
    for service in &services {
        for base in [BASE, ALIAS] {
            for path in [
                "",
                "/",
                "/jobs",
                "/nothing",
                "/jobs/x/y/z",
                "/trigger_runner",
                "/meta",
            ] {
                for method in [Method::GET, Method::POST, Method::PATCH] {
                    let response =
                        ask(service, method.as_str(), &format!("{base}{path}"), "wrong").await;
                    assert_eq!(response.status().as_u16(), 401, "{method} {path}");
                    assert!(
                        text(response)
                            .await
                            .contains("Invalid or missing X-Ops-Key")
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_job_type_behind_a_flag_that_is_off_is_refused_wherever_it_can_be_asked_for() {
    let service = service(&[
        ("JOBS_ENABLED", "1"),
        ("RUNNER_ENABLED", "1"),
        ("MAX_BODY_BYTES", "1000"),
    ]);
    for (path, body) in [
        ("/jobs", r#"{"job_type":"metrics_refresh"}"#),
        (
            "/jobs/batch",
            r#"{"jobs":[{"job_type":"a"},{"job_type":"metrics_refresh"}]}"#,
        ),
        ("/trigger_runner", r#"{"job_type":"metrics_refresh"}"#),
    ] {
        let request = Request::post(format!("{BASE}{path}")).header("x-ops-key", "k");
        let request = request
            .header("content-type", "application/json")
            .body(Body::from(body))
            .expect("a request");
        let response = service.clone().oneshot(request).await.expect("an answer");
        assert_eq!(response.status().as_u16(), 403, "{path}");
        assert!(text(response).await.contains("FEATURE_METRICS"), "{path}");
    }
}

#[test]
fn every_route_says_which_scope_it_needs_and_only_looking_needs_the_narrowest() {
    let document = openapi::openapi();
    let mut widest = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            if !path.starts_with(BASE) {
                continue;
            }
            let needed = operation["security"][0]["ops_key"][0].as_str().expect(path);
            widest.insert(needed.to_owned());
            let looks = method == "get" || path.ends_with("/schedules/preview");
            let of_keys = path.starts_with(&format!("{BASE}/keys"));
            // Whoever may name an address is sent what jobs hold, and an address may hold a secret of its receiver's.
            let of_addresses = ["", "/{name}", "/{name}/rotate"]
                .iter()
                .any(|end| *path == format!("{BASE}/webhooks{end}"));
            let may_only_look = looks && !of_keys && !of_addresses;
            assert_eq!(needed == "read", may_only_look, "{method} {path}");
            let steers_all = of_keys || (of_addresses && !looks);
            assert_eq!(needed == "admin", steers_all, "{method} {path}");
        }
    }
    assert_eq!(widest.len(), 4);
}

#[tokio::test]
async fn a_key_of_the_database_is_503_while_the_database_is_away_and_no_guess_is() {
    let service = all_on();
    let kept = service::auth::new_key();
    let response = ask(&service, "GET", "/api/ops/debug/env", kept.expose()).await;
    assert_eq!(response.status().as_u16(), 503);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    for (key, status) in [("wrong", 401), ("opsd_1", 401), ("", 401), ("k", 200)] {
        let response = ask(&service, "GET", "/api/ops/debug/env", key).await;
        assert_eq!(response.status().as_u16(), status, "{key}");
    }
}
