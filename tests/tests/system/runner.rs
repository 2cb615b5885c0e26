//! The runner's own routes.

use std::collections::BTreeSet;

use serde_json::json;
use tests::{API_KEY, System, wait_until};

use crate::scripts::{Door, HOLD};

#[tokio::test]
async fn without_the_token_every_route_but_health_answers_401() {
    let system = System::builder().set("RUNNER_TOKEN", "old-token, new-token").start().await;
    let anyone = system.runner(0).anonymous();
    for (method, path) in
        [("POST", "/run"), ("POST", "/tick"), ("GET", "/v1/meta"), ("GET", "/run"), ("GET", "/nothing"), ("GET", "/"), ("GET", "/a/b")]
    {
        for client in [
            anyone.clone(),
            anyone.with("x-runner-token", "wrong"),
            anyone.with("x-runner-token", ""),
            anyone.with("x-ops-key", API_KEY),
            anyone.with("authorization", "Bearer new-token"),
        ] {
            let answer = client.call(method, path).text("{").send().await;
            assert_eq!(answer.problem(401)["detail"], "Invalid or missing X-Runner-Token", "{method} {path}");
        }
    }
    for token in ["old-token", "new-token"] {
        anyone.with("x-runner-token", token).get("/v1/meta").await.expect(200);
        anyone.with("x-runner-token", token).get("/nothing").await.problem(404);
    }
    system.stop().await;
}

#[tokio::test]
async fn a_taken_job_is_running_before_the_answer_says_so() {
    let builder = System::builder().shell("hold", HOLD, "").set("RUNNER_POLL_INTERVAL_SECONDS", "0");
    let system = builder.start().await;
    let (door, runner) = (Door::of(&system), system.runner(0));
    let id = system.submit(&door.job()).await;
    let answer = runner.post("/run", &json!({ "job_id": id })).await.expect(202).json();
    assert_eq!(answer, json!({"job_id": id, "status": "running", "attempt": 1, "runner_id": "runner-1"}));
    let job = system.job(&id).await;
    assert_eq!((&job["status"], &job["runner_id"], &job["attempt"]), (&json!("running"), &json!("runner-1"), &json!(1)));
    assert!(job["fence"].as_i64().is_some_and(|fence| fence > 0) && !job["lease_expires_at"].is_null(), "{job}");
    assert_eq!(runner.post("/run", &json!({ "job_id": id })).await.problem(409)["job_status"], "running");
    door.open();
    system.until(&id, "succeeded").await;
    runner.post("/run", &json!({ "job_id": id })).await.problem(409);
    system.stop().await;
}

#[tokio::test]
async fn crons_call_records_a_job_and_takes_it() {
    let builder = System::builder().shell("hello", "cat > \"$OPS_RESULT_FILE\"", "").set("RUNNER_POLL_INTERVAL_SECONDS", "0");
    let system = builder.start().await;
    let answer = system.runner(0).post("/run", &json!({"job_type": "hello", "payload": {"a": 1}})).await.expect(202).json();
    let job = system.until(answer["job_id"].as_str().expect("an id"), "succeeded").await;
    assert_eq!((&job["result"], &job["created_by"]), (&json!({"a": 1}), &json!("runner:runner-1")));
    let bare = system.runner(0).post("/run", &json!({"job_type": "hello"})).await.expect(202).json();
    system.until(bare["job_id"].as_str().expect("an id"), "succeeded").await;
    system.stop().await;
}

#[tokio::test]
async fn what_the_runner_may_not_take_is_refused_and_left_as_it_was() {
    let schema = r#"{"type": "object", "required": ["pages"], "additionalProperties": false}"#;
    let builder = System::builder().file("strict.json", schema).shell("strict", "true", "payload_schema = \"strict.json\"");
    let builder = builder.shell("hello", "true", "").set("FEATURE_METRICS", "0").set("RUNNER_POLL_INTERVAL_SECONDS", "0");
    let system = builder.start().await;
    let runner = system.runner(0);
    let elsewhere = system.submit_type("other").await;
    let unfit = system.submit(&json!({"job_type": "strict", "payload": {"canary": 1}})).await;
    let future = system.submit(&json!({"job_type": "hello", "run_at": "2100-01-01T00:00:00Z"})).await;
    for (body, status) in [
        (json!({ "job_id": elsewhere }), 403),
        (json!({"job_type": "other"}), 403),
        (json!({"job_type": "metrics_refresh"}), 403),
        (json!({"job_id": "0190163d-8694-739b-aea5-966c26f8ad90"}), 404),
        (json!({ "job_id": future }), 409),
        (json!({ "job_id": unfit }), 422),
        (json!({"job_type": "strict", "payload": {"pages": 1, "more": 2}}), 422),
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
    runner.call("POST", "/run").text("{").send().await.problem(400);
    runner.call("POST", "/run").bytes("{}").send().await.problem(415);
    runner.call("POST", "/run").text(vec![b' '; 2 * 1024 * 1024]).send().await.problem(413);
    runner.call("POST", "/run").text(r#"{"job_type":"hello","payload":"\u0000"}"#).send().await.problem(422);
    runner.get("/run").await.problem(405);
    assert_eq!(system.database.count("select count(*) from ops_jobs where status = 'queued'").await, 3);
    assert_eq!(system.database.count("select count(*) from ops_jobs").await, 3);
    system.stop().await;
}

#[tokio::test]
async fn without_a_free_slot_a_trigger_hears_429_and_the_job_stays_queued() {
    let builder = System::builder().shell("hold", HOLD, "").set("RUNNER_CONCURRENCY", "1").set("RUNNER_POLL_INTERVAL_SECONDS", "0");
    let system = builder.start().await;
    let (door, runner) = (Door::of(&system), system.runner(0));
    runner.post("/run", &json!({"job_type": "hold", "payload": door.payload()})).await.expect(202);
    let waiting = system.submit(&door.job()).await;
    let answer = runner.post("/run", &json!({ "job_id": waiting })).await;
    answer.problem(429);
    assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{answer:?}");
    assert_eq!(system.kinds(&waiting).await, ["queued"]);
    door.open();
    system.until(&waiting, "succeeded").await;
    system.stop().await;
}

#[tokio::test]
async fn a_draining_runner_takes_nothing_new_and_lets_its_job_finish() {
    let builder = System::builder().shell("hold", HOLD, "").set("RUNNER_DRAIN_SECONDS", "25");
    let system = builder.start().await;
    let (door, runner) = (Door::of(&system), system.runner(0));
    let id = system.submit(&door.job()).await;
    system.until(&id, "running").await;
    system.running_runner(0).stop();
    assert_eq!(runner.anonymous().get("/readyz").await.problem(503)["failed"], "draining");
    runner.anonymous().get("/healthz").await.expect(200);
    let late = system.submit(&door.job()).await;
    for (path, body) in [("/run", json!({ "job_id": late })), ("/run", door.job()), ("/tick", json!({}))] {
        let answer = runner.post(path, &body).await;
        answer.problem(503);
        assert!(answer.header("retry-after").parse::<u32>().is_ok(), "{answer:?}");
    }
    let deferred = system.ops.post("/trigger_runner", &json!({ "job_id": late })).await.expect(202).json();
    assert_eq!(deferred["trigger"]["outcome"], "deferred");
    wait_until("the runner is shown as draining", async || {
        let runners = system.ops.get("/runners").await.expect(200).json();
        (runners["runners"][0]["draining"] == true).then_some(())
    })
    .await;
    door.open();
    system.until(&id, "succeeded").await;
    assert_eq!(system.kinds(&id).await, ["queued", "running", "succeeded"]);
    assert_eq!(system.kinds(&late).await, ["queued"]);
    system.stop().await;
}

#[tokio::test]
async fn a_tick_claims_what_is_due_up_to_the_slots_and_takes_lost_jobs_back() {
    let builder = System::builder().shell("hold", HOLD, "max_attempts = 3").set("RUNNER_CONCURRENCY", "2");
    let system = builder.set("RUNNER_POLL_INTERVAL_SECONDS", "0").start().await;
    let (door, runner) = (Door::of(&system), system.runner(0));
    assert_eq!(runner.press("/tick").await.expect(200).json(), json!({"claimed": 0, "recovered": 0, "fired": 0}));
    let future = system.submit(&json!({"job_type": "hold", "run_at": "2100-01-01T00:00:00Z"})).await;
    let lost = system.submit(&json!({"job_type": "hold", "payload": door.payload(), "max_attempts": 3})).await;
    let uuid: uuid::Uuid = lost.parse().expect("an id");
    let claim = "update ops_jobs set status = 'running', runner_id = 'gone', lease_expires_at = now() - interval '1 second' where id = $1";
    sqlx::query(claim).bind(uuid).execute(&system.database.psql).await.expect("claimed by hand");
    let mut ids = vec![lost.clone()];
    for _ in 0..2 {
        ids.push(system.submit(&door.job()).await);
    }
    assert_eq!(runner.press("/tick").await.expect(200).json(), json!({"claimed": 2, "recovered": 1, "fired": 0}));
    assert_eq!(runner.post("/tick", &json!({})).await.expect(200).json(), json!({"claimed": 0, "recovered": 0, "fired": 0}));
    assert_eq!(system.database.count("select count(*) from ops_jobs where status = 'running'").await, 2);
    door.open();
    for id in &ids {
        system.until(id, "succeeded").await;
    }
    assert_eq!(system.kinds(&lost).await, ["queued", "running", "lease_expired", "retry_scheduled", "running", "succeeded"]);
    assert_eq!(system.job(&future).await["status"], "queued");
    system.stop().await;
}

#[tokio::test]
async fn ticks_at_once_take_each_job_once() {
    let builder = System::builder().shell("hello", "true", "").runners(2).set("RUNNER_POLL_INTERVAL_SECONDS", "0");
    let system = builder.set("RUNNER_CONCURRENCY", "8").start().await;
    let mut ids = BTreeSet::new();
    for _ in 0..12 {
        ids.insert(system.submit_type("hello").await);
    }
    let mut ticks = tokio::task::JoinSet::new();
    for number in 0..6 {
        let runner = system.runner(number % 2);
        ticks.spawn(async move { runner.press("/tick").await.expect(200).json() });
    }
    let claimed: u64 = ticks.join_all().await.iter().filter_map(|answer| answer["claimed"].as_u64()).sum();
    assert!(claimed <= 12, "{claimed}");
    for id in &ids {
        system.until(id, "succeeded").await;
        assert_eq!(system.kinds(id).await, ["queued", "running", "succeeded"]);
    }
    system.stop().await;
}

#[tokio::test]
async fn a_job_that_nobody_triggered_is_found_by_the_poll() {
    let system = System::builder().shell("hello", "true", "").start().await;
    let later = system.submit(&json!({"job_type": "hello", "run_at": "2100-01-01T00:00:00Z"})).await;
    system.run_until(&json!({"job_type": "hello"}), "succeeded").await;
    assert_eq!(system.job(&later).await["status"], "queued");
    system.stop().await;
}

#[tokio::test]
async fn a_type_with_a_limit_never_runs_more_at_once_over_the_fleet() {
    let builder = System::builder().shell("alone", "mkdir \"$HOME/alone\" && sleep 0.2 && rmdir \"$HOME/alone\"", "concurrency = 1");
    let home = tempfile::tempdir().expect("a folder");
    let system = builder.set("HOME", &home.path().display().to_string()).runners(2).start().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(system.submit_type("alone").await);
    }
    for id in &ids {
        system.until(id, "succeeded").await;
    }
    system.stop().await;
}

#[tokio::test]
async fn meta_tells_types_slots_and_limits() {
    let builder = System::builder().shell("hello", "true", "timeout_seconds = 9\nmax_attempts = 2\nconcurrency = 3");
    let system = builder.set("RUNNER_CONCURRENCY", "7").start().await;
    let meta = system.runner(0).get("/v1/meta").await.expect(200).json();
    assert_eq!(meta["slots"], json!({"total": 7, "used": 0}));
    let hello = json!({"name": "hello", "max_attempts": 2, "timeout_seconds": 9, "concurrency": 3});
    assert!(meta["job_types"].as_array().is_some_and(|types| types.contains(&hello)), "{meta}");
    system.stop().await;
}
