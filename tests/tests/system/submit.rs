//! Recording a job: what is kept, and what is refused without a trace.

use serde_json::{Value, json};
use tests::System;

#[tokio::test]
async fn a_job_is_recorded_as_it_was_asked_for_and_found_where_the_answer_says() {
    let system = System::builder().runners(0).start().await;
    let asked = json!({
        "job_type": "rebuild", "payload": {"a": [1, 0.1, "ü\n😀", null, true], "big": 9_007_199_254_740_993_i64, "max": u64::MAX},
        "queue": "slow", "priority": -5, "run_at": "2030-01-02T03:04:05.678901+02:00", "ttl_seconds": 60,
        "max_attempts": 4, "timeout_seconds": 7, "labels": {"team": "search"},
    });
    let answer = system.ops.post("/jobs", &asked).await.expect(201);
    let job = answer.json();
    for field in ["job_type", "payload", "queue", "priority", "max_attempts", "timeout_seconds", "labels"] {
        assert_eq!(job[field], asked[field], "{field}");
    }
    assert_eq!(job["run_at"], "2030-01-02T01:04:05.678901Z");
    assert_eq!((&job["status"], &job["attempt"], &job["stalled"]), (&json!("queued"), &json!(0), &json!(false)));
    assert!(job["created_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{job}");
    assert!(job["created_by"].as_str().is_some_and(|by| by.starts_with("key:")), "{job}");
    let id: uuid::Uuid = job["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(answer.header("location"), format!("/api/v1/ops/jobs/{id}"));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(system.ops.at("").get(answer.header("location")).await.expect(200).json(), job);
    let events = system.events(&id.to_string()).await;
    assert_eq!((events.len(), &events[0]["kind"], &events[0]["actor"]), (1, &json!("queued"), &job["created_by"]));
    system.stop().await;
}

#[tokio::test]
async fn a_job_type_is_enough_and_the_short_base_is_the_same_place() {
    let system = System::builder().runners(0).start().await;
    let job = system.ops.at("/api/ops").post("/jobs", &json!({"job_type": "rebuild"})).await.expect(201).json();
    assert_eq!((&job["payload"], &job["queue"], &job["max_attempts"]), (&json!({}), &json!("default"), &json!(1)));
    let id = job["id"].as_str().expect("an id");
    assert_eq!(system.job(id).await, job);
    system.stop().await;
}

/// A payload of so many levels.
fn deep(levels: usize) -> String {
    format!(r#"{{"job_type":"a","payload":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
}

#[tokio::test]
async fn a_body_that_is_wrong_is_refused_clearly_and_changes_nothing() {
    let system = System::builder().runners(0).start().await;
    let nul = r#"{"job_type":"a","payload":{"x":"a\u0000b"}}"#;
    for (body, status) in [
        ("", 400),
        ("{", 400),
        (r#"{"job_type":"a"} trailing"#, 400),
        ("{\"job_type\":\"\u{1}\"}", 400),
        ("nonsense", 400),
        ("[]", 422),
        ("null", 422),
        ("{}", 422),
        (r#"{"job_type":"A"}"#, 422),
        (r#"{"job_type":"a b"}"#, 422),
        (r#"{"job_type":"a","job_type":"b"}"#, 422),
        (r#"{"job_type":"a","payload":{"x":1,"x":2}}"#, 422),
        (r#"{"job_type":"a","stages":[]}"#, 422),
        (r#"{"job_type":"a","payload":99999999999999999999}"#, 422),
        (r#"{"job_type":"a","payload":1e999}"#, 422),
        (r#"{"job_type":"a","priority":40000}"#, 422),
        (r#"{"job_type":"a","max_attempts":99999999999999999999}"#, 422),
        (r#"{"job_type":"a","run_at":"tomorrow"}"#, 422),
        (nul, 422),
        (&deep(65), 422),
        (&deep(100_000), 422),
    ] {
        let answer = system.ops.call("POST", "/jobs").text(body).send().await;
        assert_eq!(answer.status, status, "{body:.60}: {answer:?}");
        answer.problem(status);
    }
    let invalid_utf8 = b"{\"job_type\":\"a\",\"payload\":\"\xff\"}".to_vec();
    system.ops.call("POST", "/jobs").text(invalid_utf8).send().await.problem(400);
    let typed = |kind: &str| system.ops.call("POST", "/jobs").header("content-type", kind).bytes(r#"{"job_type":"a"}"#);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/xml", "application/json; charset=latin1"] {
        typed(kind).send().await.problem(415);
    }
    system.ops.call("POST", "/jobs").bytes(r#"{"job_type":"a"}"#).send().await.problem(415);
    assert_eq!(system.database.count("select count(*) from ops_jobs").await, 0);
    system.ops.call("POST", "/jobs").text(deep(64)).send().await.expect(201);
    typed("Application/JSON;charset=UTF-8").send().await.expect(201);
    system.stop().await;
}

#[tokio::test]
async fn all_wrong_fields_are_named_at_once_and_unknown_ones_too() {
    let system = System::builder().runners(0).start().await;
    let body = json!({
        "job_type": "Wrong", "queue": 5, "priority": "high", "run_at": "soon", "ttl_seconds": 0, "max_attempts": 0,
        "timeout_seconds": -1, "labels": {"a": 1}, "status": "succeeded", "prioritty": 1,
    });
    let answer = system.ops.post("/jobs", &body).await;
    let mut wrong = answer.wrong_fields();
    wrong.sort();
    let mut expected: Vec<String> = body.as_object().expect("an object").keys().map(|key| format!("/{key}")).collect();
    expected.sort();
    assert!(expected.iter().all(|field| wrong.iter().any(|named| named.starts_with(field.as_str()))), "{wrong:?}");
    let unknown = system.ops.post("/jobs", &json!({"job_type": "a", "prioritty": 1})).await;
    assert_eq!(unknown.wrong_fields(), ["/prioritty"]);
    system.stop().await;
}

#[tokio::test]
async fn what_programs_enqueue_in_sql_is_a_job_like_any_other() {
    let system = System::builder().runners(0).start().await;
    let id: uuid::Uuid = sqlx::query_scalar("select ops_enqueue('rebuild', '{\"a\": 1}', priority => 3)")
        .fetch_one(&system.database.psql)
        .await
        .expect("recorded");
    let job = system.job(&id.to_string()).await;
    assert_eq!((&job["status"], &job["payload"], &job["priority"]), (&json!("queued"), &json!({"a": 1}), &json!(3)));
    let rolled_back: Result<Value, sqlx::Error> = async {
        let mut transaction = system.database.psql.begin().await?;
        let id: uuid::Uuid = sqlx::query_scalar("select ops_enqueue('rebuild')").fetch_one(&mut *transaction).await?;
        transaction.rollback().await?;
        Ok(json!(id))
    }
    .await;
    let gone = rolled_back.expect("an id that was never committed");
    system.ops.get(&format!("/jobs/{}", gone.as_str().expect("text"))).await.problem(404);
    system.stop().await;
}
