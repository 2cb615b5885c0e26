//! Runners one by one: drained, they are given nothing; forgotten, what they ran comes back; those that do not fit get nothing.

use jobs::{Closed, RunnerReport, Status, Steered, StoreError};

use crate::database::{Database, TestRunner};

async fn report(database: &Database, runner: &TestRunner) {
    let report = RunnerReport {
        runner: &runner.identity,
        version: "1",
        job_types: &["a".to_owned()],
        slots_total: 4,
        slots_used: 0,
        draining: false,
        poll: None,
        types: &runner.types,
    };
    database
        .store
        .report_runner(report)
        .await
        .expect("reported");
}

async fn type_in(database: &Database, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&database.psql).await.expect(sql);
}

async fn codes(database: &Database, id: uuid::Uuid) -> Vec<String> {
    sqlx::query_scalar("select code from ops_why($1)")
        .bind(id)
        .fetch_all(&database.psql)
        .await
        .expect("reasons")
}

fn limited() -> TestRunner {
    let mut runner = TestRunner::new("r1", &["a"]);
    for terms in &mut runner.types {
        terms.concurrency = Some(3);
    }
    runner
}

#[tokio::test]
async fn a_drained_runner_is_given_nothing_however_it_asks_and_others_are() {
    let database = Database::new().await;
    let store = &database.store;
    let runner = TestRunner::new("r1", &["a"]);
    report(&database, &runner).await;
    let running = runner.take(&database, database.record("a").await.id).await;
    let id = database.record("a").await.id;
    let drained = store.drain_runner("r1", "key:test", Some("new disk")).await;
    assert_eq!(drained.expect("an answer"), Steered::Done { taken_back: 0 });
    for runner in [TestRunner::new("r1", &["a"]), limited()] {
        let due = store.claim_due(runner.request(), 10).await;
        assert!(due.expect("an answer").is_empty());
        let refused = store.claim_by_id(runner.request(), id).await;
        let StoreError::RunnerClosed { job_id, closed } = refused.expect_err("drained") else {
            panic!("another reason");
        };
        assert_eq!(job_id, Some(id));
        assert!(
            closed.to_string().starts_with("drained by key:test since "),
            "{closed}"
        );
        assert!(closed.to_string().ends_with(" (new disk)"), "{closed}");
    }
    assert_eq!(codes(&database, id).await[0], "runners_drained");
    // Its own reports, a restart and a day of silence change nothing of it; what it runs, it may end.
    report(&database, &runner).await;
    store.sign_off(&runner.identity).await.expect("signed off");
    type_in(
        &database,
        "update ops_runners set last_seen_at = now() - interval '2 days'",
    )
    .await;
    store.sweep("test").await.expect("swept");
    report(&database, &TestRunner::new("r1", &["a"])).await;
    let known = &store.runners().await.expect("a list")[0];
    assert!(known.draining && known.drain_requested_by.as_deref() == Some("key:test"));
    let ended = store
        .finish(
            running.lease,
            jobs::Outcome::Succeeded(serde_json::json!(1)),
        )
        .await;
    ended.expect("what runs goes on to its end");
    let other = TestRunner::new("r2", &["a"]);
    let taken = store
        .claim_due(other.request(), 10)
        .await
        .expect("an answer");
    assert_eq!(taken.len(), 1, "another runner is given it");
    let undrained = store.undrain_runner("r1", "key:test", None).await;
    assert_eq!(
        undrained.expect("an answer"),
        Steered::Done { taken_back: 0 }
    );
    assert_eq!(
        store.closed_to(&runner.identity).await.expect("an answer"),
        None
    );
    let id = database.record("a").await.id;
    TestRunner::new("r1", &["a"]).take(&database, id).await;
    let changes = store.fleet_changes().await.expect("a list");
    let told: Vec<_> = changes
        .iter()
        .map(|change| {
            (
                change.change.as_str(),
                change.runner_id.as_deref(),
                change.actor.as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("undrained", Some("r1"), "key:test"),
            ("drained", Some("r1"), "key:test")
        ]
    );
    for unknown in [
        store.drain_runner("r9", "x", None).await,
        store.undrain_runner("r9", "x", None).await,
        store.forget_runner("r9", "x", None).await,
    ] {
        assert_eq!(unknown.expect("an answer"), Steered::Unknown);
    }
}

#[tokio::test]
async fn a_silent_runner_is_forgotten_and_its_jobs_come_back_at_once() {
    let database = Database::new().await;
    let store = &database.store;
    let runner = TestRunner::new("r1", &["a"]);
    report(&database, &runner).await;
    let mut new = jobs::NewJob::new(crate::database::name("a"), serde_json::json!({}));
    new.max_attempts = Some(3);
    let id = database.record_with(new).await.id;
    let lost = runner.take(&database, id).await;
    let alive = store.forget_runner("r1", "key:test", None).await;
    assert_eq!(alive.expect("an answer"), Steered::Alive);
    type_in(
        &database,
        "update ops_runners set last_seen_at = now() - interval '61 seconds'",
    )
    .await;
    let forgotten = store.forget_runner("r1", "key:test", None).await;
    assert_eq!(
        forgotten.expect("an answer"),
        Steered::Done { taken_back: 1 }
    );
    assert_eq!(database.job(id).await.status, Status::Queued);
    assert!(
        database
            .kinds(id)
            .await
            .contains(&"lease_expired".to_owned())
    );
    assert!(store.runners().await.expect("a list").is_empty());
    let late = store
        .finish(lost.lease, jobs::Outcome::Succeeded(serde_json::json!(1)))
        .await;
    assert!(late.is_err(), "what it says later is refused");
}

#[tokio::test]
async fn a_runner_that_does_not_speak_what_the_database_serves_is_given_nothing_and_shown() {
    let database = Database::new().await;
    let store = &database.store;
    type_in(
        &database,
        "update ops_fleet set protocol_min = 8, protocol_max = 9",
    )
    .await;
    let id = database.record("a").await.id;
    for runner in [TestRunner::new("r1", &["a"]), limited()] {
        report(&database, &runner).await;
        let due = store.claim_due(runner.request(), 10).await;
        assert!(due.expect("an answer").is_empty());
        let refused = store.claim_by_id(runner.request(), id).await;
        let StoreError::RunnerClosed { closed, .. } = refused.expect_err("closed") else {
            panic!("another reason");
        };
        assert_eq!(*closed, Closed::Incompatible { min: 8, max: 9 });
    }
    assert!(!store.runners().await.expect("a list")[0].fits);
    assert_eq!(codes(&database, id).await[0], "runners_incompatible");
    type_in(&database, "update ops_fleet set protocol_min = 1").await;
    TestRunner::new("r1", &["a"]).take(&database, id).await;
}
