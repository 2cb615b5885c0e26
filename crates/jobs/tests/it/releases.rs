//! A job that every drain gives back ends all the same; and a sweep leaves word of itself.

use jobs::{NewJob, Outcome, Status};
use serde_json::json;
use uuid::Uuid;

use crate::database::{Database, TestRunner, name};

async fn give_back(database: &Database, id: Uuid) -> Status {
    let leased = TestRunner::new("r1", &["a"]).take(database, id).await;
    database
        .store
        .finish(leased.lease, Outcome::Released)
        .await
        .expect("recorded")
        .status
}

#[tokio::test]
async fn ten_releases_are_free_and_the_next_costs_the_attempt() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    for _ in 0..10 {
        assert_eq!(give_back(&database, id).await, Status::Queued);
        assert_eq!(database.job(id).await.attempt, 0);
    }
    assert_eq!(give_back(&database, id).await, Status::Failed);
    let kinds = database.kinds(id).await;
    let released = kinds.iter().filter(|kind| *kind == "released").count();
    assert_eq!(released, 10);
    assert_eq!(kinds[kinds.len() - 2..], ["failed", "dead_lettered"]);
    let error = database.job(id).await.error.expect("a reason");
    assert!(error.contains("gave it back 10 times"), "{error}");
}

#[tokio::test]
async fn with_attempts_left_it_is_queued_again_and_a_replay_begins_anew() {
    let database = Database::new().await;
    let new = NewJob {
        max_attempts: Some(2),
        ..NewJob::new(name("a"), json!({}))
    };
    let id = database.record_with(new).await.id;
    for _ in 0..11 {
        assert_eq!(give_back(&database, id).await, Status::Queued);
    }
    assert_eq!(database.job(id).await.attempt, 1);
    assert_eq!(
        database.kinds(id).await.last().expect("one"),
        "retry_scheduled"
    );
    assert_eq!(give_back(&database, id).await, Status::Failed);
    database
        .store
        .retry(id, "key:k", None)
        .await
        .expect("queued");
    assert_eq!(give_back(&database, id).await, Status::Queued);
    assert_eq!(database.kinds(id).await.last().expect("one"), "released");
    let refused = database
        .type_in("update ops_jobs set released_count = 0 where id = $1", id)
        .await;
    refused.expect_err("the database counts");
}

#[tokio::test]
async fn every_sweep_says_when_and_by_whom() {
    let database = Database::new().await;
    assert_eq!(database.store.last_sweep().await.expect("an answer"), None);
    for actor in ["sweep:r1", "key:tick"] {
        database.store.recover(actor).await.expect("swept");
        let last = database.store.last_sweep().await.expect("an answer");
        let last = last.expect("it was done");
        assert_eq!(last.actor, actor);
        assert!(last.ago_seconds >= 0.0, "{last:?}");
    }
}
