//! The fleet's switch, through both programs and the operator's command.

use serde_json::{Value, json};
use tests::{API_KEY, Start, System};

use crate::scripts::{Door, HOLD};

async fn pause(system: &System, reason: &str) -> Value {
    let body = json!({ "reason": reason });
    system
        .ops
        .post("/fleet/pause", &body)
        .await
        .expect(200)
        .json()
}

async fn resume(system: &System) -> Value {
    system.ops.press("/fleet/resume").await.expect(200).json()
}

#[tokio::test]
async fn a_paused_fleet_takes_no_job_whoever_asks_and_says_who_paused_it_and_why() {
    let builder = System::builder()
        .shell("hold", HOLD, "")
        .shell("hello", "true", "");
    let system = builder
        .set("SCHEDULES_ENABLED", "1")
        .set("SYNC_RUN_ENABLED", "1")
        .start()
        .await;
    let runner = system.runner(0);
    let door = Door::of(&system);
    let running = system.submit(&door.job()).await;
    system.until(&running, "running").await;

    let fleet = pause(&system, "moving house").await;
    let by = fleet["paused_by"].as_str().expect("who").to_owned();
    assert!(by.starts_with("key:"), "{fleet}");
    assert_eq!(
        (&fleet["paused"], &fleet["reason"]),
        (&json!(true), &json!("moving house"))
    );
    assert!(fleet["paused_at"].is_string(), "{fleet}");

    let id = system.submit_type("hello").await;
    let refused = runner.post("/run", &json!({ "job_id": id })).await;
    assert!(refused.header("retry-after").parse::<u32>().is_ok());
    let problem = refused.problem(503);
    assert_eq!(problem["type"], "urn:ops-jobs:problem:fleet-paused");
    assert_eq!(
        (&problem["paused_by"], &problem["reason"]),
        (&json!(by), &json!("moving house"))
    );
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(
        detail.contains(&by) && detail.contains("moving house"),
        "{detail}"
    );

    let count = "select count(*) from ops_jobs";
    let before = system.database.count(count).await;
    runner
        .post("/run", &json!({"job_type": "hello"}))
        .await
        .problem(503);
    runner.press("/v1/run").await.problem(503);
    assert_eq!(
        system.database.count(count).await,
        before,
        "nothing is half done"
    );
    let ticked = runner.press("/tick").await.expect(200).json();
    assert_eq!(ticked["claimed"], 0);
    let ticked = system.ops.press("/tick").await.expect(200).json();
    assert_eq!(ticked["triggered"], 0);
    let body = json!({ "job_id": id });
    let triggered = system.ops.post("/trigger_runner", &body).await.expect(202);
    assert_eq!(triggered.json()["trigger"]["outcome"], "deferred");
    let body = json!({"job_type": "hello"});
    let new = system.ops.post("/trigger_runner", &body).await.expect(202);
    let new = new.json();
    assert_eq!(
        (&new["trigger"]["outcome"], &new["job"]["status"]),
        (&json!("deferred"), &json!("queued"))
    );

    let schedule =
        json!({"name": "nightly", "cron": "@daily", "timezone": "UTC", "job_type": "hello"});
    system.ops.post("/schedules", &schedule).await.expect(201);
    let fired = system.ops.press("/schedules/nightly/fire").await;
    let fired = fired.expect(202).json();
    assert_eq!(fired["job"]["status"], "queued");

    door.open();
    system.until(&running, "succeeded").await;
    let runners = system.ops.get("/runners").await.expect(200).json();
    assert_eq!(runners["pause"]["reason"], "moving house");
    assert_eq!(system.job(&id).await["status"], "queued");

    let fleet = resume(&system).await;
    assert_eq!(
        (&fleet["paused"], &fleet["paused_by"]),
        (&json!(false), &json!(null))
    );
    for job in [&json!(id), &new["job"]["id"], &fired["job_id"]] {
        let id = job.as_str().expect("an id");
        system.until(id, "succeeded").await;
        let begun = &system.events(id).await[1];
        assert_eq!(begun["kind"], "running");
        assert!(
            begun["at"].as_str() >= fleet["changes"][0]["at"].as_str(),
            "not before it was resumed: {begun} {fleet}"
        );
    }
    let runners = system.ops.get("/runners").await.expect(200).json();
    assert_eq!(runners["pause"], json!(null));
    let changes = fleet["changes"].as_array().expect("changes").iter();
    let changes: Vec<_> = changes.map(|change| &change["change"]).collect();
    assert_eq!(changes, ["resumed", "paused"]);
    system.stop().await;
}

#[tokio::test]
async fn the_switch_takes_a_reason_and_nothing_else_and_stays_as_it_was_set() {
    let system = System::builder().runners(0).start().await;
    for wrong in [
        json!({"why": "x"}),
        json!({"reason": 7}),
        json!({"reason": "x".repeat(1001)}),
    ] {
        system.ops.post("/fleet/pause", &wrong).await.wrong_fields();
    }
    let fleet = system.ops.get("/fleet").await.expect(200).json();
    assert_eq!(
        fleet,
        json!({"paused": false, "paused_at": null, "paused_by": null, "reason": null, "changes": []})
    );
    let first = pause(&system, "first").await;
    assert_eq!(pause(&system, "second").await, first);
    let without = system.ops.press("/fleet/resume").await.expect(200).json();
    assert_eq!(without["paused"], false);
    let silent = system.ops.press("/fleet/pause").await.expect(200).json();
    assert_eq!(
        (&silent["paused"], &silent["reason"]),
        (&json!(true), &json!(null))
    );
    system.stop().await;
}

#[tokio::test]
async fn the_fleet_is_paused_and_resumed_from_the_command_line() {
    let system = System::builder().runners(0).start().await;
    let opsctl = async |arguments: &[&str]| {
        let start = Start::of("opsctl").arguments(arguments);
        let start = start.set("OPS_URL", &format!("http://{}", system.ops.authority()));
        start.set("OPS_API_KEY", API_KEY).run().await
    };
    let (code, said, stderr) = opsctl(&["fleet", "pause", "--reason", "moving house"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(said.contains("moving house"), "{said}");
    let (code, said, _) = opsctl(&["--output", "json", "fleet", "show"]).await;
    let fleet: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &fleet["paused"]), (0, &json!(true)));
    let (_, _, told) = opsctl(&["runners"]).await;
    assert!(told.contains("the fleet is paused by key:"), "{told}");
    let (code, said, _) = opsctl(&["fleet", "resume", "--reason", "moved"]).await;
    assert_eq!(code, 0);
    assert!(said.contains("resumed") && said.contains("moved"), "{said}");
    system.stop().await;
}

#[tokio::test]
async fn http_psql_and_the_command_line_give_the_same_reasons() {
    let system = System::builder()
        .shell("hello", "true", "")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0")
        .set("RUNNER_LISTEN", "1")
        .set("FEATURE_METRICS", "0")
        .start()
        .await;
    pause(&system, "moving house").await;
    let id = system.submit_type("hello").await;
    let body = json!({ "job_id": id });
    system.ops.post("/trigger_runner", &body).await.expect(202);
    let path = format!("/jobs/{id}/why");
    let answer = system.ops.get(&path).await.expect(200).json();
    assert_eq!(answer["job_id"], json!(id));
    let of = |answer: &Value| -> Vec<(String, String)> {
        let reasons = answer["reasons"].as_array().expect("reasons").iter();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        reasons
            .map(|reason| (text(&reason["code"]), text(&reason["message"])))
            .collect()
    };
    let by_http = of(&answer);
    let codes: Vec<_> = by_http.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(codes, ["fleet_paused", "nobody_looks", "last_trigger"]);
    let said = &answer["reasons"][0];
    assert_eq!(said["data"]["reason"], "moving house");
    assert!(
        said["remedy"]
            .as_str()
            .expect("a remedy")
            .contains("opsctl fleet resume")
    );

    let mut psql = system.database.psql.acquire().await.expect("a connection");
    sqlx::query("set time zone 'UTC'")
        .execute(&mut *psql)
        .await
        .expect("set");
    let by_psql: Vec<(String, String)> =
        sqlx::query_as("select code, message from ops_why($1::uuid) order by place")
            .bind(&id)
            .fetch_all(&mut *psql)
            .await
            .expect("reasons");
    assert_eq!(by_psql, by_http);

    let start = Start::of("opsctl").arguments(&["--output", "json", "jobs", "why", &id]);
    let start = start.set("OPS_URL", &format!("http://{}", system.ops.authority()));
    let (code, said, stderr) = start.set("OPS_API_KEY", API_KEY).run().await;
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(
        of(&serde_json::from_str(&said).expect("JSON")),
        by_http,
        "{said}"
    );

    // Recorded past the flag, as a program with psql may: only the programs know that it is off.
    let closed: String = sqlx::query_scalar("select ops_enqueue('metrics_refresh')::text")
        .fetch_one(&system.database.psql)
        .await
        .expect("recorded");
    let path = format!("/jobs/{closed}/why");
    let answer = system.ops.get(&path).await.expect(200).json();
    assert_eq!(answer["reasons"][0]["code"], "flag_off");
    assert_eq!(answer["reasons"][0]["data"]["flag"], "FEATURE_METRICS");

    // Which wakes the runner: it listens, and does not look by itself.
    resume(&system).await;
    system.until(&id, "succeeded").await;
    let path = format!("/jobs/{id}/why");
    let answer = system.ops.get(&path).await.expect(200).json();
    assert_eq!(answer["reasons"][0]["code"], "succeeded");
    let nobody = "/jobs/0190163d-8694-739b-aea5-966c26f8ad90/why";
    system.ops.get(nobody).await.problem(404);
    system.stop().await;
}
