//! The fleet's switch: after a pause no claim begins, and who paused it, when and why is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jobs::{Outcome, Pause, Status, StoreError};
use serde_json::json;
use tokio::task::JoinSet;

use crate::database::{Database, TestRunner};

fn limited() -> TestRunner {
    let mut runner = TestRunner::new("limited", &["a"]);
    for terms in &mut runner.types {
        terms.concurrency = Some(3);
    }
    runner
}

async fn pause(database: &Database, reason: &str) {
    let paused = database.store.pause_fleet("key:test", Some(reason)).await;
    paused.expect("paused");
}

async fn resume(database: &Database) {
    let resumed = database.store.resume_fleet("key:test", None).await;
    resumed.expect("resumed");
}

async fn claims(database: &Database) -> i64 {
    sqlx::query_scalar("select count(*) from ops_job_events where kind = 'running'")
        .fetch_one(&database.psql)
        .await
        .expect("a count")
}

#[tokio::test]
async fn while_the_fleet_is_paused_nothing_is_claimed_however_it_is_asked_for() {
    let database = Database::new().await;
    let ran = TestRunner::new("r1", &["a"])
        .take(&database, database.record("a").await.id)
        .await;
    let id = database.record("a").await.id;
    pause(&database, "moving house").await;
    for runner in [TestRunner::new("r1", &["a"]), limited()] {
        let due = database.store.claim_due(runner.request(), 10).await;
        assert!(due.expect("an answer").is_empty());
        let refused = database.store.claim_by_id(runner.request(), id).await;
        let StoreError::FleetPaused { job_id, pause } = refused.expect_err("paused") else {
            panic!("another reason");
        };
        assert_eq!((job_id, pause.by.as_str()), (Some(id), "key:test"));
        assert_eq!(pause.reason.as_deref(), Some("moving house"));
    }
    assert_eq!(database.job(id).await.status, Status::Queued);
    let ended = database
        .store
        .finish(ran.lease, Outcome::Succeeded(json!(1)))
        .await;
    ended.expect("what runs goes on to its end");
    resume(&database).await;
    let due = database.store.claim_due(limited().request(), 10).await;
    assert_eq!(due.expect("an answer").len(), 1);
}

#[tokio::test]
async fn a_job_that_is_not_queued_says_so_also_while_the_fleet_is_paused() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    database
        .store
        .abort(id, "key:test", None)
        .await
        .expect("aborted");
    pause(&database, "x").await;
    let runner = TestRunner::new("r1", &["a"]);
    let refused = database.store.claim_by_id(runner.request(), id).await;
    assert!(matches!(refused, Err(StoreError::WrongStatus { .. })));
}

#[tokio::test]
async fn once_a_pause_has_been_answered_no_claim_begins_or_ends() {
    let database = Arc::new(Database::new().await);
    for _ in 0..20 {
        let jobs: Vec<_> = (0..100)
            .map(|_| jobs::NewJob::new(crate::database::name("a"), json!({})))
            .collect();
        database
            .store
            .submit_batch(&jobs, "key:test")
            .await
            .expect("recorded");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut claimers = JoinSet::new();
    for number in 0..8 {
        let (database, stop) = (Arc::clone(&database), Arc::clone(&stop));
        claimers.spawn(async move {
            let runner = match number % 2 {
                0 => TestRunner::new(&format!("r{number}"), &["a"]),
                _ => limited(),
            };
            let mut asked = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let taken = database.store.claim_due(runner.request(), 1).await;
                for leased in taken.expect("an answer") {
                    let done = Outcome::Succeeded(json!(null));
                    let ended = database.store.finish(leased.lease, done).await;
                    ended.expect("ended");
                }
                asked += 1;
            }
            asked
        });
    }
    for round in 0..10 {
        let before = claims(&database).await;
        until(async || claims(&database).await > before + 5).await;
        pause(&database, &format!("round {round}")).await;
        let at_pause = claims(&database).await;
        // Each claimer asks again in vain, several times.
        for _ in 0..5 {
            let runner = TestRunner::new("last", &["a"]);
            let due = database.store.claim_due(runner.request(), 5).await;
            assert!(due.expect("an answer").is_empty());
        }
        assert_eq!(claims(&database).await, at_pause, "round {round}");
        resume(&database).await;
    }
    stop.store(true, Ordering::Relaxed);
    let asked = claimers.join_all().await;
    assert!(asked.iter().all(|&times| times > 0), "{asked:?}");
    let changes: i64 = sqlx::query_scalar("select count(*) from ops_fleet_changes")
        .fetch_one(&database.psql)
        .await
        .expect("a count");
    assert_eq!(changes, 20);
}

async fn until(condition: impl AsyncFn() -> bool) {
    for _ in 0..3000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it never came");
}

#[tokio::test]
async fn who_paused_and_resumed_when_and_why_is_kept_however_it_was_done() {
    let database = Database::new().await;
    assert_eq!(database.store.pause().await.expect("an answer"), None);
    pause(&database, "first").await;
    let held = database.store.pause().await.expect("an answer");
    let other = database
        .store
        .pause_fleet("key:other", Some("second"))
        .await;
    other.expect("it is paused already");
    assert_eq!(
        database.store.pause().await.expect("an answer"),
        held,
        "the first holds"
    );
    let Some(Pause { by, reason, .. }) = held else {
        panic!("it is paused");
    };
    assert_eq!(
        (by.as_str(), reason.as_deref()),
        ("key:test", Some("first"))
    );
    for _ in 0..2 {
        resume(&database).await;
    }
    // By hand, with made-up values: the database puts the right ones there.
    sqlx::query(
        "update ops_fleet set paused_at = '2000-01-01Z', paused_by = 'nobody', reason = 'by hand'",
    )
    .execute(&database.psql)
    .await
    .expect("paused by hand");
    let by_hand = database.store.pause().await.expect("an answer");
    let by_hand = by_hand.expect("it is paused");
    let login: String = sqlx::query_scalar("select session_user::text")
        .fetch_one(&database.psql)
        .await
        .expect("a login");
    assert_eq!(
        (by_hand.by.as_str(), by_hand.reason.as_deref()),
        (login.as_str(), Some("by hand"))
    );
    assert!(by_hand.at.year() > 2000);
    let changes = database.store.fleet_changes().await.expect("an answer");
    let said: Vec<_> = changes
        .iter()
        .map(|change| {
            (
                change.change.as_str(),
                change.actor.as_str(),
                change.reason.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            ("paused", login.as_str(), Some("by hand")),
            ("resumed", "key:test", None),
            ("paused", "key:test", Some("first")),
        ]
    );
    for sql in [
        "delete from ops_fleet",
        "truncate ops_fleet",
        "insert into ops_fleet default values",
        "delete from ops_fleet_changes",
        "update ops_fleet_changes set actor = 'x'",
    ] {
        let refused = sqlx::query(sql).execute(&database.psql).await;
        assert!(refused.is_err(), "{sql}");
    }
}

#[tokio::test]
async fn whoever_reads_the_switch_for_long_does_not_keep_the_fleet_from_being_paused() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let mut dump = database.psql.begin().await.expect("a transaction");
    sqlx::query("select * from ops_fleet")
        .execute(&mut *dump)
        .await
        .expect("read");
    pause(&database, "now").await;
    let runner = TestRunner::new("r1", &["a"]);
    let refused = database.store.claim_by_id(runner.request(), id).await;
    assert!(matches!(refused, Err(StoreError::FleetPaused { .. })));
    dump.rollback().await.expect("closed");
}
