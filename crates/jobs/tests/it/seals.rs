//! Sealed histories: what a superuser alters afterwards, past every trigger, is found with the event that it begins at.

use std::time::Duration;

use jobs::{NewJob, Outcome, Verified};
use serde_json::json;
use sqlx::{PgPool, Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::{Database, TestRunner, name};

/// A job with the events queued, running, retry_scheduled, running, succeeded.
async fn lived(database: &Database) -> Uuid {
    let runner = TestRunner::new("r1", &["a"]);
    let new = NewJob {
        max_attempts: Some(3),
        ..NewJob::new(name("a"), json!({}))
    };
    let id = database.record_with(new).await.id;
    for outcome in [
        Outcome::Retry("later".to_owned()),
        Outcome::Succeeded(json!(1)),
    ] {
        database
            .type_in("update ops_jobs set run_at = now() where id = $1", id)
            .await
            .expect("due");
        let taken = runner.take(database, id).await;
        database
            .store
            .finish(taken.lease, outcome)
            .await
            .expect("recorded");
    }
    id
}

/// Seals once what is due.
async fn seal(database: &Database) {
    database
        .store
        .seal("sweep:r1", Duration::MAX, || Duration::ZERO)
        .await
        .expect("sealed");
}

async fn count(psql: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from ops_seals")
        .fetch_one(psql)
        .await
        .expect("a count")
}

/// Seals until the whole history of the job is sealed.
async fn sealed(database: &Database, id: Uuid) {
    let covered = "select exists (select from ops_seals s join ops_jobs j on j.id = s.job_id where j.id = $1 and s.seq = j.event_seq)";
    loop {
        seal(database).await;
        let done: bool = sqlx::query_scalar(covered)
            .bind(id)
            .fetch_one(&database.psql)
            .await
            .expect("an answer");
        if done {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A transaction in which no trigger looks.
async fn unguarded(psql: &PgPool) -> Transaction<'static, Postgres> {
    let mut transaction = psql.begin().await.expect("a transaction");
    sqlx::query("set local session_replication_role = replica")
        .execute(&mut *transaction)
        .await
        .expect("no triggers");
    transaction
}

async fn force(psql: &PgPool, statements: &[&'static str], id: Uuid) {
    let mut transaction = unguarded(psql).await;
    for sql in statements {
        sqlx::query(*sql)
            .bind(id)
            .execute(&mut *transaction)
            .await
            .expect("forced");
    }
    transaction.commit().await.expect("committed");
}

/// The events at which a seal does not fit any more.
async fn broken(database: &Database) -> (Verified, Vec<(Uuid, Option<i32>)>) {
    let mut found = Vec::new();
    let verified = database
        .store
        .verify(|finding| {
            if finding.subject == "seal" {
                found.push((finding.job_id, finding.seq));
            }
        })
        .await
        .expect("an answer");
    (verified, found)
}

#[tokio::test]
async fn each_alteration_is_found_with_its_job_and_its_event() {
    let database = Database::new().await;
    let alterations: [(&[&'static str], i32); 7] = [
        (
            &[
                "update ops_job_events set data = data || '{\"error\": \"none\"}' where job_id = $1 and seq = 3",
            ],
            3,
        ),
        (
            &["update ops_job_events set actor = 'somebody' where job_id = $1 and seq = 1"],
            1,
        ),
        (
            &["delete from ops_job_events where job_id = $1 and seq = 5"],
            5,
        ),
        (
            &[
                "delete from ops_job_events where job_id = $1 and seq = 3",
                "update ops_job_events set seq = seq - 1 where job_id = $1 and seq = 4",
                "update ops_job_events set seq = seq - 1 where job_id = $1 and seq = 5",
            ],
            3,
        ),
        (
            &[
                "update ops_job_events set seq = 6 where job_id = $1 and seq = 5",
                "insert into ops_job_events (job_id, seq, kind, attempt) values ($1, 5, 'note', 2)",
            ],
            5,
        ),
        (
            &[
                "update ops_job_events set seq = 99 where job_id = $1 and seq = 2",
                "update ops_job_events set seq = 2 where job_id = $1 and seq = 4",
                "update ops_job_events set seq = 4 where job_id = $1 and seq = 99",
            ],
            2,
        ),
        (
            &["update ops_seals set hashes[2] = sha256('a guess') where job_id = $1"],
            2,
        ),
    ];
    let mut expected = Vec::new();
    let untouched = lived(&database).await;
    for (_, seq) in &alterations {
        expected.push((lived(&database).await, Some(*seq)));
    }
    for (id, _) in &expected {
        sealed(&database, *id).await;
    }
    sealed(&database, untouched).await;
    let (verified, found) = broken(&database).await;
    assert_eq!((verified.seals, verified.findings), (8, 0), "{found:?}");
    for ((statements, _), (id, _)) in alterations.iter().zip(&expected) {
        force(&database.psql, statements, *id).await;
    }
    let (_, found) = broken(&database).await;
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_second_life_is_linked_to_the_first() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    database
        .store
        .abort(id, "key:k", None)
        .await
        .expect("aborted");
    sealed(&database, id).await;
    database
        .store
        .retry(id, "key:k", None)
        .await
        .expect("queued");
    database
        .store
        .abort(id, "key:k", None)
        .await
        .expect("aborted");
    sealed(&database, id).await;
    let (verified, found) = broken(&database).await;
    assert_eq!((verified.seals, found.len()), (2, 0));
    // Whoever alters the first life and seals it anew has the second one's seal against him.
    let forged = [
        "update ops_job_events set actor = 'somebody' where job_id = $1 and seq = 1",
        "update ops_seals s set hashes = ops_event_hashes(s.job_id, 0, s.seq, null)
         where s.job_id = $1 and s.seq = (select min(m.seq) from ops_seals m where m.job_id = $1)",
    ];
    force(&database.psql, &forged, id).await;
    let (_, found) = broken(&database).await;
    assert_eq!(found, [(id, Some(4))]);
}

#[tokio::test]
async fn a_seal_is_never_changed_or_taken_away() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    database
        .store
        .abort(id, "key:k", None)
        .await
        .expect("aborted");
    sealed(&database, id).await;
    for sql in [
        "update ops_seals set seq = seq where job_id = $1",
        "delete from ops_seals where job_id = $1",
    ] {
        database.type_in(sql, id).await.expect_err(sql);
    }
}

#[tokio::test]
async fn what_is_committed_once_the_first_walk_has_passed_is_sealed_by_the_second() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let mut late = database.psql.begin().await.expect("a transaction");
    sqlx::query("update ops_jobs set status = 'aborted' where id = $1")
        .bind(id)
        .execute(&mut *late)
        .await
        .expect("aborted");
    let ended_at: OffsetDateTime = sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(&database.psql)
        .await
        .expect("the time");
    loop {
        seal(&database).await;
        let reached = "select reached from ops_sweeps where name = 'seal'";
        let reached: OffsetDateTime = sqlx::query_scalar(reached)
            .fetch_one(&database.psql)
            .await
            .expect("an instant");
        if reached > ended_at {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    late.commit().await.expect("committed");
    sealed(&database, id).await;
}

#[tokio::test]
async fn of_more_ends_in_one_instant_than_a_page_takes_each_is_sealed() {
    let database = Database::new().await;
    let mut forced = unguarded(&database.psql).await;
    sqlx::raw_sql(
        "insert into ops_job_events (job_id, seq, at, kind, attempt, actor, data)
         select gen_random_uuid(), 1, now() - interval '20 seconds', 'aborted', 0, 'test', '{}' from generate_series(1, 2500);
         update ops_sweeps set reached = now() - interval '30 seconds' where name in ('seal', 'seal_again');",
    )
    .execute(&mut *forced)
    .await
    .expect("forced");
    forced.commit().await.expect("committed");
    let seals = || count(&database.psql);
    let page = database
        .store
        .seal("sweep:r1", Duration::ZERO, || Duration::ZERO);
    page.await.expect("sealed");
    assert_eq!(seals().await, 1_000, "a page of one event each");
    while seals().await < 2_500 {
        seal(&database).await;
    }
}

#[tokio::test]
async fn whoever_is_busy_seals_only_what_is_late() {
    let database = Database::new().await;
    let mut forced = unguarded(&database.psql).await;
    sqlx::raw_sql(
        "insert into ops_job_events (job_id, seq, at, kind, attempt, actor, data)
         values (gen_random_uuid(), 1, now() - interval '12 seconds', 'aborted', 0, 'test', '{}');
         update ops_sweeps set reached = now() - interval '15 seconds' where name in ('seal', 'seal_again');",
    )
    .execute(&mut *forced)
    .await
    .expect("forced");
    forced.commit().await.expect("committed");
    let seals = || count(&database.psql);
    let busy = || {
        let store = &database.store;
        store.seal("sweep:r1", Duration::MAX, || Duration::from_secs(20))
    };
    busy().await.expect("sealed");
    assert_eq!(seals().await, 0);
    sqlx::query(
        "update ops_sweeps set reached = now() - interval '35 seconds' where name = 'seal_again'",
    )
    .execute(&database.psql)
    .await
    .expect("later");
    busy().await.expect("sealed");
    assert_eq!(seals().await, 1);
}
