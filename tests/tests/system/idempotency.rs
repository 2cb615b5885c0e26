//! A request that is sent again: one job, whoever asks and however often.

use serde_json::json;
use tests::System;

#[tokio::test]
async fn the_same_key_and_body_give_the_same_job_and_another_body_is_refused() {
    let system = System::builder().runners(0).start().await;
    let call = |body: &'static str| system.ops.call("POST", "/jobs").header("idempotency-key", "order-1").text(body);
    let first = call(r#"{"job_type":"a","payload":{"x":1,"y":2}}"#).send().await.expect(201);
    assert_eq!(first.header("idempotency-replayed"), "");
    let again = call(r#"{ "payload": {"y":2,"x":1}, "job_type": "a" }"#).send().await.expect(200);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.json()["id"], first.json()["id"]);
    assert_eq!(first.json()["idempotency_key"], "order-1");
    for other in [r#"{"job_type":"b","payload":{"x":1,"y":2}}"#, r#"{"job_type":"a"}"#] {
        call(other).send().await.problem(422);
    }
    system.ops.call("POST", "/jobs").header("idempotency-key", "order-2").text(r#"{"job_type":"a"}"#).send().await.expect(201);
    assert_eq!(system.database.count("select count(*) from ops_jobs").await, 2);
    for wrong in ["", "with blank", &"k".repeat(256)] {
        let answer = system.ops.call("POST", "/jobs").header("idempotency-key", wrong).text(r#"{"job_type":"a"}"#).send().await;
        assert_eq!(answer.wrong_fields(), ["Idempotency-Key"], "{wrong}");
    }
    system.stop().await;
}

#[tokio::test]
async fn racing_requests_with_one_key_record_one_job() {
    let system = System::builder().runners(0).control_planes(2).start().await;
    let mut racing = tokio::task::JoinSet::new();
    for number in 0..16 {
        let call = system.control_plane(number % 2).call("POST", "/jobs").header("idempotency-key", "race");
        racing.spawn(call.json(&json!({"job_type": "a"})).send());
    }
    let answers = racing.join_all().await;
    let mut ids: Vec<String> = answers.iter().map(|answer| answer.json()["id"].to_string()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{answers:?}");
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    let replayed = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((created, replayed), (1, 15));
    system.stop().await;
}
