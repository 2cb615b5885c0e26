//! The store through the real `PgBouncer` in transaction mode, which lends each transaction another session.

use std::time::{Duration, Instant};

use jobs::{
    AbortAnswer, JobFilter, LogChunk, NewJob, Outcome, Pooler, ProgressKind, RunnerReport, Status,
    Store, StoreError, StoreOptions,
};
use local_postgres::testing::{Bouncer, bouncer};
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinSet;

use crate::database::{Database, TestRunner, name};

async fn before(database: &Database) -> (Bouncer, StoreOptions) {
    let server: PgConnectOptions = database.url.parse().expect("an address");
    let host = match server.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => server.get_host().to_owned(),
    };
    // Fewer sessions than connections: they must be shared.
    let bouncer = bouncer(host, server.get_port(), 3)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let url = format!(
        "postgres://postgres@{}/{}",
        bouncer.address(),
        database.name()
    );
    let options = StoreOptions {
        pooler: Pooler::Transaction,
        statement_timeout: Duration::from_secs(2),
        ..StoreOptions::new(url, 10, "behind PgBouncer")
    };
    (bouncer, options)
}

/// One job through everything that a runner does to it.
async fn whole_life(store: &Store, runner: &TestRunner, number: usize) {
    let mut new = NewJob::new(name("a"), json!({"number": number}));
    new.idempotency_key = Some(format!("key {number}"));
    let job = store
        .submit(new.clone(), "key:test")
        .await
        .expect("recorded")
        .into_job();
    let again = store
        .submit(new, "key:test")
        .await
        .expect("the same")
        .into_job();
    assert_eq!(again.id, job.id);
    let leased = store
        .claim_by_id(runner.request(), job.id)
        .await
        .expect("claimed");
    let key = leased.lease.key();
    let renewed = store.renew(&[key], runner.lease).await.expect("renewed");
    assert_eq!(renewed, [(key, false)]);
    let chunk = LogChunk {
        chunk: 1,
        stream: "stdout",
        first_line: 1,
        lines: 1,
        came: std::time::Instant::now(),
        body: "hello\n".to_owned(),
    };
    store.append_log(key, &[chunk]).await.expect("logged");
    let progress = json!({"progress": 0.5});
    store
        .report(key, vec![(ProgressKind::Progress, progress)])
        .await
        .expect("reported");
    let asked = store.abort(job.id, "key:test", None).await.expect("asked");
    assert_eq!(asked, AbortAnswer::Requested);
    let outcome = if number.is_multiple_of(2) {
        Outcome::Aborted
    } else {
        Outcome::Succeeded(json!(number))
    };
    store.finish(leased.lease, outcome).await.expect("finished");
    let log = store.log_page(job.id, 0, 1).await.expect("an answer");
    assert_eq!(log.expect("the job").pieces[0].body, "hello\n");
    assert!(store.events(job.id, 0, 100).await.expect("events").len() >= 5);
    let refused = store.abort(job.id, "key:test", None).await;
    assert!(
        matches!(refused, Err(StoreError::WrongStatus { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missing_behind_a_pooler_that_shares_few_sessions_among_many() {
    let database = Database::new().await;
    let (_bouncer, options) = before(&database).await;
    let store = Store::new(&options).expect("a store");
    assert!(
        store
            .schema_status()
            .await
            .expect("an answer")
            .is_expected()
    );
    let mut lives = JoinSet::new();
    for task in 0..8 {
        let store = store.clone();
        lives.spawn(async move {
            let runner = TestRunner::new(&format!("r{task}"), &["a"]);
            for round in 0..10 {
                whole_life(&store, &runner, task * 10 + round).await;
            }
        });
    }
    lives.join_all().await;
    let jobs = store
        .list(&JobFilter {
            limit: 200,
            ..JobFilter::default()
        })
        .await
        .expect("a list")
        .jobs;
    assert_eq!(jobs.len(), 80);
    assert!(jobs.iter().all(|job| job.status.is_terminal()));
    store.refresh_metrics(1).await.expect("rolled up");
    store.sweep("sweep:test").await.expect("swept");
    let runner = TestRunner::new("r", &["a"]);
    store
        .report_runner(RunnerReport {
            runner: &runner.identity,
            version: "0",
            job_types: &["a".to_owned()],
            slots_total: 1,
            slots_used: 0,
            draining: false,
            poll: None,
            types: &[],
        })
        .await
        .expect("reported");
    assert_eq!(store.runners().await.expect("runners").len(), 1);
    store.sign_off(&runner.identity).await.expect("signed off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_over_the_fleet_holds_behind_a_pooler() {
    let database = Database::new().await;
    let (_bouncer, options) = before(&database).await;
    let store = Store::new(&options).expect("a store");
    let batch: Vec<NewJob> = (0..20).map(|_| NewJob::new(name("a"), json!({}))).collect();
    store
        .submit_batch(&batch, "key:test")
        .await
        .expect("recorded");
    let mut claims = JoinSet::new();
    for number in 0..8 {
        let store = store.clone();
        claims.spawn(async move {
            let mut runner = TestRunner::new(&format!("r{number}"), &["a"]);
            runner.types[0].concurrency = Some(3);
            store
                .claim_due(runner.request(), 4)
                .await
                .expect("an answer")
                .len()
        });
    }
    assert_eq!(claims.join_all().await.into_iter().sum::<usize>(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_session_hold_in_each_transaction_and_stay_in_it() {
    let database = Database::new().await;
    let (_bouncer, options) = before(&database).await;
    let store = Store::new(&options).expect("a store");
    let job = database.record("a").await;
    let mut person = database.psql.begin().await.expect("a transaction");
    sqlx::query("select from ops_jobs where id = $1 for update")
        .bind(job.id)
        .execute(&mut *person)
        .await
        .expect("locked");
    let begun = Instant::now();
    let refused = store.abort(job.id, "key:test", None).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    person.commit().await.expect("unlocked");
    store
        .abort(job.id, "key:test", None)
        .await
        .expect("aborted");
    assert_eq!(database.job(job.id).await.status, Status::Aborted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_goes_up_and_down_behind_a_pooler() {
    let database = Database::new().await;
    let (_bouncer, options) = before(&database).await;
    let store = Store::new(&StoreOptions {
        statement_timeout: Duration::from_secs(60),
        ..options
    })
    .expect("a store");
    assert_eq!(store.rollback_to(0).await.expect("rolled back").current, 0);
    let other = store.clone();
    let (one, two) = tokio::join!(store.migrate(), other.migrate());
    assert!(one.expect("migrated").is_expected());
    assert!(two.expect("migrated once only").is_expected());
    store.bootstrap_roles().await.expect("roles");
}
