//! Lost runners, times to live, and sweeps that race with the living.

use std::time::Duration;

use jobs::{NewJob, Outcome, Status, Store, StoreError, StoreOptions};
use serde_json::json;
use sqlx::AssertSqlSafe;
use tokio::task::JoinSet;

use crate::database::{Database, TestRunner, name};

/// A claim whose lease ends at once.
fn doomed(id: &str) -> TestRunner {
    TestRunner {
        lease: Duration::ZERO,
        ..TestRunner::new(id, &["a"])
    }
}

#[tokio::test]
async fn a_lost_runners_job_goes_to_another_while_attempts_are_left() {
    let database = Database::new().await;
    let new = NewJob {
        max_attempts: Some(3),
        ..NewJob::new(name("a"), json!({}))
    };
    let id = database.record_with(new).await.id;
    let lost = doomed("r1").take(&database, id).await;
    assert_eq!(
        database
            .store
            .sweep("sweep:r2")
            .await
            .expect("a sweep")
            .recovered,
        1
    );

    let second = TestRunner::new("r2", &["a"]).take(&database, id).await;
    assert_eq!(second.lease.attempt(), 2);
    assert!(second.lease.fence() > lost.lease.fence());
    let late = database
        .store
        .finish(lost.lease, Outcome::Succeeded(json!("late")))
        .await
        .expect_err("stale");
    assert!(
        matches!(late.error, StoreError::LeaseLost(_)),
        "{:?}",
        late.error
    );
    let renewed = database
        .store
        .renew(&[late.lease.key()], Duration::from_secs(30))
        .await
        .expect("an answer");
    assert_eq!(renewed, []);
    database
        .store
        .finish(second.lease, Outcome::Succeeded(json!("in time")))
        .await
        .expect("recorded");
    assert_eq!(database.job(id).await.result, Some(json!("in time")));
    assert_eq!(
        database.kinds(id).await,
        [
            "queued",
            "running",
            "lease_expired",
            "retry_scheduled",
            "running",
            "stale_result_refused",
            "succeeded"
        ]
    );
}

#[tokio::test]
async fn with_one_attempt_a_lost_runner_fails_the_job_and_says_so() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    doomed("r1").take(&database, id).await;
    database.store.sweep("sweep:r2").await.expect("a sweep");
    let job = database.job(id).await;
    assert_eq!(job.status, Status::Failed);
    assert!(
        job.error
            .as_deref()
            .is_some_and(|error| error.contains("runner r1 was lost")),
        "{:?}",
        job.error
    );
    assert_eq!(
        database.kinds(id).await,
        [
            "queued",
            "running",
            "lease_expired",
            "failed",
            "dead_lettered"
        ]
    );
}

#[tokio::test]
async fn after_three_lost_runners_the_job_fails_whatever_its_budget() {
    let database = Database::new().await;
    let new = NewJob {
        max_attempts: Some(50),
        ..NewJob::new(name("a"), json!({}))
    };
    let id = database.record_with(new).await.id;
    for _ in 0..3 {
        doomed("r1").take(&database, id).await;
        database.store.sweep("sweep:r2").await.expect("a sweep");
    }
    assert_eq!(database.job(id).await.status, Status::Failed);
}

#[tokio::test]
async fn a_lost_job_whose_abort_was_asked_for_is_aborted() {
    let database = Database::new().await;
    let new = NewJob {
        max_attempts: Some(3),
        ..NewJob::new(name("a"), json!({}))
    };
    let id = database.record_with(new).await.id;
    doomed("r1").take(&database, id).await;
    database
        .store
        .abort(id, "key:test", None)
        .await
        .expect("asked for");
    database.store.sweep("sweep:r2").await.expect("a sweep");
    assert_eq!(
        database.kinds(id).await,
        [
            "queued",
            "running",
            "abort_requested",
            "lease_expired",
            "aborted"
        ]
    );
}

#[tokio::test]
async fn a_renewed_lease_survives_the_sweep() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let leased = doomed("r1").take(&database, id).await;
    let key = leased.lease.key();
    let renewed = database
        .store
        .renew(&[key], Duration::from_secs(30))
        .await
        .expect("an answer");
    assert_eq!(renewed, [(key, false)]);
    assert_eq!(
        database
            .store
            .sweep("sweep:r2")
            .await
            .expect("a sweep")
            .recovered,
        0
    );
    database
        .store
        .abort(id, "key:test", None)
        .await
        .expect("asked for");
    let renewed = database
        .store
        .renew(&[key], Duration::from_secs(30))
        .await
        .expect("an answer");
    assert_eq!(
        renewed,
        [(key, true)],
        "the renewal tells that the abort was asked for"
    );
}

#[tokio::test]
async fn what_outlives_its_time_to_live_fails_unrun() {
    let database = Database::new().await;
    let new = NewJob {
        ttl_seconds: Some(1),
        ..NewJob::new(name("a"), json!({}))
    };
    let id = database.record_with(new).await.id;
    database
        .type_in(
            "update ops_jobs set expires_at = now() - interval '1 s' where id = $1",
            id,
        )
        .await
        .expect("aged");
    let runner = TestRunner::new("r1", &["a"]);
    assert_eq!(
        database
            .store
            .claim_due(runner.request(), 5)
            .await
            .expect("a claim")
            .len(),
        0
    );
    let by_id = database.store.claim_by_id(runner.request(), id).await;
    assert!(matches!(by_id, Err(StoreError::Outlived(_))), "{by_id:?}");
    assert_eq!(
        database
            .store
            .sweep("sweep:r1")
            .await
            .expect("a sweep")
            .expired,
        1
    );
    let job = database.job(id).await;
    assert_eq!((job.status, job.attempt), (Status::Failed, 0));
    assert_eq!(database.kinds(id).await, ["queued", "failed"]);
}

/// Finishes race with sweeps of leases that have just ended: whichever commits first stands, nothing happens twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_never_undoes_a_finish() {
    let database = Database::new().await;
    let jobs = vec![
        NewJob {
            max_attempts: Some(2),
            ..NewJob::new(name("a"), json!({}))
        };
        100
    ];
    database
        .store
        .submit_batch(&jobs, "key:test")
        .await
        .expect("recorded");
    let runner = doomed("r1");
    let leases = database
        .store
        .claim_due(runner.request(), 100)
        .await
        .expect("claims");
    assert_eq!(leases.len(), 100);
    let ids: Vec<_> = leases.iter().map(|job| job.lease.job_id()).collect();
    let mut racing = JoinSet::new();
    for leased in leases {
        let store = database.store.clone();
        racing.spawn(async move {
            store
                .finish(leased.lease, Outcome::Succeeded(json!(1)))
                .await
                .is_ok()
        });
    }
    for index in 0..4 {
        let store = database.store.clone();
        racing.spawn(async move { store.sweep(&format!("sweep:r{index}")).await.is_err() });
    }
    racing.join_all().await;
    for id in ids {
        let kinds = database.kinds(id).await;
        let job = database.job(id).await;
        match job.status {
            Status::Succeeded => assert_eq!(kinds, ["queued", "running", "succeeded"]),
            Status::Queued => {
                assert_eq!(
                    kinds,
                    [
                        "queued",
                        "running",
                        "lease_expired",
                        "retry_scheduled",
                        "stale_result_refused"
                    ]
                );
            }
            other => panic!("{other}: {kinds:?}"),
        }
    }
}

/// A claim whose answer was lost runs nowhere; it goes back uncounted, and what is held stays.
#[tokio::test]
async fn a_claim_that_nobody_heard_of_is_given_back_uncounted() {
    let database = Database::new().await;
    let (lost, held) = (database.record("a").await.id, database.record("a").await.id);
    let runner = TestRunner::new("r1", &["a"]);
    runner.take(&database, lost).await;
    let kept = runner.take(&database, held).await;
    let known = [kept.lease.key()];
    let release = async |settled| {
        let released = database
            .store
            .release_unheld(&runner.identity, &known, settled)
            .await;
        released.expect("an answer")
    };
    assert_eq!(release(Duration::from_secs(60)).await, 0, "still under way");
    assert_eq!(release(Duration::ZERO).await, 1);
    assert_eq!(
        database.kinds(lost).await,
        ["queued", "running", "released"]
    );
    assert_eq!(database.job(lost).await.attempt, 0);
    assert_eq!(database.job(held).await.status, Status::Running);
}

/// Changes a job behind the guard's back.
async fn force(database: &Database, id: uuid::Uuid, set: &str) {
    let change = format!(
        "begin; set local session_replication_role = replica; update ops_jobs set {set} where id = '{id}'; commit"
    );
    sqlx::raw_sql(AssertSqlSafe(change))
        .execute(&database.psql)
        .await
        .expect("a change");
}

/// Five hundred jobs that run for an hour, each with two hundred old versions that the returned session's snapshot keeps.
async fn dead_rows(database: &Database) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let run = "
        set session_replication_role = replica;
        insert into ops_jobs
          (id, job_type, payload, created_by, status, attempt, fence, runner_id, boot_id, started_at, heartbeat_at, lease_expires_at)
        select
          gen_random_uuid(), 'b', '{}', 'test', 'running', 1, -n, 'r9', gen_random_uuid(), now(), now(), now() + interval '1 hour'
        from generate_series(1, 500) n;
        reset session_replication_role;";
    let outdate = "
        set session_replication_role = replica;
        do $$ begin
          for n in 1..200 loop
            update ops_jobs set started_at = started_at + interval '1 microsecond' where job_type = 'b';
          end loop;
        end $$;
        reset session_replication_role;";
    let type_in = async |sql: &'static str| {
        sqlx::raw_sql(sql)
            .execute(&database.psql)
            .await
            .expect("it is typed in");
    };
    type_in(run).await;
    let mut held = database.psql.begin().await.expect("a transaction");
    let look = "set transaction isolation level repeatable read; select count(*) from ops_jobs";
    sqlx::raw_sql(look)
        .execute(&mut *held)
        .await
        .expect("a snapshot");
    type_in(outdate).await;
    held
}

/// While an old snapshot makes looks through the running jobs dear, most of them go back to the look before; the lost are
/// found all the same.
#[tokio::test]
async fn while_looks_are_dear_a_sweep_finds_whoever_ran_at_the_last_one_or_began_since() {
    const EXPIRED: &str = "lease_expires_at = clock_timestamp() - interval '1 second'";
    const AN_HOUR_AGO: &str = "started_at = clock_timestamp() - interval '1 hour'";
    let database = Database::new().await;
    let held = dead_rows(&database).await;
    let store = Store::new(&StoreOptions {
        dear_look: Duration::from_millis(1),
        ..StoreOptions::new(database.url.clone(), 4, "test")
    })
    .expect("a store");
    let runner = TestRunner {
        lease: Duration::from_secs(3600),
        ..TestRunner::new("r1", &["a"])
    };
    let take = async || {
        let new = NewJob {
            max_attempts: Some(3),
            ..NewJob::new(name("a"), json!({}))
        };
        let id = database.record_with(new).await.id;
        runner.take(&database, id).await;
        id
    };
    let recovered = async || {
        let swept = store.sweep("sweep:r2").await;
        swept.expect("a sweep").recovered
    };
    // So old that only their ids lead to them.
    let mut known = Vec::new();
    for _ in 0..20 {
        let id = take().await;
        force(&database, id, AN_HOUR_AGO).await;
        known.push(id);
    }
    for _ in 0..3 {
        assert_eq!(recovered().await, 0);
    }

    let hidden = loop {
        let ran = known.pop().expect("a look is cut short by then");
        let began = take().await;
        // Nobody could have seen it: as if its claim had been committed an hour late.
        let hidden = take().await;
        force(&database, ran, EXPIRED).await;
        force(&database, began, EXPIRED).await;
        let late = format!("{AN_HOUR_AGO}, {EXPIRED}");
        force(&database, hidden, &late).await;
        let recovered = recovered().await;
        assert_eq!(database.job(ran).await.status, Status::Queued);
        assert_eq!(database.job(began).await.status, Status::Queued);
        match recovered {
            2 => break hidden,
            // This look went all the way.
            3 => {}
            other => panic!("{other} jobs were taken back"),
        }
    };
    while recovered().await == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(database.job(hidden).await.status, Status::Queued);
    held.rollback().await.expect("the snapshot is given back");
}

/// A person can wipe out when a running job began; its lease runs out all the same.
#[tokio::test]
async fn a_lost_job_without_a_start_is_taken_back() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    doomed("r1").take(&database, id).await;
    force(&database, id, "started_at = null").await;
    let swept = database.store.sweep("sweep:r2").await.expect("a sweep");
    assert_eq!(swept.recovered, 1);
}
