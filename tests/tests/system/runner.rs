//! The runner's own routes.

use serde_json::json;
use service::KeyDigest;
use tests::{API_KEY, RUNNER_TOKEN, System};

use crate::scripts::{Door, HOLD};

#[tokio::test]
async fn without_the_token_every_route_but_health_answers_401() {
    let system = System::builder()
        .set("RUNNER_TOKEN", "old-token, new-token")
        .start()
        .await;
    let anyone = system.runner(0).anonymous();
    for (method, path) in [
        ("POST", "/run"),
        ("POST", "/tick"),
        ("GET", "/v1/meta"),
        ("GET", "/run"),
        ("GET", "/nothing"),
        ("GET", "/"),
        ("GET", "/a/b"),
    ] {
        for client in [
            anyone.clone(),
            anyone.with("x-runner-token", "wrong"),
            anyone.with("x-runner-token", ""),
            anyone.with("x-ops-key", API_KEY),
            anyone.with("authorization", "Bearer new-token"),
        ] {
            let answer = client.call(method, path).text("{").send().await;
            assert_eq!(
                answer.problem(401)["detail"],
                "Invalid or missing X-Runner-Token",
                "{method} {path}"
            );
        }
    }
    for token in ["old-token", "new-token"] {
        anyone
            .with("x-runner-token", token)
            .get("/v1/meta")
            .await
            .expect(200);
        anyone
            .with("x-runner-token", token)
            .get("/nothing")
            .await
            .problem(404);
    }
    system.stop().await;
}

#[tokio::test]
async fn a_taken_job_is_running_before_the_answer_says_so() {
    let builder = System::builder()
        .shell("hold", HOLD, "")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0");
    let system = builder.start().await;
    let (door, runner) = (Door::of(&system), system.runner(0));
    let id = system.submit(&door.job()).await;
    let answer = runner
        .post("/run", &json!({ "job_id": id }))
        .await
        .expect(202)
        .json();
    assert_eq!(
        answer,
        json!({"job_id": id, "status": "running", "attempt": 1, "runner_id": "runner-1"})
    );
    let job = system.job(&id).await;
    assert_eq!(
        (&job["status"], &job["runner_id"], &job["attempt"]),
        (&json!("running"), &json!("runner-1"), &json!(1))
    );
    assert!(
        job["fence"].as_i64().is_some_and(|fence| fence > 0) && !job["lease_expires_at"].is_null(),
        "{job}"
    );
    assert_eq!(
        runner
            .post("/run", &json!({ "job_id": id }))
            .await
            .problem(409)["job_status"],
        "running"
    );
    door.open();
    system.until(&id, "succeeded").await;
    runner
        .post("/run", &json!({ "job_id": id }))
        .await
        .problem(409);
    system.stop().await;
}

#[tokio::test]
async fn crons_call_records_a_job_and_takes_it() {
    let builder = System::builder()
        .shell("hello", "cat > \"$OPS_RESULT_FILE\"", "")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0");
    let system = builder.start().await;
    let answer = system
        .runner(0)
        .post("/run", &json!({"job_type": "hello", "payload": {"a": 1}}))
        .await
        .expect(202)
        .json();
    let job = system
        .until(answer["job_id"].as_str().expect("an id"), "succeeded")
        .await;
    assert_eq!(
        (&job["result"], &job["created_by"]),
        (
            &json!({"a": 1}),
            &json!(KeyDigest::of(RUNNER_TOKEN).id().to_string())
        )
    );
    let bare = system
        .runner(0)
        .post("/run", &json!({"job_type": "hello"}))
        .await
        .expect(202)
        .json();
    system
        .until(bare["job_id"].as_str().expect("an id"), "succeeded")
        .await;
    system.stop().await;
}

#[tokio::test]
async fn what_the_runner_may_not_take_is_refused_and_left_as_it_was() {
    let schema = r#"{"type": "object", "required": ["pages"], "additionalProperties": false}"#;
    let builder = System::builder().file("strict.json", schema).shell(
        "strict",
        "true",
        "payload_schema = \"strict.json\"",
    );
    let builder = builder
        .shell("hello", "true", "")
        .set("FEATURE_METRICS", "0")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0");
    let system = builder.start().await;
    let runner = system.runner(0);
    let elsewhere = system.submit_type("other").await;
    let unfit = system
        .submit(&json!({"job_type": "strict", "payload": {"canary": 1}}))
        .await;
    let future = system
        .submit(&json!({"job_type": "hello", "run_at": "2100-01-01T00:00:00Z"}))
        .await;
    for (body, status) in [
        (json!({ "job_id": elsewhere }), 403),
        (json!({"job_type": "other"}), 403),
        (json!({"job_type": "metrics_refresh"}), 403),
        (
            json!({"job_id": "0190163d-8694-739b-aea5-966c26f8ad90"}),
            404,
        ),
        (json!({ "job_id": future }), 409),
        (json!({ "job_id": unfit }), 422),
        (
            json!({"job_type": "strict", "payload": {"pages": 1, "more": 2}}),
            422,
        ),
        (json!({"job_type": "Hello"}), 422),
        (json!({}), 422),
        (json!({"job_id": elsewhere, "job_type": "hello"}), 422),
        (json!({"job_type": "hello", "priority": 1}), 422),
        (json!({"job_id": "nonsense"}), 422),
    ] {
        let answer = runner.post("/run", &body).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        answer.problem(status);
        assert!(!answer.body.contains("canary\":"), "{answer:?}");
    }
    runner
        .call("POST", "/run")
        .text("{")
        .send()
        .await
        .problem(400);
    runner
        .call("POST", "/run")
        .bytes("{}")
        .send()
        .await
        .problem(415);
    runner
        .call("POST", "/run")
        .text(vec![b' '; 2 * 1024 * 1024])
        .send()
        .await
        .problem(413);
    runner
        .call("POST", "/run")
        .text(r#"{"job_type":"hello","payload":"\u0000"}"#)
        .send()
        .await
        .problem(422);
    runner.get("/run").await.problem(405);
    assert_eq!(
        system
            .database
            .count("select count(*) from ops_jobs where status = 'queued'")
            .await,
        3
    );
    assert_eq!(
        system.database.count("select count(*) from ops_jobs").await,
        3
    );
    system.stop().await;
}

#[tokio::test]
async fn meta_tells_types_slots_and_limits() {
    let builder = System::builder().shell(
        "hello",
        "true",
        "timeout_seconds = 9\nmax_attempts = 2\nconcurrency = 3",
    );
    let system = builder.set("RUNNER_CONCURRENCY", "7").start().await;
    let meta = system.runner(0).get("/v1/meta").await.expect(200).json();
    assert_eq!(meta["slots"], json!({"total": 7, "used": 0}));
    let hello = json!({"name": "hello", "max_attempts": 2, "timeout_seconds": 9, "concurrency": 3});
    assert!(
        meta["job_types"]
            .as_array()
            .is_some_and(|types| types.contains(&hello)),
        "{meta}"
    );
    system.stop().await;
}
