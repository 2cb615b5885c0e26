//! Deliveries at the database: written with their event or not at all, taken by one sender at a time, tried again, given up.

use jobs::{
    ClaimedDelivery, NewJob, Outcome, WEBHOOK_KINDS, WebhookName, WebhookOutcome, WebhookRecord,
    WebhookTerms,
};
use serde_json::{Value, json};
use sqlx::Executor;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::database::{Database, TestRunner, name};

const KEY: &str = "0badcafe";

fn named(text: &str) -> WebhookName {
    text.parse().expect("a name")
}

async fn endpoint(database: &Database, text: &str, terms: WebhookTerms) {
    let made = database
        .store
        .create_webhook(&named(text), &terms, true, "key:test")
        .await;
    made.expect("an answer").expect("made");
}

fn terms(kinds: &[&str]) -> WebhookTerms {
    WebhookTerms {
        events: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        ..WebhookTerms::new("https://example.com/hook")
    }
}

async fn claim(database: &Database, sender: &str) -> Vec<ClaimedDelivery> {
    database
        .store
        .claim_deliveries(sender, &[KEY.to_owned()], 100)
        .await
        .expect("an answer")
}

fn failed() -> WebhookOutcome {
    WebhookOutcome {
        status: Some(500),
        error: Some("answered 500".to_owned()),
        duration_ms: 5,
        retry_after: None,
        gone: false,
    }
}

fn arrived() -> WebhookOutcome {
    WebhookOutcome {
        status: Some(200),
        error: None,
        ..failed()
    }
}

async fn record(
    database: &Database,
    sender: &str,
    claimed: &ClaimedDelivery,
    outcome: &WebhookOutcome,
) -> WebhookRecord {
    database
        .store
        .record_attempt(sender, claimed.id, claimed.attempt, outcome)
        .await
        .expect("an answer")
}

async fn bodies(database: &Database) -> Vec<Value> {
    let bodies: Vec<String> =
        sqlx::query_scalar("select body from ops_webhook_deliveries order by id")
            .fetch_all(&database.psql)
            .await
            .expect("bodies");
    let bodies = bodies.iter();
    bodies
        .map(|body| serde_json::from_str(body).expect("JSON"))
        .collect()
}

async fn psql(database: &Database, sql: &'static str) {
    database.psql.execute(sql).await.expect(sql);
}

async fn now_due(database: &Database) {
    psql(
        database,
        "update ops_webhook_deliveries set due_at = clock_timestamp() where state = 'pending'",
    )
    .await;
}

#[tokio::test]
async fn the_schema_knows_the_same_kinds_and_each_is_one_that_events_have() {
    let database = Database::new().await;
    let kinds: Vec<String> = sqlx::query_scalar("select unnest(ops_webhook_kinds())")
        .fetch_all(&database.psql)
        .await
        .expect("kinds");
    assert_eq!(kinds, WEBHOOK_KINDS);
    let missing: Vec<String> = sqlx::query_scalar(
        "select kind from ops_job_transitions where kind <> all (ops_webhook_kinds())",
    )
    .fetch_all(&database.psql)
    .await
    .expect("kinds");
    assert_eq!(missing, Vec::<String>::new());
}

#[tokio::test]
async fn a_delivery_is_written_with_its_event_and_taken_back_with_it() {
    let database = Database::new().await;
    database.record("a").await;
    endpoint(&database, "all", terms(&WEBHOOK_KINDS)).await;
    let mut transaction = database.psql.begin().await.expect("a transaction");
    transaction
        .execute("select ops_enqueue('a', '{}')")
        .await
        .expect("recorded");
    transaction.rollback().await.expect("taken back");
    assert_eq!(bodies(&database).await.len(), 0);

    let id = database.record("a").await.id;
    let leased = TestRunner::new("r1", &["a"]).take(&database, id).await;
    let failed = Outcome::Failed("broken".to_owned());
    database
        .store
        .finish(leased.lease, failed)
        .await
        .expect("recorded");
    let events = database.store.events(id, 0, 100).await.expect("events");
    let told = bodies(&database).await;
    let kinds: Vec<String> = told
        .iter()
        .map(|body| {
            body["data"]["event"]["kind"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(kinds, database.kinds(id).await);
    for (body, event) in told.iter().zip(&events) {
        assert_eq!(body["type"], format!("job.{}", event.kind));
        assert_eq!(body["data"]["event"]["seq"], event.seq);
        assert_eq!(body["data"]["job_id"], id.to_string());
    }
    assert_eq!(told[2]["data"]["event"]["error"], "broken");
    assert_eq!(told[2]["data"]["status"], "failed");
}

#[tokio::test]
async fn filters_choose_and_payload_and_result_are_told_only_where_asked_for_and_small() {
    let database = Database::new().await;
    let of_type = WebhookTerms {
        job_types: Some(vec![name("b")]),
        ..terms(&["queued"])
    };
    let of_queue = WebhookTerms {
        queues: Some(vec![name("mine")]),
        with_payload: true,
        with_result: true,
        ..terms(&["queued", "succeeded"])
    };
    endpoint(&database, "of_type", of_type).await;
    endpoint(&database, "of_queue", of_queue).await;
    database
        .record_with(NewJob::new(name("a"), json!({"canary": 1})))
        .await;
    assert_eq!(bodies(&database).await.len(), 0);
    database
        .record_with(NewJob::new(name("b"), json!({"canary": 1})))
        .await;
    let told = bodies(&database).await;
    assert_eq!(told.len(), 1);
    assert!(!told[0].to_string().contains("canary"));
    let new = |payload| NewJob {
        queue: name("mine"),
        ..NewJob::new(name("a"), payload)
    };
    let small = database.record_with(new(json!({"canary": 1}))).await.id;
    let leased = TestRunner::new("r1", &["a"]).take(&database, small).await;
    let long = "r".repeat(70_000);
    let done = Outcome::Succeeded(json!(long));
    database
        .store
        .finish(leased.lease, done)
        .await
        .expect("recorded");
    let told = bodies(&database).await;
    assert_eq!(told[1]["data"]["payload"], json!({"canary": 1}));
    assert_eq!(told[2]["data"]["payload"], json!({"canary": 1}));
    assert_eq!(told[2]["data"]["omitted"], json!(["result"]));
    assert!(told[2]["data"].get("result").is_none());
    for kept in [&told[1], &told[2]] {
        assert!(kept.to_string().len() < 2000);
    }
}

#[tokio::test]
async fn what_a_decision_changes_is_not_told() {
    let database = Database::new().await;
    endpoint(&database, "all", terms(&WEBHOOK_KINDS)).await;
    psql(
        &database,
        "select ops_enqueue('a', '{}', stages => '[{\"name\": \"draft\", \"gate\": {}}]')",
    )
    .await;
    let id: Uuid = sqlx::query_scalar("select id from ops_jobs")
        .fetch_one(&database.psql)
        .await
        .expect("the job");
    let leased = TestRunner::new("r1", &["a"]).take(&database, id).await;
    let done = Outcome::Succeeded(json!({"text": "canary"}));
    database
        .store
        .finish(leased.lease, done)
        .await
        .expect("recorded");
    sqlx::query("select ops_reject($1, 'draft', 'not yet', '{\"canary\": 2}')")
        .bind(id)
        .execute(&database.psql)
        .await
        .expect("rejected");
    let told = bodies(&database).await;
    let rejected = told.last().expect("a message");
    assert_eq!(rejected["type"], "job.gate_rejected");
    assert_eq!(rejected["data"]["event"]["stage"], "draft");
    assert_eq!(rejected["data"]["event"]["reason"], "not yet");
    assert!(!format!("{told:?}").contains("canary"));
}

#[tokio::test]
async fn a_job_moves_while_somebody_changes_or_removes_an_endpoint() {
    let database = Database::new().await;
    endpoint(&database, "all", terms(&["queued"])).await;
    let mut removing = database.psql.begin().await.expect("a transaction");
    removing
        .execute("delete from ops_webhooks")
        .await
        .expect("removed, not yet for others");
    database.record("a").await;
    removing.commit().await.expect("removed");
    assert_eq!(bodies(&database).await.len(), 1);
    assert_eq!(claim(&database, "s").await.len(), 0);
    database.store.keep_webhooks().await.expect("kept");
    assert_eq!(bodies(&database).await.len(), 0);
}

#[tokio::test]
async fn many_senders_take_each_delivery_once_and_a_failing_endpoint_is_tried_one_by_one() {
    let database = Database::new().await;
    endpoint(&database, "one", terms(&["queued"])).await;
    endpoint(&database, "two", terms(&["queued"])).await;
    psql(
        &database,
        "select ops_enqueue('a', '{}') from generate_series(1, 100)",
    )
    .await;
    psql(
        &database,
        "update ops_webhooks set failing_since = now() where name = 'two'",
    )
    .await;
    let mut senders = JoinSet::new();
    for number in 0..20 {
        let store = database.store.clone();
        senders.spawn(async move {
            let sender = format!("s{number}");
            let mut taken = Vec::new();
            loop {
                let claimed = store
                    .claim_deliveries(&sender, &[KEY.to_owned()], 100)
                    .await
                    .expect("an answer");
                assert!(claimed.iter().filter(|one| one.webhook == "two").count() <= 1);
                if claimed.is_empty() {
                    return taken;
                }
                taken.extend(claimed.into_iter().map(|one| (one.id, one.attempt)));
            }
        });
    }
    let taken = senders.join_all().await.concat();
    let once: std::collections::BTreeSet<_> = taken.iter().collect();
    assert_eq!((taken.len(), once.len()), (200, 200));
    assert!(taken.iter().all(|(_, attempt)| *attempt == 1));
}

#[tokio::test]
async fn a_sender_that_comes_too_late_changes_nothing() {
    let database = Database::new().await;
    endpoint(&database, "all", terms(&["queued"])).await;
    database.record("a").await;
    let first = claim(&database, "first").await.remove(0);
    assert_eq!(claim(&database, "second").await.len(), 0);
    now_due(&database).await;
    let second = claim(&database, "second").await.remove(0);
    assert_eq!((second.id, second.attempt), (first.id, 2));
    assert_eq!(
        record(&database, "first", &first, &failed()).await,
        WebhookRecord::Late
    );
    assert_eq!(
        record(&database, "second", &second, &arrived()).await,
        WebhookRecord::Delivered
    );
    assert_eq!(
        record(&database, "second", &second, &failed()).await,
        WebhookRecord::Late
    );
    let (delivery, attempts) = database
        .store
        .delivery(&named("all"), first.id)
        .await
        .expect("an answer")
        .expect("the delivery");
    assert_eq!(delivery.state, jobs::DeliveryState::Delivered);
    let told: Vec<_> = attempts
        .iter()
        .map(|attempt| (attempt.sender.as_str(), attempt.status))
        .collect();
    assert_eq!(told, [("first", Some(500)), ("second", Some(200))]);
}

#[tokio::test]
async fn failures_are_tried_again_later_and_later_until_they_are_given_up() {
    let database = Database::new().await;
    endpoint(&database, "all", terms(&["queued"])).await;
    database.record("a").await;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        now_due(&database).await;
        let claimed = claim(&database, "s").await.remove(0);
        assert_eq!(
            record(&database, "s", &claimed, &failed()).await,
            WebhookRecord::Retry
        );
        let pause: f64 = sqlx::query_scalar(
            "select extract(epoch from due_at - clock_timestamp())::float8 from ops_webhook_deliveries",
        )
        .fetch_one(&database.psql)
        .await
        .expect("a time");
        pauses.push(pause);
    }
    for (pause, usual) in pauses
        .iter()
        .zip([5.0, 20.0, 80.0, 320.0, 1280.0, 5120.0, 20480.0, 21600.0])
    {
        assert!(
            (usual * 0.8 - 1.0..=usual * 1.2).contains(pause),
            "{pauses:?}"
        );
    }
    psql(
        &database,
        "update ops_webhook_deliveries set give_up_at = clock_timestamp()",
    )
    .await;
    now_due(&database).await;
    let claimed = claim(&database, "s").await.remove(0);
    assert_eq!(
        record(&database, "s", &claimed, &failed()).await,
        WebhookRecord::Dead
    );
    now_due(&database).await;
    assert_eq!(claim(&database, "s").await.len(), 0);
    // By hand it begins anew, with short pauses.
    let resent = database
        .store
        .resend_dead_deliveries(&named("all"), None, "key:test")
        .await;
    assert_eq!(resent.expect("an answer"), Some(1));
    let again = claim(&database, "s").await.remove(0);
    assert_eq!((again.id, again.attempt), (claimed.id, 10));
    assert_eq!(
        record(&database, "s", &again, &failed()).await,
        WebhookRecord::Retry
    );
    let pause: f64 = sqlx::query_scalar(
        "select extract(epoch from due_at - clock_timestamp())::float8 from ops_webhook_deliveries",
    )
    .fetch_one(&database.psql)
    .await
    .expect("a time");
    assert!(pause < 7.0, "{pause}");
}

#[tokio::test]
async fn nothing_is_sent_while_the_fleet_is_paused_nor_by_a_sender_without_the_key() {
    let database = Database::new().await;
    endpoint(&database, "all", terms(&["queued"])).await;
    database.record("a").await;
    psql(&database, "select ops_pause_fleet('restored')").await;
    assert_eq!(claim(&database, "s").await.len(), 0);
    psql(&database, "select ops_resume_fleet()").await;
    psql(
        &database,
        "update ops_webhooks set signing_key_id = 'deadbeef'",
    )
    .await;
    assert_eq!(claim(&database, "s").await.len(), 0);
    let keys = [KEY.to_owned(), "deadbeef".to_owned()];
    let claimed = database.store.claim_deliveries("s", &keys, 100).await;
    assert_eq!(claimed.expect("an answer").len(), 1);
    // From then on the newer key is enough.
    now_due(&database).await;
    assert_eq!(claim(&database, "s").await.len(), 1);
}

#[tokio::test]
async fn what_ended_long_ago_is_forgotten_and_what_waits_for_a_disabled_endpoint_is_given_up() {
    let database = Database::new().await;
    endpoint(&database, "all", terms(&["queued"])).await;
    psql(
        &database,
        "select ops_enqueue('a', '{}') from generate_series(1, 3)",
    )
    .await;
    let claimed = claim(&database, "s").await;
    record(&database, "s", &claimed[0], &arrived()).await;
    record(&database, "s", &claimed[1], &arrived()).await;
    sqlx::query(
        "update ops_webhook_deliveries set ended_at = ended_at - interval '31 days' where id = $1",
    )
    .bind(claimed[0].id)
    .execute(&database.psql)
    .await
    .expect("long ago");
    assert_eq!(database.store.keep_webhooks().await.expect("kept"), 1);
    let attempts: i64 = sqlx::query_scalar("select count(*) from ops_webhook_attempts")
        .fetch_one(&database.psql)
        .await
        .expect("a count");
    assert_eq!(attempts, 2);
    psql(&database, "select ops_disable_webhook('all', 'moon')").await;
    psql(
        &database,
        "update ops_webhook_deliveries set give_up_at = clock_timestamp()",
    )
    .await;
    database.store.keep_webhooks().await.expect("kept");
    let dead = database
        .store
        .deliveries(&named("all"), Some(jobs::DeliveryState::Dead), None, 10)
        .await
        .expect("a page");
    assert_eq!(dead.deliveries.len(), 1);
    let seen: (i64, i64, i64) =
        sqlx::query_as("select pending, dead, delivered from ops_webhook_health")
            .fetch_one(&database.psql)
            .await
            .expect("the view");
    assert_eq!(seen, (0, 1, 1));
}

#[tokio::test]
async fn by_hand_only_sane_endpoints_can_be_made_and_who_changed_them_is_known() {
    let database = Database::new().await;
    for sql in [
        "insert into ops_webhooks (name, url) values ('A', 'https://h/')",
        "insert into ops_webhooks (name, url) values ('a', 'file:///etc/passwd')",
        "insert into ops_webhooks (name, url) values ('a', 'https://user:pass@h/')",
        "insert into ops_webhooks (name, url) values ('a', 'https:///x')",
        "insert into ops_webhooks (name, url, events) values ('a', 'https://h/', '{note}')",
        "insert into ops_webhooks (name, url, events) values ('a', 'https://h/', '{}')",
        "insert into ops_webhooks (name, url, job_types) values ('a', 'https://h/', '{}')",
        "insert into ops_webhooks (name, url, timeout_seconds) values ('a', 'https://h/', 31)",
    ] {
        let error = database.psql.execute(sql).await.expect_err(sql);
        let code = error.as_database_error().and_then(|error| error.code());
        assert_eq!(code.as_deref(), Some("23514"), "{sql}");
    }
    psql(
        &database,
        "insert into ops_webhooks (name, url) values ('a', 'https://h/x?y=1')",
    )
    .await;
    psql(&database, "select ops_disable_webhook('a', 'moon')").await;
    let webhook = database
        .store
        .webhook(&named("a"))
        .await
        .expect("an answer")
        .expect("there");
    let login: String = sqlx::query_scalar("select session_user::text")
        .fetch_one(&database.psql)
        .await
        .expect("a login");
    assert_eq!(webhook.disabled_by.as_ref(), Some(&login));
    assert_eq!(webhook.disabled_reason.as_deref(), Some("moon"));
    psql(&database, "update ops_webhooks set enabled = true").await;
    let webhook = database
        .store
        .webhook(&named("a"))
        .await
        .expect("an answer")
        .expect("there");
    assert_eq!((webhook.disabled_by, webhook.revision), (None, 3));
    let error = database
        .psql
        .execute("update ops_webhooks set name = 'b'")
        .await
        .expect_err("its name");
    assert!(error.to_string().contains("never change"), "{error}");
    psql(&database, "select ops_ping_webhook('a')").await;
    assert_eq!(bodies(&database).await[0]["type"], "webhook.ping");
}
