//! Many jobs of types that a runner cannot take, before its own: a claim costs no more for them.

use jobs::LeasedJob;

use crate::database::{Database, TestRunner, store_on_as};

const CROWD: i64 = 20_000;
const CLAIMS: i64 = 10;

async fn crowd(database: &Database, job_type: &str) {
    sqlx::query("insert into ops_jobs (job_type) select $1 from generate_series(1, $2)")
        .bind(job_type)
        .bind(CROWD)
        .execute(&database.psql)
        .await
        .expect("recorded");
    sqlx::query("analyze ops_jobs")
        .execute(&database.psql)
        .await
        .expect("analyzed");
}

/// How many rows of ops_jobs were found by its indexes, and how many such searches there were.
async fn found(database: &Database) -> (i64, i64) {
    sqlx::query_as(
        "select coalesce(idx_tup_fetch, 0), coalesce(idx_scan, 0) from pg_stat_user_tables where relname = 'ops_jobs'",
    )
    .fetch_one(&database.psql)
    .await
    .expect("figures")
}

async fn is_gone(database: &Database, name: &str) -> bool {
    sqlx::query_scalar(
        "select not exists (select from pg_stat_activity where datname = current_database() and application_name = $1)",
    )
    .bind(name)
    .fetch_one(&database.psql)
    .await
    .expect("an answer")
}

/// Claims until nothing is left, and gives what was taken with how many rows were looked at for it.
async fn claims(database: &Database, runner: &TestRunner) -> (Vec<LeasedJob>, i64) {
    let (before, searched) = found(database).await;
    let store = store_on_as(&database.url, 1, "claims behind a crowd");
    let mut taken = Vec::new();
    for _ in 0..CLAIMS {
        taken.extend(store.claim_due(runner.request(), 4).await.expect("a claim"));
    }
    store.close().await;
    // A session tells what it did at its end at the latest.
    loop {
        let gone = is_gone(database, "claims behind a crowd").await;
        let (rows, searches) = found(database).await;
        if gone && searches >= searched + CLAIMS {
            return (taken, rows - before);
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_claim_reads_nothing_of_a_type_that_nobody_takes() {
    let database = Database::new().await;
    crowd(&database, "orphan").await;
    for _ in 0..6 {
        database.record("own").await;
    }
    let runner = TestRunner::new("r1", &["own", "other"]);
    let (taken, rows) = claims(&database, &runner).await;
    assert_eq!(taken.len(), 6);
    assert!(rows < CROWD, "{rows} rows for {CLAIMS} claims");
}

#[tokio::test]
async fn a_claim_reads_little_of_a_type_whose_places_are_taken() {
    let database = Database::new().await;
    crowd(&database, "narrow").await;
    for _ in 0..6 {
        database.record("own").await;
    }
    let mut runner = TestRunner::new("r1", &["narrow", "own", "idle"]);
    runner.types[0].concurrency = Some(1);
    runner.types[2].concurrency = Some(1);
    let (taken, rows) = claims(&database, &runner).await;
    assert_eq!(taken.len(), 7, "one of the crowd, and all others");
    assert!(rows < CROWD, "{rows} rows for {CLAIMS} claims");
}
