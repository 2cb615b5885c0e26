//! A job that a runner was lost over is started alone, and does not starve.

use std::time::Duration;

use jobs::{Outcome, StoreError};
use serde_json::json;
use uuid::Uuid;

use crate::database::{Database, TestRunner};

/// Records a job and loses a runner over it.
async fn lost(database: &Database) -> Uuid {
    let doomed = TestRunner {
        lease: Duration::ZERO,
        ..TestRunner::new("doomed", &["a"])
    };
    let mut new = jobs::NewJob::new(crate::database::name("a"), json!({}));
    new.max_attempts = Some(5);
    let id = database.record_with(new).await.id;
    doomed.take(database, id).await;
    database.store.sweep("sweep:r1").await.expect("swept");
    assert_eq!(
        database.kinds(id).await.last().expect("one"),
        "retry_scheduled"
    );
    id
}

fn busy() -> TestRunner {
    TestRunner {
        at_work: 1,
        ..TestRunner::new("busy", &["a"])
    }
}

async fn claim(database: &Database, runner: &TestRunner) -> Vec<(Uuid, bool)> {
    let taken = database
        .store
        .claim_due(runner.request(), 10)
        .await
        .expect("an answer");
    taken
        .iter()
        .map(|leased| (leased.lease.job_id(), leased.alone))
        .collect()
}

#[tokio::test]
async fn a_lost_job_is_the_only_one_of_its_claim_and_only_for_a_runner_with_nothing_at_work() {
    let database = Database::new().await;
    let poison = lost(&database).await;
    let good = database.record("a").await.id;
    assert_eq!(claim(&database, &busy()).await, [(good, false)]);
    let other = database.record("a").await.id;
    let idle = TestRunner::new("idle", &["a"]);
    assert_eq!(claim(&database, &idle).await, [(poison, true)]);
    assert_eq!(claim(&database, &idle).await, [(other, false)]);
}

#[tokio::test]
async fn those_before_it_go_first_and_without_it() {
    let database = Database::new().await;
    let mut good = Vec::new();
    for _ in 0..3 {
        good.push((database.record("a").await.id, false));
    }
    let poison = lost(&database).await;
    let idle = TestRunner::new("idle", &["a"]);
    assert_eq!(claim(&database, &idle).await, good);
    assert_eq!(claim(&database, &idle).await, [(poison, true)]);
}

#[tokio::test]
async fn one_that_waits_in_front_keeps_busy_runners_from_taking_more() {
    let database = Database::new().await;
    let poison = lost(&database).await;
    database
        .type_in(
            "update ops_jobs set run_at = now() - interval '11 seconds' where id = $1",
            poison,
        )
        .await
        .expect("it has waited");
    database.record("a").await;
    assert_eq!(claim(&database, &busy()).await, []);
    let idle = TestRunner::new("idle", &["a"]);
    assert_eq!(claim(&database, &idle).await, [(poison, true)]);
    assert_eq!(claim(&database, &busy()).await.len(), 1);
}

#[tokio::test]
async fn a_type_with_a_limit_keeps_the_same_rule() {
    let database = Database::new().await;
    let poison = lost(&database).await;
    let good = database.record("a").await.id;
    let limited = |mut runner: TestRunner| {
        for terms in &mut runner.types {
            terms.concurrency = Some(5);
        }
        runner
    };
    assert_eq!(claim(&database, &limited(busy())).await, [(good, false)]);
    let other = database.record("a").await.id;
    let idle = limited(TestRunner::new("idle", &["a"]));
    assert_eq!(claim(&database, &idle).await, [(poison, true)]);
    assert_eq!(claim(&database, &idle).await, [(other, false)]);
}

#[tokio::test]
async fn by_its_id_it_is_refused_to_a_busy_runner_and_stays_queued() {
    let database = Database::new().await;
    let poison = lost(&database).await;
    let refused = database
        .store
        .claim_by_id(busy().request(), poison)
        .await
        .expect_err("company");
    assert!(
        matches!(refused, StoreError::RunsAlone(id) if id == poison),
        "{refused}"
    );
    let idle = TestRunner::new("idle", &["a"]);
    let leased = idle.take(&database, poison).await;
    assert!(leased.alone);
    let finished = database
        .store
        .finish(leased.lease, Outcome::Succeeded(json!(1)))
        .await;
    finished.expect("recorded");
}
