//! Rows against events: whole lives are clean, and what somebody forced past the guard is found.

use jobs::{NewJob, Outcome, Verified};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::database::{Database, TestRunner, name};

async fn verify(database: &Database) -> (Verified, Vec<String>) {
    let mut found = Vec::new();
    let verified = database
        .store
        .verify(|finding| found.push(format!("{} {}", finding.job_id, finding.subject)))
        .await
        .expect("an answer");
    (verified, found)
}

/// What a superuser can do, and nobody should.
async fn force(psql: &PgPool, sql: &'static str, id: Uuid) {
    let mut transaction = psql.begin().await.expect("a transaction");
    sqlx::query("set local session_replication_role = replica")
        .execute(&mut *transaction)
        .await
        .expect("no triggers");
    sqlx::query(sql)
        .bind(id)
        .execute(&mut *transaction)
        .await
        .expect("forced");
    transaction.commit().await.expect("committed");
}

#[tokio::test]
async fn whole_lives_are_explained_also_over_several_pages() {
    let database = Database::new().await;
    let runner = TestRunner::new("r1", &["a"]);
    for outcome in [
        Outcome::Succeeded(json!(1)),
        Outcome::Retry("later".to_owned()),
        Outcome::Failed("no".to_owned()),
        Outcome::Released,
    ] {
        let new = NewJob {
            max_attempts: Some(2),
            ..NewJob::new(name("a"), json!({}))
        };
        let id = database.record_with(new).await.id;
        let taken = runner.take(&database, id).await;
        database
            .store
            .finish(taken.lease, outcome)
            .await
            .expect("recorded");
    }
    for wish in ["abort", "abort and retry", "abort while running"] {
        let id = database.record("a").await.id;
        let lease = if wish == "abort while running" {
            Some(runner.take(&database, id).await.lease)
        } else {
            None
        };
        database
            .store
            .abort(id, "key:k", Some("late"))
            .await
            .expect("aborted");
        if let Some(lease) = lease {
            database
                .store
                .finish(lease, Outcome::Aborted)
                .await
                .expect("recorded");
        }
        if wish == "abort and retry" {
            database
                .store
                .retry(id, "key:k", None)
                .await
                .expect("queued");
        }
    }
    let doomed = TestRunner {
        lease: std::time::Duration::ZERO,
        ..TestRunner::new("r2", &["a"])
    };
    let lost = database.record("a").await.id;
    let late = doomed.take(&database, lost).await;
    database.store.sweep("sweep:r1").await.expect("swept");
    database
        .store
        .finish(late.lease, Outcome::Succeeded(json!("late")))
        .await
        .expect_err("stale");
    sqlx::query("insert into ops_jobs (job_type) select 'a' from generate_series(1, 1200)")
        .execute(&database.psql)
        .await
        .expect("more than a page");
    let (verified, found) = verify(&database).await;
    assert_eq!(found, [] as [&str; 0]);
    assert_eq!((verified.jobs, verified.findings), (1208, 0));
}

#[tokio::test]
async fn what_was_forced_past_the_guard_is_found() {
    let database = Database::new().await;
    let runner = TestRunner::new("r1", &["a"]);
    let mut ids = Vec::new();
    for _ in 0..5 {
        let id = database.record("a").await.id;
        let taken = runner.take(&database, id).await;
        database
            .store
            .finish(taken.lease, Outcome::Failed("no".to_owned()))
            .await
            .expect("recorded");
        ids.push(id);
    }
    let psql = &database.psql;
    force(
        psql,
        "update ops_jobs set attempt = 9 where id = $1",
        ids[0],
    )
    .await;
    force(
        psql,
        "delete from ops_job_events where job_id = $1 and seq = 2",
        ids[1],
    )
    .await;
    force(psql, "delete from ops_jobs where id = $1", ids[2]).await;
    force(psql, "delete from ops_job_events where job_id = $1", ids[3]).await;
    let (verified, found) = verify(&database).await;
    assert_eq!((verified.jobs, verified.events), (4, 15));
    for (id, subject) in [
        (ids[0], "attempt"),
        (ids[1], "numbering"),
        (ids[2], "row"),
        (ids[3], "status"),
    ] {
        assert!(
            found.contains(&format!("{id} {subject}")),
            "{subject}: {found:?}"
        );
    }
    assert!(
        !found.iter().any(|line| line.contains(&ids[4].to_string())),
        "{found:?}"
    );
}
