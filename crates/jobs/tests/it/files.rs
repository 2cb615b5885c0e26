//! Files of jobs: what shows when, what a lost lease may still do, and what is cleared away.

use std::time::Duration;

use jobs::{Inputs, LeaseKey, NewFile, NewJob, Outcome, StoreError, Submitted, Sum};
use serde_json::json;
use uuid::Uuid;

use crate::database::{Database, TestRunner, name};

const SUM: Sum = Sum {
    size: 3,
    sha256: [7; 32],
    crc32: 9,
};

fn new_file(number: u128, name: &str) -> NewFile {
    NewFile {
        id: Uuid::from_u128(number),
        name: name.to_owned(),
        content_type: "text/plain".to_owned(),
        object: None,
    }
}

async fn leave(
    database: &Database,
    key: LeaseKey,
    number: u128,
    name: &str,
) -> Result<(), StoreError> {
    let (store, file) = (&database.store, new_file(number, name));
    store.begin_artifact(key, &file).await?;
    store.append_chunk(file.id, 0, b"abc").await?;
    store.complete_artifact(key, file.id, &SUM).await
}

async fn shown(database: &Database, job: Uuid) -> Vec<String> {
    let artifacts = database.store.artifacts(job).await.expect("an answer");
    artifacts
        .expect("a job")
        .into_iter()
        .map(|file| file.name)
        .collect()
}

async fn upload(database: &Database, number: u128) -> Uuid {
    let file = new_file(number, "input.txt");
    database.store.begin_input(&file).await.expect("begun");
    database
        .store
        .append_chunk(file.id, 0, b"abc")
        .await
        .expect("stored");
    database
        .store
        .complete_input(file.id, 0, &SUM)
        .await
        .expect("complete");
    file.id
}

#[tokio::test]
async fn artifacts_show_with_the_end_of_their_own_attempt_and_those_of_a_lost_one_never() {
    let database = Database::new().await;
    let new = NewJob {
        max_attempts: Some(3),
        ..NewJob::new(name("a"), json!({}))
    };
    let id = database.record_with(new).await.id;
    let doomed = TestRunner {
        lease: Duration::ZERO,
        ..TestRunner::new("r1", &["a"])
    };
    let lost = doomed.take(&database, id).await;
    leave(&database, lost.lease.key(), 1, "lost")
        .await
        .expect("kept");
    assert_eq!(
        database
            .store
            .sweep("sweep:r2")
            .await
            .expect("a sweep")
            .recovered,
        1
    );
    assert!(shown(&database, id).await.is_empty(), "its runner was lost");
    let late = leave(&database, lost.lease.key(), 2, "late").await;
    assert!(matches!(late, Err(StoreError::LeaseLost(_))), "{late:?}");
    let runner = TestRunner::new("r2", &["a"]);
    let failing = runner.take(&database, id).await;
    leave(&database, failing.lease.key(), 3, "failed")
        .await
        .expect("kept");
    assert!(shown(&database, id).await.is_empty(), "it still runs");
    database
        .store
        .finish(failing.lease, Outcome::Retry("again".to_owned()))
        .await
        .expect("finished");
    assert_eq!(shown(&database, id).await, ["failed"]);
    database
        .type_in("update ops_jobs set run_at = now() where id = $1", id)
        .await
        .expect("due");
    let good = runner.take(&database, id).await;
    assert!(
        shown(&database, id).await.is_empty(),
        "the next attempt counts now"
    );
    let key = good.lease.key();
    leave(&database, key, 4, "good").await.expect("kept");
    database
        .store
        .finish(good.lease, Outcome::Succeeded(json!(null)))
        .await
        .expect("finished");
    assert_eq!(shown(&database, id).await, ["good"]);
    assert!(leave(&database, key, 5, "after the end").await.is_err());
    database.store.forget_earlier(key).await.expect("forgotten");
    let left: i64 = sqlx::query_scalar("select count(*) from ops_files")
        .fetch_one(&database.psql)
        .await
        .expect("a count");
    assert_eq!((left, shown(&database, id).await.len()), (1, 1));
}

#[tokio::test]
async fn an_upload_belongs_to_the_job_that_is_recorded_for_it() {
    let database = Database::new().await;
    let file = upload(&database, 10).await;
    let inputs = |ids: Vec<Uuid>, byte: u8| Inputs {
        ids,
        digest: Some([byte; 32]),
    };
    let new = || NewJob {
        idempotency_key: Some("k".to_owned()),
        ..NewJob::new(name("a"), json!({}))
    };
    let store = &database.store;
    let created = store
        .submit_with(new(), &inputs(vec![file], 1), "key:test")
        .await
        .expect("recorded");
    assert!(matches!(created, Submitted::Created(_)));
    let job = created.into_job().id;
    assert_eq!(store.inputs(job).await.expect("an answer")[0].id, file);
    let second = upload(&database, 11).await;
    let again = store
        .submit_with(new(), &inputs(vec![second], 1), "key:test")
        .await
        .expect("replayed");
    assert!(matches!(again, Submitted::Replayed(_)));
    let other = store
        .submit_with(new(), &inputs(vec![second], 2), "key:test")
        .await;
    assert!(
        matches!(other, Err(StoreError::IdempotencyConflict(_))),
        "{other:?}"
    );
    let without = store.submit(new(), "key:test").await;
    assert!(
        matches!(without, Err(StoreError::IdempotencyConflict(_))),
        "{without:?}"
    );
    // The first one is a job's by now, whoever gives it up.
    store
        .discard_files(&[file, second])
        .await
        .expect("forgotten");
    assert_eq!(store.inputs(job).await.expect("an answer").len(), 1);
    assert_eq!(
        store.chunk(file, 0).await.expect("an answer"),
        Some(b"abc".to_vec())
    );
    assert_eq!(store.chunk(second, 0).await.expect("an answer"), None);
}

#[tokio::test]
async fn what_was_broken_off_is_swept_and_objects_are_noted() {
    let database = Database::new().await;
    let store = &database.store;
    let object = NewFile {
        object: Some("an-object".to_owned()),
        ..new_file(20, "a")
    };
    store.begin_input(&object).await.expect("begun");
    assert_eq!(
        store
            .sweep_files(Duration::from_secs(3600))
            .await
            .expect("a sweep"),
        0,
        "it may be under way"
    );
    assert_eq!(store.sweep_files(Duration::ZERO).await.expect("a sweep"), 1);
    assert_eq!(store.garbage().await.expect("an answer"), ["an-object"]);
    store
        .garbage_removed(&["an-object".to_owned()])
        .await
        .expect("noted");
    assert!(store.garbage().await.expect("an answer").is_empty());
}

#[tokio::test]
async fn files_go_with_their_job() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let runner = TestRunner::new("r1", &["a"]);
    let leased = runner.take(&database, id).await;
    leave(&database, leased.lease.key(), 30, "whole")
        .await
        .expect("kept");
    let object = NewFile {
        object: Some("half".to_owned()),
        ..new_file(31, "half")
    };
    database
        .store
        .begin_artifact(leased.lease.key(), &object)
        .await
        .expect("begun");
    // As retention does, which alone may.
    let refused = sqlx::raw_sql("delete from ops_jobs")
        .execute(&database.psql)
        .await;
    assert!(refused.is_err(), "nobody else removes jobs");
    let trigger = "alter table ops_jobs disable trigger ops_jobs_no_delete; delete from ops_jobs";
    sqlx::raw_sql(trigger)
        .execute(&database.psql)
        .await
        .expect("removed");
    let left: i64 = sqlx::query_scalar(
        "select (select count(*) from ops_files) + (select count(*) from ops_file_chunks)",
    )
    .fetch_one(&database.psql)
    .await
    .expect("a count");
    assert_eq!(left, 0);
    assert_eq!(database.store.garbage().await.expect("an answer"), ["half"]);
}
