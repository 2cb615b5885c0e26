//! Who may call: nobody without a key, whatever is asked for.

use serde_json::json;
use tests::{API_KEY, Client, RUNNER_TOKEN, System};

const BASES: [&str; 2] = ["/api/v1/ops", "/api/ops"];

#[tokio::test]
async fn without_a_key_everything_below_both_bases_answers_401_first() {
    let system = System::builder().set("MAX_BODY_BYTES", "100").set("FEATURE_METRICS", "0").start().await;
    let job = json!({"job_type": "nothing"}).to_string();
    let long = vec![b'x'; 1000];
    for base in BASES {
        for (method, path, body, with_key) in [
            ("GET", "/jobs", "", 200),
            ("POST", "/jobs", job.as_str(), 201),
            ("POST", "/jobs", "{", 400),
            ("POST", "/jobs", std::str::from_utf8(&long).expect("text"), 413),
            ("DELETE", "/jobs", "", 405),
            ("GET", "/jobs/nothing", "", 404),
            ("GET", "/health/metrics", "", 404),
            ("GET", "/nothing/at/all", "", 404),
            ("GET", "/debug/env", "", 200),
            ("GET", "/openapi.json", "", 200),
            ("GET", "", "", 404),
            ("GET", "/", "", 404),
        ] {
            let name = format!("{method} {base}{path} {body:.20}");
            let call = |client: &Client| client.at(base).call(method, path).text(body);
            for client in [
                system.ops.anonymous(),
                system.ops.anonymous().with("x-ops-key", ""),
                system.ops.anonymous().with("x-ops-key", "wrong"),
                system.ops.anonymous().with("x-ops-key", RUNNER_TOKEN),
                system.ops.anonymous().with("authorization", "Bearer wrong"),
                system.ops.with("x-ops-key", API_KEY),
            ] {
                let answer = call(&client).send().await;
                assert_eq!(answer.problem(401)["detail"], "Invalid or missing X-Ops-Key", "{name}");
                assert_eq!(answer.header("allow"), "", "{name}");
            }
            assert_eq!(call(&system.ops).send().await.status, with_key, "{name}");
        }
    }
    assert_eq!(system.database.count("select count(*) from ops_jobs").await, 2, "only those with a key");
    system.stop().await;
}

#[tokio::test]
async fn each_key_of_the_list_opens_as_a_header_or_as_a_bearer() {
    let system = System::builder().set("OPS_API_KEY", "the-old-key, the-new-key").runners(0).start().await;
    let anyone = system.ops.anonymous();
    for key in ["the-old-key", "the-new-key"] {
        anyone.with("x-ops-key", key).get("/jobs").await.expect(200);
        anyone.with("authorization", &format!("Bearer {key}")).get("/jobs").await.expect(200);
    }
    for wrong in [API_KEY, "the-old-key, the-new-key", "the-old-ke", "THE-OLD-KEY"] {
        anyone.with("x-ops-key", wrong).get("/jobs").await.problem(401);
    }
    anyone.with("authorization", "Basic dGhlLW9sZC1rZXk=").get("/jobs").await.problem(401);
    system.stop().await;
}

#[tokio::test]
async fn without_any_accepted_key_nobody_gets_in() {
    let system = System::builder().set("OPS_API_KEY", "").runners(0).start().await;
    for key in ["", API_KEY, ","] {
        system.ops.anonymous().with("x-ops-key", key).get("/jobs").await.problem(401);
    }
    system.ops.anonymous().get("/jobs").await.problem(401);
    system.ops.anonymous().at("").get("/healthz").await.expect(200);
    system.stop().await;
}
