//! The nudge from control plane to runner, and everything that may come of it.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Answer, Peer, System};

use crate::scripts::{Door, HOLD};

/// The id that a failed trigger names.
fn job_id(answer: &Answer, status: u16) -> String {
    answer.problem(status)["job_id"]
        .as_str()
        .expect("a job's id")
        .to_owned()
}

#[tokio::test]
async fn a_triggered_job_is_accepted_and_runs() {
    let system = System::builder()
        .shell("hello", "echo hello", "")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0")
        .start()
        .await;
    let body = json!({"job_type": "hello", "payload": {"a": 1}, "labels": {"by": "trigger"}});
    let answer = system.ops.post("/trigger_runner", &body).await.expect(202);
    let said = answer.json();
    assert_eq!(said["trigger"], json!({"outcome": "accepted"}));
    let id = said["job"]["id"].as_str().expect("an id");
    assert!(
        ["running", "succeeded"]
            .iter()
            .any(|status| said["job"]["status"] == *status),
        "{said}"
    );
    assert_eq!(answer.header("location"), format!("/api/v1/ops/jobs/{id}"));
    let job = system.until(id, "succeeded").await;
    assert_eq!(
        (&job["payload"], &job["labels"]),
        (&body["payload"], &body["labels"])
    );
    assert_eq!(system.kinds(id).await, ["queued", "running", "succeeded"]);
    system.stop().await;
}

#[tokio::test]
async fn a_queued_job_is_triggered_by_its_id_and_only_while_it_is_queued() {
    let system = System::builder()
        .shell("hello", "true", "")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0")
        .start()
        .await;
    let id = system.submit_type("hello").await;
    let trigger = async || {
        system
            .ops
            .post("/trigger_runner", &json!({ "job_id": id }))
            .await
    };
    assert_eq!(
        trigger().await.expect(202).json()["trigger"]["outcome"],
        "accepted"
    );
    system.until(&id, "succeeded").await;
    assert_eq!(trigger().await.problem(409)["job_status"], "succeeded");
    let nobody = json!({"job_id": "0190163d-8694-739b-aea5-966c26f8ad90"});
    system
        .ops
        .post("/trigger_runner", &nobody)
        .await
        .problem(404);
    for wrong in [
        json!({}),
        json!({"job_id": "x"}),
        json!({"job_id": id, "job_type": "hello"}),
        json!({"job_id": id, "payload": 1}),
    ] {
        assert!(
            !system
                .ops
                .post("/trigger_runner", &wrong)
                .await
                .wrong_fields()
                .is_empty(),
            "{wrong}"
        );
    }
    assert_eq!(
        system.database.count("select count(*) from ops_jobs").await,
        1
    );
    system.stop().await;
}

#[tokio::test]
async fn a_busy_runner_defers_the_job_and_takes_it_when_a_slot_is_free() {
    let builder = System::builder()
        .shell("hold", HOLD, "")
        .shell("hello", "true", "");
    let system = builder
        .set("RUNNER_CONCURRENCY", "1")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0")
        .start()
        .await;
    let door = Door::of(&system);
    let held = system
        .ops
        .post("/trigger_runner", &door.job())
        .await
        .expect(202)
        .json();
    assert_eq!(held["trigger"]["outcome"], "accepted");
    let waits = system
        .ops
        .post("/trigger_runner", &json!({"job_type": "hello"}))
        .await
        .expect(202)
        .json();
    assert_eq!(
        (&waits["trigger"]["outcome"], &waits["job"]["status"]),
        (&json!("deferred"), &json!("queued"))
    );
    door.open();
    system
        .until(waits["job"]["id"].as_str().expect("an id"), "succeeded")
        .await;
    system.stop().await;
}

#[tokio::test]
async fn a_runner_that_cannot_be_reached_is_502_and_the_job_stays_queued() {
    let system = System::builder().runners(0).start().await;
    let id = job_id(
        &system
            .ops
            .post("/trigger_runner", &json!({"job_type": "hello"}))
            .await,
        502,
    );
    assert_eq!(system.job(&id).await["status"], "queued");
    assert_eq!(system.kinds(&id).await, ["queued"]);
    let again = job_id(
        &system
            .ops
            .post("/trigger_runner", &json!({ "job_id": id }))
            .await,
        502,
    );
    assert_eq!(again, id);
    system.stop().await;
}

#[tokio::test]
async fn a_job_whose_trigger_got_lost_is_taken_up_by_the_next_poll() {
    let system = System::builder()
        .shell("hello", "true", "")
        .set("RUNNER_URL", "http://127.0.0.1:1")
        .start()
        .await;
    let id = job_id(
        &system
            .ops
            .post("/trigger_runner", &json!({"job_type": "hello"}))
            .await,
        502,
    );
    system.until(&id, "succeeded").await;
    system.stop().await;
}

#[tokio::test]
async fn a_runner_that_is_too_slow_is_504_and_the_job_stays_queued() {
    let slow = Peer::silent().await;
    let builder = System::builder()
        .set("RUNNER_URL", slow.url())
        .set("RUNNER_TRIGGER_TIMEOUT_SECONDS", "1");
    let system = builder.runners(0).start().await;
    let begun = Instant::now();
    let id = job_id(
        &system
            .ops
            .post("/trigger_runner", &json!({"job_type": "hello"}))
            .await,
        504,
    );
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(system.job(&id).await["status"], "queued");
    let heard = slow.heard().concat();
    assert!(
        heard.starts_with("POST /run ")
            && heard.contains(&id)
            && heard.contains(tests::RUNNER_TOKEN),
        "{heard}"
    );
    system.stop().await;
}

#[tokio::test]
async fn a_runner_that_answers_nonsense_is_502_and_the_job_stays_queued() {
    let other = Peer::answering().await;
    let system = System::builder()
        .set("RUNNER_URL", other.url())
        .runners(0)
        .start()
        .await;
    let id = job_id(
        &system
            .ops
            .post("/trigger_runner", &json!({"job_type": "hello"}))
            .await,
        502,
    );
    assert_eq!(system.job(&id).await["status"], "queued");
    system.stop().await;
}

#[tokio::test]
async fn a_refused_job_is_502_and_failed_saying_so() {
    let schema = r#"{"type": "object", "required": ["pages"]}"#;
    let builder = System::builder().file("strict.json", schema).shell(
        "strict",
        "true",
        "payload_schema = \"strict.json\"",
    );
    let system = builder
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0")
        .start()
        .await;
    for body in [
        json!({"job_type": "not_allowed"}),
        json!({"job_type": "strict", "payload": {}}),
    ] {
        let id = job_id(&system.ops.post("/trigger_runner", &body).await, 502);
        let job = system.job(&id).await;
        assert_eq!(job["status"], "failed", "{body}: {job}");
        assert!(
            job["error"]
                .as_str()
                .is_some_and(|error| error.contains("refused")),
            "{job}"
        );
        assert_eq!(system.kinds(&id).await, ["queued", "failed"]);
    }
    system.stop().await;
}

#[tokio::test]
async fn a_job_that_the_asked_runner_does_not_take_waits_for_one_that_does() {
    let builder = System::builder()
        .shell("hello", "true", "")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0");
    let system = builder.start().await;
    sqlx::query(
        "insert into ops_runners (id, boot_id, version, job_types, slots_total, slots_used, draining)
         values ('elsewhere', gen_random_uuid(), '0', '{only_there}', 1, 0, false)",
    )
    .execute(&system.database.psql)
    .await
    .expect("a runner that lives elsewhere");
    let body = json!({"job_type": "only_there"});
    let answer = system
        .ops
        .post("/trigger_runner", &body)
        .await
        .expect(202)
        .json();
    assert_eq!(answer["trigger"]["outcome"], "deferred");
    assert_eq!(answer["job"]["status"], "queued");
    system.stop().await;
}

#[tokio::test]
async fn a_token_that_the_runner_does_not_know_is_502_and_the_job_stays_queued() {
    let builder = System::builder()
        .shell("hello", "true", "")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0");
    let system = builder
        .set("RUNNER_TOKEN_OUTBOUND", "another")
        .start()
        .await;
    let id = job_id(
        &system
            .ops
            .post("/trigger_runner", &json!({"job_type": "hello"}))
            .await,
        502,
    );
    assert_eq!(system.job(&id).await["status"], "queued");
    system.stop().await;
}

#[tokio::test]
async fn a_trigger_that_is_sent_again_under_its_key_runs_one_job() {
    let system = System::builder().shell("hello", "true", "").start().await;
    let call = || {
        system
            .ops
            .call("POST", "/trigger_runner")
            .header("idempotency-key", "k")
            .json(&json!({"job_type": "hello"}))
    };
    let first = call().send().await.expect(202).json();
    let id = first["job"]["id"].as_str().expect("an id");
    system.until(id, "succeeded").await;
    let again = call().send().await.expect(202);
    assert_eq!(again.json()["job"]["id"], first["job"]["id"]);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(system.kinds(id).await, ["queued", "running", "succeeded"]);
    system.stop().await;
}

#[tokio::test]
async fn the_list_of_runners_tells_who_lives_and_what_they_take() {
    let system = System::builder()
        .shell("hello", "true", "")
        .runners(2)
        .set("RUNNER_CONCURRENCY", "3")
        .start()
        .await;
    let runners = tests::wait_until("both runners have reported", async || {
        let answer = system.ops.get("/runners").await.expect(200).json();
        let runners = answer["runners"].as_array().cloned().unwrap_or_default();
        (runners.len() == 2).then_some(runners)
    })
    .await;
    let mut ids: Vec<&str> = runners
        .iter()
        .filter_map(|runner| runner["id"].as_str())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ["runner-1", "runner-2"]);
    for runner in &runners {
        assert_eq!(runner["job_types"], json!(["hello", "metrics_refresh"]));
        assert_eq!(
            (&runner["slots_total"], &runner["draining"]),
            (&json!(3), &json!(false))
        );
        assert!(
            runner["last_seen_at"]
                .as_str()
                .is_some_and(|at| at.ends_with('Z')),
            "{runner}"
        );
    }
    system.stop().await;
}
