//! Limits of job types over the fleet: slots and running jobs never part.

use std::time::Duration;

use jobs::{LeasedJob, NewJob, Outcome, Store, StoreError};
use serde_json::json;
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::database::{Database, TestRunner, name};

const LIMIT: i32 = 4;

fn limited(id: &str, limit: i32) -> TestRunner {
    let mut runner = TestRunner::new(id, &["a"]);
    runner.types[0].concurrency = Some(limit);
    runner
}

/// Running jobs of the type, slots that are held, and slots whose job runs under the slot's fence: in one snapshot.
async fn counted(psql: &PgPool) -> (i64, i64, i64) {
    sqlx::query_as(
        "select
           (select count(*) from ops_jobs where status = 'running' and job_type = 'a'),
           (select count(*) from ops_slots where job_id is not null),
           (select count(*) from ops_slots s join ops_jobs j
              on j.id = s.job_id and j.fence = s.fence and j.slot_no = s.slot_no and j.status = 'running')",
    )
    .fetch_one(psql)
    .await
    .expect("counts")
}

/// Ends an attempt in one of the ways there are, the crash of the runner (nothing is said any more) among them.
async fn end(store: &Store, leased: LeasedJob, round: usize) {
    let id = leased.lease.job_id();
    let ended = match round % 5 {
        0 => store
            .finish(leased.lease, Outcome::Succeeded(json!(1)))
            .await
            .is_ok(),
        1 => store.finish(leased.lease, Outcome::Released).await.is_ok(),
        2 => store
            .finish(leased.lease, Outcome::Failed("no".to_owned()))
            .await
            .is_ok(),
        3 => {
            store.abort(id, "key:test", None).await.expect("asked for");
            store.finish(leased.lease, Outcome::Aborted).await.is_ok()
        }
        _ => true,
    };
    assert!(ended || round % 5 < 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_and_running_jobs_never_part_whoever_races_and_however_they_end() {
    let database = Database::new().await;
    let fresh = vec![
        NewJob {
            max_attempts: Some(100),
            ..NewJob::new(name("a"), json!({}))
        };
        400
    ];
    let recorded = database.store.submit_batch(&fresh, "key:test").await;
    recorded.expect("recorded");
    let mut racing = JoinSet::new();
    for index in 0..16_usize {
        let store = database.store.clone();
        racing.spawn(async move {
            let mut taken = 0;
            for round in index..index + 25 {
                let mut runner = limited(&format!("r{index}"), LIMIT);
                if round % 5 == 4 {
                    runner.lease = Duration::ZERO;
                }
                let claimed = store.claim_due(runner.request(), 3).await;
                for leased in claimed.expect("a claim") {
                    taken += 1;
                    end(&store, leased, round).await;
                }
                if round % 4 == 0 {
                    store.sweep("sweep:test").await.expect("a sweep");
                }
            }
            taken
        });
    }
    let mut looks = 0;
    let mut taken = 0;
    while !racing.is_empty() {
        let (running, held, matched) = counted(&database.psql).await;
        assert!(
            running == held && held == matched && running <= i64::from(LIMIT),
            "{running} running, {held} held, {matched} matched"
        );
        looks += 1;
        while let Some(ended) = racing.try_join_next() {
            taken += ended.expect("no claimer panics");
        }
    }
    assert!(looks > 10 && taken > 50, "{looks} looks, {taken} claims");
    database.store.sweep("sweep:test").await.expect("a sweep");
    assert_eq!(counted(&database.psql).await, (0, 0, 0));
}

#[tokio::test]
async fn a_full_type_says_so_and_a_raised_limit_has_its_slots_at_once() {
    let database = Database::new().await;
    let (first, second) = (database.record("a").await.id, database.record("a").await.id);
    let leased = limited("r1", 1).take(&database, first).await;
    let full = database
        .store
        .claim_by_id(limited("r2", 1).request(), second)
        .await;
    assert!(
        matches!(full, Err(StoreError::ConcurrencyReached(_))),
        "{full:?}"
    );
    limited("r2", 2).take(&database, second).await;
    let finished = database
        .store
        .finish(leased.lease, Outcome::Succeeded(json!(1)));
    finished.await.expect("recorded");
    assert_eq!(counted(&database.psql).await, (1, 1, 1));
}

#[tokio::test]
async fn a_slot_cannot_be_taken_or_left_by_hand() {
    let database = Database::new().await;
    let (held, queued) = (database.record("a").await.id, database.record("a").await.id);
    limited("r1", 1).take(&database, held).await;
    for (sql, id) in [
        ("update ops_jobs set slot_no = null where id = $1", held),
        ("update ops_jobs set slot_no = 2 where id = $1", held),
        ("update ops_jobs set slot_no = 1 where id = $1", queued),
        (
            "update ops_jobs set status = 'running', slot_no = 1 where id = $1",
            queued,
        ),
    ] {
        let done = database.type_in(sql, id).await;
        assert!(done.is_err(), "{sql}");
    }
    let away = database
        .type_in("update ops_jobs set status = 'aborted' where id = $1", held)
        .await;
    assert_eq!(away.expect("taken away"), 1);
    assert_eq!(counted(&database.psql).await, (0, 0, 0));
}
