//! What a restored copy begins as: nothing in it starts by itself, and no number that was ever given out comes again.

use jobs::{OnLost, Outcome, ScheduleTerms, Status, TypeTerms, after_restore};
use serde_json::json;
use uuid::Uuid;

use crate::database::{Database, TestRunner, name};

impl Database {
    async fn restored(&self) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(after_restore("it's a copy")))
            .execute(&self.psql)
            .await
            .expect("a copy");
    }
}

async fn running(database: &Database, on_lost: OnLost, max_attempts: i32) -> Uuid {
    let mut runner = TestRunner::new("r1", &[]);
    runner.types = vec![TypeTerms {
        on_lost,
        max_attempts,
        ..TypeTerms::new(name("a"))
    }];
    let id = database.record("a").await.id;
    runner.take(database, id).await;
    id
}

#[tokio::test]
async fn what_was_running_is_lost_and_goes_where_lost_jobs_of_its_type_go() {
    let database = Database::new().await;
    let again = running(&database, OnLost::Retry, 3).await;
    let spent = running(&database, OnLost::Retry, 1).await;
    let held = running(&database, OnLost::Hold, 3).await;
    let stopping = running(&database, OnLost::Retry, 3).await;
    database
        .store
        .abort(stopping, "key:k", None)
        .await
        .expect("asked for");
    let queued = database.record("a").await.id;
    database.restored().await;
    for (id, status, last) in [
        (again, Status::Queued, "retry_scheduled"),
        (spent, Status::Failed, "dead_lettered"),
        (held, Status::Waiting, "held"),
        (stopping, Status::Aborted, "aborted"),
        (queued, Status::Queued, "queued"),
    ] {
        assert_eq!(database.job(id).await.status, status);
        assert_eq!(
            database.kinds(id).await.last().map(String::as_str),
            Some(last)
        );
    }
    assert!(
        database
            .job(again)
            .await
            .error
            .expect("an error")
            .contains("restored")
    );
    let mut found = Vec::new();
    database
        .store
        .verify(|finding| found.push(finding.to_string()))
        .await
        .expect("an answer");
    assert_eq!(found, Vec::<String>::new());
    let copy = database.store.restored_copy().await.expect("an answer");
    assert!(
        copy.held && copy.running == 0 && copy.fence_is_above,
        "{copy:?}"
    );
}

#[tokio::test]
async fn the_fleet_is_paused_and_says_why_and_what_it_was_before() {
    let database = Database::new().await;
    database.restored().await;
    let pause = database
        .store
        .pause()
        .await
        .expect("an answer")
        .expect("paused");
    assert_eq!(
        (pause.by.as_str(), pause.reason.as_deref()),
        ("restore", Some("it's a copy"))
    );
    database
        .store
        .resume_fleet("key:k", None)
        .await
        .expect("resumed");
    assert!(
        !database
            .store
            .restored_copy()
            .await
            .expect("an answer")
            .held
    );
    database
        .store
        .pause_fleet("key:k", Some("a move"))
        .await
        .expect("paused");
    assert!(
        !database
            .store
            .restored_copy()
            .await
            .expect("an answer")
            .held,
        "a pause is no restore"
    );
    database.restored().await;
    let pause = database
        .store
        .pause()
        .await
        .expect("an answer")
        .expect("paused");
    assert_eq!(
        pause.reason.as_deref(),
        Some("it's a copy; it had been paused by key:k: a move")
    );
}

#[tokio::test]
async fn nothing_is_claimed_or_fired_until_the_fleet_is_resumed() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let terms = ScheduleTerms::new("* * * * *", name("a"));
    database
        .store
        .create_schedule(&"s".parse().expect("a name"), &terms, true, "key:k")
        .await
        .expect("an answer")
        .expect("made");
    let due = "update ops_schedules set next_fire_at = date_trunc('minute', now())";
    sqlx::query(due).execute(&database.psql).await.expect("due");
    database.restored().await;
    let runner = TestRunner::new("r1", &["a"]);
    assert_eq!(
        database
            .store
            .fire_due(&[], "sweep:r1")
            .await
            .expect("a tick")
            .fired,
        0
    );
    assert!(
        database
            .store
            .claim_by_id(runner.request(), id)
            .await
            .is_err()
    );
    assert_eq!(
        database
            .store
            .claim_due(runner.request(), 5)
            .await
            .expect("an answer")
            .len(),
        0
    );
    database
        .store
        .resume_fleet("key:k", None)
        .await
        .expect("resumed");
    assert_eq!(
        database
            .store
            .fire_due(&[], "sweep:r1")
            .await
            .expect("a tick")
            .fired,
        1
    );
    runner.take(&database, id).await;
}

#[tokio::test]
async fn fences_are_above_those_of_the_live_system_and_of_every_earlier_copy() {
    let database = Database::new().await;
    let runner = TestRunner::new("r1", &["a"]);
    let mut highest = 0;
    for _ in 0..3 {
        let id = database.record("a").await.id;
        let old = runner.take(&database, id).await;
        let fence = old.lease.key().fence;
        assert!(fence > highest, "{fence}");
        highest = fence;
        // The system that the copy is of goes on for a long time, and gives out what the copy knows nothing of.
        let given_out = highest + 1_000_000;
        if highest > 1 << 40 {
            // Another copy of the same backup, in which the sequence is where it was at the beginning.
            sqlx::query("select setval('ops_fence', 1)")
                .execute(&database.psql)
                .await
                .expect("set back");
        }
        database.restored().await;
        let refused = database
            .store
            .finish(old.lease, Outcome::Succeeded(json!(1)))
            .await;
        assert!(refused.is_err(), "the fence of before is an old one");
        database
            .store
            .resume_fleet("key:k", None)
            .await
            .expect("resumed");
        let id = database.record("a").await.id;
        let fence = runner.take(&database, id).await.lease.key().fence;
        assert!(fence > given_out, "{fence}");
        assert!(fence < 1 << 53, "it is exact in JSON");
        highest = fence;
    }
}
