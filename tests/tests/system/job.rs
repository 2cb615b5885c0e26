//! One job that exists: its events, its log, abort and retry.

use serde_json::json;
use tests::System;

#[tokio::test]
async fn events_are_given_in_order_and_from_where_one_left_off() {
    let system = System::builder().shell("hello", "true", "").start().await;
    let id = system.submit_type("hello").await;
    system.until(&id, "succeeded").await;
    assert_eq!(system.kinds(&id).await, ["queued", "running", "succeeded"]);
    let events = system.events(&id).await;
    assert_eq!((&events[1]["runner_id"], &events[1]["attempt"]), (&json!("runner-1"), &json!(1)));
    for field in ["job_type", "queue", "attempt", "max_attempts"] {
        assert!(!events[2]["data"][field].is_null(), "{field}: {events:?}");
    }
    let after = |seq: &str| format!("/jobs/{id}/events?after={seq}");
    let later = system.ops.get(&after("2")).await.expect(200).json();
    assert_eq!(later["events"], json!([events[2]]));
    assert_eq!(system.ops.get(&after("3")).await.expect(200).json(), json!({"events": []}));
    for wrong in ["-1", "x", "99999999999"] {
        assert_eq!(system.ops.get(&after(wrong)).await.wrong_fields(), ["after"], "{wrong}");
    }
    system.stop().await;
}

#[tokio::test]
async fn a_queued_job_is_aborted_at_once_and_can_be_queued_again() {
    let system = System::builder().runners(0).start().await;
    let id = system.submit_type("a").await;
    let steer = |verb: &str| format!("/jobs/{id}/{verb}");
    assert_eq!(system.ops.press(&steer("retry")).await.problem(409)["job_status"], "queued");
    let aborted = system.ops.post(&steer("abort"), &json!({"reason": "a mistake"})).await.expect(202).json();
    assert_eq!(aborted["status"], "aborted");
    assert_eq!(system.kinds(&id).await, ["queued", "abort_requested", "aborted"]);
    assert_eq!(system.events(&id).await[1]["data"]["reason"], "a mistake");
    assert_eq!(system.abort(&id).await.problem(409)["job_status"], "aborted");
    assert_eq!(system.ops.press(&steer("retry")).await.expect(202).json()["status"], "queued");
    assert_eq!(system.kinds(&id).await[3..], ["replayed"]);
    let wrong = system.ops.post(&steer("abort"), &json!({"why": "x"})).await;
    assert_eq!(wrong.wrong_fields(), ["/why"]);
    system.stop().await;
}

#[tokio::test]
async fn a_failed_job_is_retried_with_a_fresh_budget_and_a_succeeded_one_never() {
    let system = System::builder().shell("broken", "exit 1", "").shell("fine", "true", "").start().await;
    let failed = system.submit_type("broken").await;
    system.until(&failed, "failed").await;
    system.ops.press(&format!("/jobs/{failed}/retry")).await.expect(202);
    tests::wait_until("it has failed again", async || {
        (system.kinds(&failed).await.iter().filter(|kind| *kind == "failed").count() == 2).then_some(())
    })
    .await;
    assert_eq!(system.job(&failed).await["attempt"], 1);
    let succeeded = system.submit_type("fine").await;
    system.until(&succeeded, "succeeded").await;
    for verb in ["retry", "abort"] {
        system.ops.press(&format!("/jobs/{succeeded}/{verb}")).await.problem(409);
    }
    system.stop().await;
}

#[tokio::test]
async fn a_job_that_is_not_there_is_404_on_every_route() {
    let system = System::builder().runners(0).start().await;
    for id in ["0190163d-8694-739b-aea5-966c26f8ad90", "nonsense", "%00", "..%2f..%2fhealthz"] {
        for (method, rest) in
            [("GET", ""), ("GET", "/events"), ("GET", "/log"), ("POST", "/abort"), ("POST", "/retry")]
        {
            system.ops.call(method, &format!("/jobs/{id}{rest}")).send().await.problem(404);
        }
    }
    system.stop().await;
}

#[tokio::test]
async fn the_log_is_plain_text_and_empty_before_anything_was_printed() {
    let system = System::builder().shell("talk", "echo one; echo 'zwei ü'", "").start().await;
    let id = system.submit(&json!({"job_type": "talk", "run_at": "2100-01-01T00:00:00Z"})).await;
    let answer = system.ops.get(&format!("/jobs/{id}/log")).await.expect(200);
    assert_eq!((answer.header("content-type"), answer.body.as_str()), ("text/plain; charset=utf-8", ""));
    let id = system.submit_type("talk").await;
    system.until(&id, "succeeded").await;
    assert_eq!(system.log(&id).await, "one\nzwei ü\n");
    system.stop().await;
}

#[tokio::test]
async fn a_job_that_outlives_its_time_to_live_fails_without_running() {
    let system = System::builder().start().await;
    let id = system.submit(&json!({"job_type": "nobody_has_this", "ttl_seconds": 1})).await;
    let job = system.until(&id, "failed").await;
    assert_eq!((&job["attempt"], &job["started_at"]), (&json!(0), &json!(null)));
    assert!(!job["error"].as_str().unwrap_or_default().is_empty(), "{job}");
    assert_eq!(system.kinds(&id).await, ["queued", "failed"]);
    system.stop().await;
}

#[tokio::test]
async fn an_illegal_change_by_hand_is_refused_and_a_legal_one_has_its_event() {
    let system = System::builder().runners(0).start().await;
    let id = system.submit_type("a").await;
    let uuid: uuid::Uuid = id.parse().expect("an id");
    let psql = &system.database.psql;
    let illegal = sqlx::query("update ops_jobs set status = 'succeeded' where id = $1").bind(uuid).execute(psql).await;
    let error = illegal.expect_err("refused").to_string();
    assert!(error.contains("illegal transition"), "{error}");
    sqlx::query("update ops_jobs set status = 'aborted' where id = $1").bind(uuid).execute(psql).await.expect("legal");
    assert_eq!(system.kinds(&id).await, ["queued", "aborted"]);
    let actor = system.events(&id).await[1]["actor"].as_str().unwrap_or_default().to_owned();
    assert!(!actor.is_empty() && !actor.starts_with("key:"), "{actor}");
    let erased = sqlx::query("delete from ops_job_events where job_id = $1").bind(uuid).execute(psql).await;
    assert!(erased.is_err(), "events are only ever added");
    system.stop().await;
}
