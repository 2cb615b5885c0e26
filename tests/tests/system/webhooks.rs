//! Webhooks: jobs' events told to real receivers, signed, retried, recorded; and nothing called that must not be.

use serde_json::{Value, json};
use sqlx::Executor;
use tests::{Builder, Heard, Receiver, Reply, SECRET_KEY, Start, System, signature, wait_until};

/// What the control plane derives from its `SECRET_KEY`, which runners are told.
fn runners_key() -> String {
    let key = service::Secret::new(SECRET_KEY);
    webhooks::derived_signing_key(&key).expose().to_owned()
}

fn builder() -> Builder {
    System::builder()
        .shell("works", "true", "")
        .shell("fails", "echo canary-output; exit 1", "")
        .set("WEBHOOK_ALLOW", "127.0.0.1")
        .set("WEBHOOK_SIGNING_KEY", &runners_key())
}

async fn create(system: &System, body: Value) -> Value {
    system.ops.post("/webhooks", &body).await.expect(201).json()
}

async fn webhook(system: &System, name: &str) -> Value {
    let path = format!("/webhooks/{name}");
    system.ops.get(&path).await.expect(200).json()
}

async fn deliveries(system: &System, name: &str) -> Vec<Value> {
    let path = format!("/webhooks/{name}/deliveries");
    let page = system.ops.get(&path).await.expect(200).json();
    page["deliveries"].as_array().cloned().expect("a page")
}

/// The only delivery of an endpoint, once it is as asked.
async fn delivery_that(system: &System, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait_until("the delivery is as asked", async || {
        let found = deliveries(system, name).await;
        assert!(found.len() <= 1, "{found:?}");
        found.into_iter().next().filter(&fits)
    })
    .await
}

async fn heard(receiver: &Receiver, count: usize) -> Vec<Heard> {
    wait_until("the receiver has heard it", async || {
        let heard = receiver.heard();
        (heard.len() >= count).then_some(heard)
    })
    .await
}

/// What is due later is due now, as a person in psql would have it.
async fn hasten(system: &System) {
    system
        .database
        .psql
        .execute("update ops_webhook_deliveries set due_at = clock_timestamp() where state = 'pending' and sender is null")
        .await
        .expect("hastened");
}

#[test]
fn the_receiver_verifies_as_the_published_vector_has_it() {
    assert_eq!(
        signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            "{\"test\": 2432232314}"
        ),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    );
}

#[tokio::test]
async fn chosen_events_arrive_signed_and_hold_neither_payload_nor_result() {
    let system = builder().start().await;
    let receiver = Receiver::taking().await;
    let made = create(
        &system,
        json!({"name": "ends", "url": receiver.url(), "events": ["succeeded", "failed"]}),
    )
    .await;
    assert!(!made.to_string().contains("whsec_"), "{made}");
    let job =
        json!({"job_type": "works", "payload": {"canary": "payload"}, "labels": {"team": "a"}});
    let good = system.run_until(&job, "succeeded").await;
    let bad = system
        .run_until(&json!({"job_type": "fails"}), "failed")
        .await;
    let all = heard(&receiver, 2).await;
    let (code, secret, error) = system.opsctl(&["webhooks", "secret", "ends"]).await;
    assert_eq!(code, 0, "{error}");
    let now: i64 = sqlx::query_scalar("select extract(epoch from clock_timestamp())::bigint")
        .fetch_one(&system.database.psql)
        .await
        .expect("now");
    for message in &all {
        assert_eq!(message.right_signatures(secret.trim()), 1, "{message:?}");
        let sent: i64 = message.headers["webhook-timestamp"]
            .parse()
            .expect("seconds");
        assert!((now - sent).abs() <= 60, "{message:?}");
        assert_eq!(message.headers["content-type"], "application/json");
        assert!(!message.body.contains("canary"), "{message:?}");
    }
    let find = |id: &Value| {
        let found = all
            .iter()
            .find(|heard| heard.json()["data"]["job_id"] == *id);
        found.expect("a message of the job").json()
    };
    let told = find(&good["id"]);
    let event = system.events(good["id"].as_str().expect("an id")).await;
    let event = event.last().expect("an event");
    assert_eq!(told["type"], "job.succeeded");
    let data = &told["data"];
    assert_eq!(
        (
            &data["job_type"],
            &data["queue"],
            &data["status"],
            &data["labels"]
        ),
        (
            &json!("works"),
            &json!("default"),
            &json!("succeeded"),
            &json!({"team": "a"})
        )
    );
    assert_eq!(data["event"]["seq"], event["seq"]);
    assert_eq!(data["event"]["attempt"], 1);
    assert_eq!(data["event"]["runner_id"], "runner-1");
    assert!(data.get("payload").is_none() && data.get("result").is_none());
    let told = find(&bad["id"]);
    assert_eq!(told["type"], "job.failed");
    assert_eq!(told["data"]["event"]["error"], bad["error"]);
    // Recorded, with nothing of a secret in any row.
    wait_until("both are recorded", async || {
        let found = deliveries(&system, "ends").await;
        found
            .iter()
            .all(|delivery| delivery["state"] == "delivered")
            .then_some(())
    })
    .await;
    let rows = tests::rows(&system.database.psql).await;
    assert!(!rows.contains("whsec_") && !rows.contains(SECRET_KEY));
    system.stop().await;
}

#[tokio::test]
async fn a_receiver_that_is_down_and_then_busy_gets_its_message_later_under_the_same_id() {
    let system = builder().start().await;
    let receiver = Receiver::start([
        Reply::Status(500, ""),
        Reply::Status(429, "Retry-After: 7200\r\n"),
        Reply::Status(200, ""),
    ])
    .await;
    let body = json!({"name": "slow", "url": receiver.url(), "events": ["succeeded"]});
    create(&system, body).await;
    system
        .run_until(&json!({"job_type": "works"}), "succeeded")
        .await;
    let first = delivery_that(&system, "slow", |d| d["last_status"] == 500).await;
    assert_eq!(first["last_error"], "answered 500");
    assert!(webhook(&system, "slow").await["failing_since"].is_string());
    hasten(&system).await;
    let second = delivery_that(&system, "slow", |d| d["last_status"] == 429).await;
    let waits: f64 = sqlx::query_scalar(
        "select extract(epoch from due_at - clock_timestamp())::float8 from ops_webhook_deliveries",
    )
    .fetch_one(&system.database.psql)
    .await
    .expect("a time");
    assert!((7100.0..=7200.0).contains(&waits), "{waits}: {second}");
    hasten(&system).await;
    let third = delivery_that(&system, "slow", |d| d["state"] == "delivered").await;
    assert_eq!(third["attempts"], 3);
    assert!(webhook(&system, "slow").await["failing_since"].is_null());
    let taken = receiver.heard();
    assert_eq!(taken.len(), 3);
    assert!(
        taken
            .iter()
            .all(|one| one.id() == third["id"] && one.body == taken[0].body),
        "{taken:?}"
    );
    let path = format!("/webhooks/slow/deliveries/{}", taken[0].id());
    let whole = system.ops.get(&path).await.expect(200).json();
    assert_eq!(whole["body"], taken[0].body);
    let log = whole["log"].as_array().expect("attempts");
    let statuses: Vec<&Value> = log.iter().map(|attempt| &attempt["status"]).collect();
    assert_eq!(statuses, [500, 429, 200]);
    assert!(log.iter().all(|attempt| attempt["duration_ms"].is_u64()));
    // By hand it is sent once more.
    system
        .ops
        .press(&format!("{path}/resend"))
        .await
        .expect(202);
    assert_eq!(heard(&receiver, 4).await[3].id(), taken[0].id());
    system.stop().await;
}

#[tokio::test]
async fn a_redirect_is_an_error_and_is_not_followed() {
    let system = builder().start().await;
    let elsewhere = Receiver::taking().await;
    let location: &'static str =
        Box::leak(format!("Location: {}\r\n", elsewhere.url()).into_boxed_str());
    for status in [301, 302, 307, 308] {
        let receiver = Receiver::start([Reply::Status(status, location)]).await;
        let name = format!("moved-{status}");
        create(&system, json!({"name": name, "url": receiver.url()})).await;
        system
            .ops
            .press(&format!("/webhooks/{name}/ping"))
            .await
            .expect(202);
        let failed = delivery_that(&system, &name, |d| d["last_status"] == status).await;
        assert!(
            failed["last_error"]
                .as_str()
                .is_some_and(|why| why.contains("redirects are not followed")),
            "{failed}"
        );
    }
    assert_eq!(elsewhere.heard().len(), 0);
    system.stop().await;
}

#[tokio::test]
async fn what_is_near_us_is_not_called_however_it_is_named() {
    let system = builder().set("WEBHOOK_ALLOW", "198.51.100.7").start().await;
    let receiver = Receiver::taking().await;
    let port = receiver.port();
    // As it is written: refused at once.
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "[::ffff:a9fe:a9fe]",
        "10.0.0.1",
        "0.0.0.0",
    ] {
        let body = json!({"name": "near", "url": format!("http://{host}:{port}/")});
        let answer = system.ops.post("/webhooks", &body).await;
        assert_eq!(answer.wrong_fields(), ["/url"], "{host}");
    }
    // By a name that leads here, or written by hand into the database: refused when it is called.
    create(
        &system,
        json!({"name": "named", "url": format!("http://localhost:{port}/hook")}),
    )
    .await;
    for (name, host) in [
        ("v4", "127.0.0.1"),
        ("v6", "[::ffff:127.0.0.1]"),
        ("meta", "169.254.169.254"),
    ] {
        sqlx::query("insert into ops_webhooks (name, url) values ($1, $2)")
            .bind(name)
            .bind(format!("http://{host}:{port}/hook"))
            .execute(&system.database.psql)
            .await
            .expect("by hand");
    }
    for name in ["named", "v4", "v6", "meta"] {
        system
            .ops
            .press(&format!("/webhooks/{name}/ping"))
            .await
            .expect(202);
        let refused = delivery_that(&system, name, |d| d["last_error"].is_string()).await;
        let why = refused["last_error"].as_str().unwrap_or_default();
        assert!(why.contains("which is not public"), "{name}: {refused}");
        assert!(!why.contains("/hook"), "an address may hold a token: {why}");
    }
    assert_eq!(receiver.heard().len(), 0, "nothing was connected to");
    system.stop().await;
}

#[tokio::test]
async fn a_black_hole_delays_neither_jobs_nor_other_receivers() {
    let system = builder().start().await;
    let hole = Receiver::start([Reply::Never]).await;
    let other = Receiver::taking().await;
    for (name, receiver) in [("hole", &hole), ("other", &other)] {
        let body = json!({
            "name": name, "url": receiver.url(), "events": ["succeeded"], "timeout_seconds": 30,
        });
        create(&system, body).await;
    }
    let one = async || {
        let job = json!({"job_type": "works"});
        let job = system.run_until(&job, "succeeded").await;
        job["id"].as_str().expect("an id").to_owned()
    };
    let mut ids = vec![one().await];
    heard(&other, 1).await;
    heard(&hole, 1).await;
    // The job has ended and the other has heard of it, while the very first attempt at the hole is still waiting.
    let unanswered = system
        .database
        .count("select count(*) from ops_webhook_attempts where duration_ms is null")
        .await;
    assert!(unanswered > 0);
    for _ in 0..9 {
        ids.push(one().await);
    }
    let told: std::collections::BTreeSet<String> = heard(&other, 10)
        .await
        .iter()
        .map(|heard| {
            let id = heard.json()["data"]["job_id"].clone();
            id.as_str().unwrap_or_default().to_owned()
        })
        .collect();
    assert_eq!(told, ids.into_iter().collect());
    let arrived = webhook(&system, "hole").await["pending"].clone();
    assert_eq!(arrived, 10, "none was answered, and none is lost");
    system.stop().await;
}

#[tokio::test]
async fn a_sender_that_was_killed_before_it_could_record_is_followed_by_another_with_the_same_id() {
    let system = builder().runners(0).start().await;
    let receiver = Receiver::start([Reply::Never, Reply::Status(204, "")]).await;
    create(
        &system,
        json!({"name": "once", "url": receiver.url(), "events": ["queued"]}),
    )
    .await;
    let work = system.folder().join("work-of-sender").display().to_string();
    let file = system.runner_file().display().to_string();
    let mut sender = Start::of("runner")
        .environment(system.environment())
        .arguments(&["--config", &file])
        .set("RUNNER_ID", "killed")
        .set("RUNNER_WORK_DIR", &work)
        .start();
    sender.address().await;
    system.submit_type("nobody_takes_it").await;
    let first = heard(&receiver, 1).await.remove(0);
    sender.kill9().await;
    // While the lease of the lost sender lasts, nobody else sends.
    assert_eq!(
        system.ops.press("/tick").await.expect(200).json()["delivered"],
        0
    );
    assert_eq!(receiver.heard().len(), 1);
    system
        .database
        .psql
        .execute("update ops_webhook_deliveries set due_at = clock_timestamp()")
        .await
        .expect("the lease is over");
    assert_eq!(
        system.ops.press("/tick").await.expect(200).json()["delivered"],
        1
    );
    let second = receiver.heard().pop().expect("the second");
    assert_eq!((second.id(), &second.body), (first.id(), &first.body));
    let path = format!("/webhooks/once/deliveries/{}", first.id());
    let whole = system.ops.get(&path).await.expect(200).json();
    assert_eq!(whole["state"], "delivered");
    assert_eq!(whole["log"][0]["sender"], "sweep:killed");
    assert!(whole["log"][0]["duration_ms"].is_null(), "{whole}");
    assert_eq!(whole["log"][1]["status"], 204);
    system.stop().await;
}

#[tokio::test]
async fn many_senders_at_once_send_each_message_once() {
    let system = builder().runners(3).control_planes(2).start().await;
    let receiver = Receiver::taking().await;
    create(
        &system,
        json!({"name": "all", "url": receiver.url(), "events": ["queued"]}),
    )
    .await;
    system
        .database
        .psql
        .execute("select ops_enqueue('nobody_takes_it', '{}') from generate_series(1, 200)")
        .await
        .expect("recorded");
    let ticks = async {
        for number in 0..20 {
            system
                .control_plane(number % 2)
                .press("/tick")
                .await
                .expect(200);
        }
    };
    let (all, ()) = tokio::join!(heard(&receiver, 200), ticks);
    let ids: std::collections::BTreeSet<&str> = all.iter().map(Heard::id).collect();
    assert_eq!(ids.len(), 200);
    wait_until("all is recorded", async || {
        let pending = webhook(&system, "all").await["pending"].clone();
        (pending == 0).then_some(())
    })
    .await;
    assert_eq!(receiver.heard().len(), 200, "each was sent once");
    system.stop().await;
}

#[tokio::test]
async fn during_a_rotation_both_secrets_verify_and_after_it_only_the_new_one() {
    let system = builder().start().await;
    let receiver = Receiver::taking().await;
    create(
        &system,
        json!({"name": "keys", "url": receiver.url(), "events": ["queued"]}),
    )
    .await;
    let secret = async || {
        let (code, secret, error) = system.opsctl(&["webhooks", "secret", "keys"]).await;
        assert_eq!(code, 0, "{error}");
        secret.trim().to_owned()
    };
    let old = secret().await;
    let rotated = system
        .ops
        .post("/webhooks/keys/rotate", &json!({"overlap_seconds": 600}))
        .await
        .expect(200)
        .json();
    assert_eq!(rotated["secret_version"], 2);
    let new = secret().await;
    assert_ne!(old, new);
    system.ops.press("/webhooks/keys/ping").await.expect(202);
    let both = heard(&receiver, 1).await.remove(0);
    assert_eq!(
        (both.right_signatures(&old), both.right_signatures(&new)),
        (1, 1)
    );
    assert_eq!(both.json()["type"], "webhook.ping");
    system
        .database
        .psql
        .execute("update ops_webhooks set old_secret_until = clock_timestamp()")
        .await
        .expect("over");
    system.ops.press("/webhooks/keys/ping").await.expect(202);
    let one = heard(&receiver, 2).await.remove(1);
    assert_eq!(
        (one.right_signatures(&old), one.right_signatures(&new)),
        (0, 1)
    );
    // The runners' key follows from the control plane's, and `opsctl` says it.
    let (code, key, _) = system.opsctl(&["webhooks", "signing-key"]).await;
    assert_eq!((code, key.trim()), (0, runners_key().as_str()));
    system.stop().await;
}

#[tokio::test]
async fn a_runner_with_another_key_leaves_deliveries_to_those_that_have_the_right_one() {
    let system = System::builder()
        .set("WEBHOOK_ALLOW", "127.0.0.1")
        .set("WEBHOOK_SIGNING_KEY", "a-key-of-everybody")
        .start()
        .await;
    let receiver = Receiver::taking().await;
    create(
        &system,
        json!({"name": "keys", "url": receiver.url(), "events": ["queued"]}),
    )
    .await;
    system
        .database
        .psql
        .execute("update ops_webhooks set signing_key_id = '00000000'")
        .await
        .expect("of another key");
    system.submit_type("nobody_takes_it").await;
    assert_eq!(
        system.ops.press("/tick").await.expect(200).json()["delivered"],
        0
    );
    let (code, secret, error) = system.opsctl(&["webhooks", "secret", "keys"]).await;
    assert_eq!((code, secret.as_str()), (1, ""));
    assert!(error.contains("another key"), "{error}");
    assert_eq!(webhook(&system, "keys").await["pending"], 1);
    assert_eq!(receiver.heard().len(), 0);
    system.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_is_gone_or_fails_for_long_is_disabled_and_says_why() {
    let system = builder().start().await;
    let gone = Receiver::start([Reply::Status(410, "")]).await;
    let failing = Receiver::start([Reply::Status(503, "")]).await;
    create(&system, json!({"name": "gone", "url": gone.url()})).await;
    create(
        &system,
        json!({"name": "failing", "url": failing.url(), "disable_after_seconds": 60}),
    )
    .await;
    for name in ["gone", "failing"] {
        system
            .ops
            .press(&format!("/webhooks/{name}/ping"))
            .await
            .expect(202);
    }
    let disabled = wait_until("it is disabled", async || {
        let webhook = webhook(&system, "gone").await;
        (webhook["enabled"] == false).then_some(webhook)
    })
    .await;
    assert!(
        disabled["disabled_reason"]
            .as_str()
            .is_some_and(|why| why.contains("410")),
        "{disabled}"
    );
    assert_eq!(disabled["disabled_by"], "sweep:runner-1");
    delivery_that(&system, "failing", |d| d["last_status"] == 503).await;
    assert_eq!(webhook(&system, "failing").await["enabled"], true);
    system
        .database
        .psql
        .execute("update ops_webhooks set failing_since = failing_since - interval '2 minutes' where name = 'failing'")
        .await
        .expect("a long time");
    hasten(&system).await;
    let disabled = wait_until("it is disabled", async || {
        let webhook = webhook(&system, "failing").await;
        (webhook["enabled"] == false).then_some(webhook)
    })
    .await;
    let why = disabled["disabled_reason"].as_str().unwrap_or_default();
    assert!(
        why.contains("nothing has arrived since") && why.contains("503"),
        "{disabled}"
    );
    // Switched on again, what still waits is sent.
    failing.reply(Reply::Status(200, ""));
    let on = system
        .ops
        .press("/webhooks/failing/enable")
        .await
        .expect(200)
        .json();
    assert!(
        on["disabled_reason"].is_null() && on["failing_since"].is_null(),
        "{on}"
    );
    hasten(&system).await;
    delivery_that(&system, "failing", |d| d["state"] == "delivered").await;
    system.stop().await;
}

#[tokio::test]
async fn endpoints_are_made_changed_and_removed_and_wrong_ones_refused() {
    let system = builder().runners(0).start().await;
    let receiver = Receiver::taking().await;
    let body = json!({"name": "a", "url": receiver.url()});
    let answer = system.ops.post("/webhooks", &body).await.expect(201);
    assert_eq!(answer.header("location"), "/api/v1/ops/webhooks/a");
    let made = answer.json();
    assert_eq!(
        made["events"],
        json!([
            "succeeded",
            "failed",
            "dead_lettered",
            "aborted",
            "gate_opened"
        ])
    );
    assert_eq!(
        (&made["enabled"], &made["revision"]),
        (&json!(true), &json!(1))
    );
    system.ops.post("/webhooks", &body).await.problem(409);
    let wrong = json!({"name": "A", "url": "ftp://h/", "events": ["note"], "x": 1});
    assert_eq!(
        system.ops.post("/webhooks", &wrong).await.wrong_fields(),
        ["/name", "/events", "/x"]
    );
    let changed = system
        .ops
        .call("PUT", "/webhooks/a")
        .header("if-match", answer.header("etag"))
        .json(&json!({"url": receiver.url(), "events": ["failed"], "job_types": ["works"]}))
        .send()
        .await
        .expect(200);
    assert_eq!(changed.json()["events"], json!(["failed"]));
    let stale = system
        .ops
        .call("PUT", "/webhooks/a")
        .header("if-match", answer.header("etag"));
    stale
        .json(&json!({"url": receiver.url()}))
        .send()
        .await
        .problem(412);
    let off = system
        .ops
        .post("/webhooks/a/disable", &json!({"reason": "moon"}))
        .await
        .expect(200)
        .json();
    assert_eq!(off["disabled_reason"], "moon");
    assert!(
        off["disabled_by"]
            .as_str()
            .is_some_and(|by| by.starts_with("key:"))
    );
    let listed = system.ops.get("/webhooks?limit=1").await.expect(200).json();
    assert_eq!(listed["webhooks"][0]["name"], "a");
    for (method, path) in [
        ("GET", "/webhooks/b"),
        ("POST", "/webhooks/b/ping"),
        ("GET", "/webhooks/b/deliveries"),
        ("POST", "/webhooks/b/resend"),
        ("GET", "/webhooks/a/deliveries/nothing"),
        (
            "POST",
            "/webhooks/a/deliveries/0190163d-8694-739b-aea5-966c26f8ad90/resend",
        ),
    ] {
        system.ops.call(method, path).send().await.problem(404);
    }
    system
        .ops
        .call("DELETE", "/webhooks/a")
        .send()
        .await
        .expect(204);
    system
        .ops
        .call("DELETE", "/webhooks/a")
        .send()
        .await
        .problem(404);
    system.stop().await;
}

#[tokio::test]
async fn with_the_flag_off_nothing_is_there_and_nothing_is_sent() {
    let system = builder().set("JOBS_ENABLED", "0").runners(0).start().await;
    let receiver = Receiver::taking().await;
    system.ops.get("/webhooks").await.problem(404);
    sqlx::query("insert into ops_webhooks (name, url, events) values ('a', $1, '{queued}')")
        .bind(receiver.url())
        .execute(&system.database.psql)
        .await
        .expect("by hand");
    system
        .database
        .psql
        .execute("select ops_enqueue('a', '{}')")
        .await
        .expect("recorded");
    assert_eq!(
        system.ops.press("/tick").await.expect(200).json()["delivered"],
        0
    );
    assert_eq!(receiver.heard().len(), 0);
    system.stop().await;
}
