//! Schedules from outside: made over HTTP and by the operator's command, fired by runners and by nothing but a tick.

use serde_json::{Value, json};
use tests::{API_KEY, Start, System, wait_until};
use tokio::task::JoinSet;

async fn on(runners: usize) -> System {
    System::builder()
        .set("SCHEDULES_ENABLED", "1")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "1")
        .shell("work", "cat", "")
        .runners(runners)
        .start()
        .await
}

async fn make(system: &System, terms: Value) -> Value {
    let mut body = json!({ "name": "nightly", "cron": "0 3 * * *", "job_type": "work" });
    let members = terms.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(members);
    system
        .ops
        .post("/schedules", &body)
        .await
        .expect(201)
        .json()
}

async fn set_back(system: &System, sql: &'static str) {
    sqlx::query(sql)
        .execute(&system.database.psql)
        .await
        .expect("a person in psql may");
}

async fn fires(system: &System) -> Vec<Value> {
    let answer = system
        .ops
        .get("/schedules/nightly/fires")
        .await
        .expect(200)
        .json();
    answer["fires"].as_array().cloned().expect("a list")
}

#[tokio::test]
async fn five_runners_and_fifty_ticks_a_second_make_one_job_of_an_instant() {
    let system = on(5).await;
    // Twice a day, so that no other instant comes meanwhile.
    make(
        &system,
        json!({ "cron": "0 0,12 * * *", "payload": { "a": 1 }, "grace_seconds": 86400 }),
    )
    .await;
    set_back(
        &system,
        "update ops_schedules set next_fire_at = date_trunc('day', now())",
    )
    .await;
    let mut ticks = JoinSet::new();
    for number in 0..50 {
        let client = match number % 6 {
            5 => system.ops.clone(),
            runner => system.runner(runner),
        };
        ticks.spawn(async move {
            let answer = client.post("/tick", &json!({})).await.expect(200).json();
            answer["fired"].as_u64().expect("a count")
        });
    }
    let by_tick: u64 = ticks.join_all().await.into_iter().sum();
    let job = wait_until("the instant has its job", async || {
        fires(&system)
            .await
            .first()
            .map(|fire| fire["job_id"].clone())
    })
    .await;
    let job = system
        .until(job.as_str().expect("an id"), "succeeded")
        .await;
    assert_eq!(job["created_by"], "schedule:nightly");
    assert_eq!(job["labels"]["schedule"], "nightly");
    assert_eq!(job["payload"], json!({ "a": 1 }));
    // After noon the day has had two instants, of which only the newest fires.
    let fired: Vec<_> = fires(&system)
        .await
        .into_iter()
        .filter(|fire| fire["outcome"] == "fired")
        .collect();
    assert_eq!(fired.len(), 1, "{fired:?}");
    assert!(
        by_tick <= 1,
        "the runners' own housekeeping may have been first"
    );
    assert_eq!(
        system.database.count("select count(*) from ops_jobs").await,
        1
    );
    system.stop().await;
}

#[tokio::test]
async fn nothing_but_a_tick_fires_and_each_instant_once() {
    let system = on(0).await;
    make(&system, json!({ "catch_up": "one" })).await;
    assert_eq!(
        system.ops.press("/tick").await.expect(200).json()["fired"],
        0
    );
    set_back(
        &system,
        "update ops_schedules set next_fire_at = now() - interval '30 days'",
    )
    .await;
    assert_eq!(
        system.ops.press("/tick").await.expect(200).json()["fired"],
        1
    );
    assert_eq!(
        system.ops.press("/tick").await.expect(200).json()["fired"],
        0
    );
    let fires = fires(&system).await;
    assert_eq!(fires[0]["outcome"], "fired");
    let missed: i64 = fires[1..]
        .iter()
        .map(|fire| fire["instants"].as_i64().expect("a count"))
        .sum();
    assert!((28..=30).contains(&missed), "{fires:?}");
    assert!(
        fires[1..]
            .iter()
            .all(|fire| fire["outcome"] == "missed" && fire["reason"].is_string())
    );
    let page = system
        .ops
        .get("/schedules/nightly/fires?outcome=missed&limit=5")
        .await
        .expect(200)
        .json();
    let cursor = page["next_cursor"].as_str().expect("more");
    let next = format!("/schedules/nightly/fires?outcome=missed&limit=5&cursor={cursor}");
    let next = system.ops.get(&next);
    let next = next.await.expect(200).json();
    assert!(next["fires"][0]["instant"].as_str() < page["fires"][4]["instant"].as_str());
    system.stop().await;
}

#[tokio::test]
async fn a_schedule_is_made_read_changed_and_removed() {
    let system = on(0).await;
    let ops = &system.ops;
    let made = make(
        &system,
        json!({ "timezone": "Europe/Berlin", "labels": { "team": "night" } }),
    )
    .await;
    assert_eq!(
        (&made["enabled"], &made["catch_up"], &made["revision"]),
        (&json!(true), &json!("skip"), &json!(1))
    );
    let body = json!({ "name": "nightly", "cron": "0 4 * * *", "job_type": "work" });
    ops.post("/schedules", &body).await.problem(409);
    let read = ops.get("/schedules/nightly").await.expect(200);
    let tag = read.header("etag").to_owned();
    assert_eq!((tag.as_str(), read.json()), ("\"1\"", made));
    assert_eq!(
        ops.get("/schedules").await.expect(200).json()["schedules"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );

    let put = |tag: String, body: Value| {
        ops.call("PUT", "/schedules/nightly")
            .header("if-match", &tag)
            .json(&body)
            .send()
    };
    let changed = put(tag.clone(), body.clone()).await.expect(200);
    assert_eq!(
        (changed.header("etag"), &changed.json()["cron"]),
        ("\"2\"", &json!("0 4 * * *"))
    );
    assert_eq!(put(tag, body.clone()).await.problem(412)["revision"], 2);
    let stale = json!({ "cron": "0 4 * * *", "job_type": "work", "revision": 1 });
    ops.call("PUT", "/schedules/nightly")
        .json(&stale)
        .send()
        .await
        .problem(409);

    let paused = ops
        .post("/schedules/nightly/pause", &json!({ "reason": "the moon" }))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&paused["enabled"], &paused["pause_reason"]),
        (&json!(false), &json!("the moon"))
    );
    let kept = ops
        .call("PUT", "/schedules/nightly")
        .json(&body)
        .send()
        .await
        .expect(200)
        .json();
    assert_eq!(kept["enabled"], false, "a change alone wakes nothing");
    let fired = ops
        .post("/schedules/nightly/fire", &json!({ "reason": "by hand" }))
        .await
        .expect(202)
        .json();
    assert_eq!(fired["job"]["labels"]["schedule"], "nightly");
    assert_eq!(fires(&system).await[0]["manual"], true);
    let resumed = ops
        .press("/schedules/nightly/resume")
        .await
        .expect(200)
        .json();
    assert_eq!(resumed["enabled"], true);

    let gone = ops
        .call("DELETE", "/schedules/nightly")
        .send()
        .await
        .expect(204);
    assert_eq!(gone.body, "");
    for (method, path) in [
        ("GET", "/schedules/nightly"),
        ("DELETE", "/schedules/nightly"),
        ("POST", "/schedules/nightly/fire"),
        ("POST", "/schedules/nightly/pause"),
        ("POST", "/schedules/nightly/resume"),
        ("GET", "/schedules/nightly/next"),
        ("GET", "/schedules/none/fires"),
        ("GET", "/schedules/NO%20NAME"),
    ] {
        ops.call(method, path).send().await.problem(404);
    }
    ops.call("PUT", "/schedules/nightly")
        .json(&body)
        .send()
        .await
        .problem(404);
    system.stop().await;
}

#[tokio::test]
async fn what_is_next_is_shown_before_and_after_a_pattern_is_kept() {
    let system = on(0).await;
    make(
        &system,
        json!({ "cron": "30 2 * * *", "timezone": "Europe/Berlin" }),
    )
    .await;
    let next = system
        .ops
        .get("/schedules/nightly/next?count=3&after=2026-03-28T00:00:00Z")
        .await
        .expect(200)
        .json();
    let locals: Vec<_> = next["instants"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|i| i["local"].clone())
        .collect();
    assert_eq!(
        locals,
        [
            "2026-03-28T02:30:00+01:00",
            "2026-03-29T03:00:00+02:00",
            "2026-03-30T02:30:00+02:00"
        ]
    );
    let body = json!({ "cron": "30 2 * * *", "timezone": "Europe/Berlin", "count": 2, "after": "2026-10-24T12:00:00Z" });
    let preview = system
        .ops
        .post("/schedules/preview", &body)
        .await
        .expect(200)
        .json();
    assert_eq!(preview["instants"][0]["instant"], "2026-10-25T00:30:00Z");
    assert_eq!(preview["instants"][1]["instant"], "2026-10-26T01:30:00Z");
    system
        .ops
        .get("/schedules/nightly/next?count=0")
        .await
        .problem(422);
    system.stop().await;
}

#[tokio::test]
async fn a_wrong_schedule_hears_of_all_its_faults_and_is_not_kept() {
    let system = on(0).await;
    let ops = &system.ops;
    let wrong = json!({ "name": "No", "cron": "0 0 30 2 *", "timezone": "Mars", "job_type": "a b", "overlap": "maybe", "x": 1 });
    let answer = ops.post("/schedules", &wrong).await;
    assert_eq!(
        answer.wrong_fields(),
        ["/name", "/cron", "/timezone", "/job_type", "/overlap", "/x"]
    );
    assert!(answer.body.contains("never fires"), "{answer:?}");
    assert_eq!(
        ops.post(
            "/schedules",
            &json!({ "cron": "@daily", "job_type": "work" })
        )
        .await
        .wrong_fields(),
        ["/name"]
    );
    let closed = json!({ "name": "n", "cron": "@daily", "job_type": "nearsight_collect_refresh" });
    assert!(
        ops.post("/schedules", &closed)
            .await
            .problem(403)
            .to_string()
            .contains("NEARSIGHT_ENABLED")
    );
    assert_eq!(
        system
            .database
            .count("select count(*) from ops_schedules")
            .await,
        0
    );
    system.stop().await;
}

#[tokio::test]
async fn with_the_flag_off_nothing_of_schedules_is_there_read_or_written() {
    let system = System::builder().shell("work", "cat", "").start().await;
    sqlx::raw_sql(
        "insert into ops_schedules (name, cron, job_type, next_fire_at) values ('s', '* * * * *', 'work', now() - interval '1 hour');
         alter table ops_schedules rename to hidden_schedules; alter table ops_schedule_fires rename to hidden_fires;",
    )
    .execute(&system.database.psql)
    .await
    .expect("hidden");
    for path in [
        "/schedules",
        "/schedules/s",
        "/schedules/s/fires",
        "/schedules/s/next",
    ] {
        system.ops.get(path).await.problem(404);
    }
    system.ops.press("/schedules/preview").await.problem(404);
    assert_eq!(
        system.ops.press("/tick").await.expect(200).json()["fired"],
        0
    );
    let tick = system
        .runner(0)
        .post("/tick", &json!({}))
        .await
        .expect(200)
        .json();
    assert_eq!(tick["fired"], 0);
    assert_eq!(
        system.database.count("select count(*) from ops_jobs").await,
        0
    );
    system.stop().await;
}

async fn opsctl(system: &System, arguments: &[&str]) -> (i32, Value, String) {
    let start = Start::of("opsctl")
        .arguments(&["--output", "json", "schedules"])
        .arguments(arguments);
    let start = start
        .set("OPS_URL", &system.ops.at("").url(""))
        .set("OPS_API_KEY", API_KEY);
    let (code, stdout, stderr) = start.run().await;
    (
        code,
        serde_json::from_str(&stdout).unwrap_or_default(),
        stderr,
    )
}

#[tokio::test]
async fn the_operators_command_does_all_of_it() {
    let system = on(0).await;
    let (code, made, told) = opsctl(
        &system,
        &[
            "create",
            "nightly",
            "--cron",
            "0 3 * * *",
            "--timezone",
            "Europe/Berlin",
            "--type",
            "work",
            "--catch-up",
            "one",
        ],
    )
    .await;
    assert_eq!(
        (code, &made["timezone"]),
        (0, &json!("Europe/Berlin")),
        "{told}"
    );
    let (_, changed, told) = opsctl(&system, &["update", "nightly", "--jitter", "60"]).await;
    assert_eq!(
        (&changed["jitter_seconds"], &changed["catch_up"]),
        (&json!(60), &json!("one")),
        "{told}"
    );
    let (_, paused, _) = opsctl(&system, &["pause", "nightly", "--reason", "the moon"]).await;
    assert_eq!(paused["pause_reason"], "the moon");
    assert_eq!(
        opsctl(&system, &["resume", "nightly"]).await.1["enabled"],
        true
    );
    let (_, fired, _) = opsctl(&system, &["fire", "nightly", "--reason", "now"]).await;
    let (_, fires, _) = opsctl(&system, &["fires", "nightly"]).await;
    assert_eq!(fires["fires"][0]["job_id"], fired["job_id"]);
    assert_eq!(
        opsctl(&system, &["next", "nightly", "--count", "2"])
            .await
            .1["instants"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    let (_, preview, _) = opsctl(
        &system,
        &[
            "preview",
            "@hourly",
            "--count",
            "1",
            "--after",
            "2026-01-01T00:30:00Z",
        ],
    )
    .await;
    assert_eq!(preview["instants"][0]["instant"], "2026-01-01T01:00:00Z");
    assert_eq!(
        opsctl(&system, &["list"]).await.1["schedules"][0]["name"],
        "nightly"
    );
    assert_eq!(opsctl(&system, &["show", "nightly"]).await.1["revision"], 4);
    assert_eq!(opsctl(&system, &["delete", "nightly"]).await.0, 0);
    let (code, _, told) = opsctl(&system, &["show", "nightly"]).await;
    assert!(
        code != 0 && told.contains("no such schedule"),
        "{code} {told}"
    );
    system.stop().await;
}
