//! The order of claims: priority counts, waiting counts too, and what is not due is not read past.

use jobs::NewJob;
use serde_json::json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::database::{Database, TestRunner, name};

async fn record(database: &Database, priority: i16, age: Duration) -> Uuid {
    let now: OffsetDateTime = sqlx::query_scalar("select now()")
        .fetch_one(&database.psql)
        .await
        .expect("the database's clock");
    let new = NewJob {
        priority,
        run_at: Some(now - age),
        ..NewJob::new(name("a"), json!({}))
    };
    database.record_with(new).await.id
}

async fn claimed(database: &Database, limit: i64) -> Vec<Uuid> {
    let runner = TestRunner::new("r1", &["a"]);
    let taken = database
        .store
        .claim_due(runner.request(), limit)
        .await
        .expect("an answer");
    taken.iter().map(|leased| leased.lease.job_id()).collect()
}

/// Which jobs are taken, one claim after the other.
async fn one_by_one(database: &Database) -> Vec<Uuid> {
    let mut order = Vec::new();
    loop {
        let taken = claimed(database, 1).await;
        if taken.is_empty() {
            return order;
        }
        order.extend(taken);
    }
}

#[tokio::test]
async fn of_one_age_the_higher_priority_goes_first_and_of_one_priority_the_older() {
    let database = Database::new().await;
    let age = Duration::minutes(1);
    let low = record(&database, -1, age).await;
    let plain = record(&database, 0, age).await;
    let again = record(&database, 0, Duration::seconds(59)).await;
    let high = record(&database, 7, age).await;
    assert_eq!(one_by_one(&database).await, [high, plain, again, low]);
}

#[tokio::test]
async fn a_stream_of_high_ones_does_not_starve_an_old_low_one() {
    let database = Database::new().await;
    let mut stream = Vec::new();
    for minutes in (0..=60).rev().step_by(5) {
        stream.push((
            minutes,
            record(&database, 10, Duration::minutes(minutes)).await,
        ));
    }
    let low = record(&database, 0, Duration::minutes(62)).await;
    let order = one_by_one(&database).await;
    let place = order.iter().position(|id| *id == low).expect("taken");
    // Ten steps are worth 50 minutes: those that fell due up to 12 minutes ago go first, the later ones after it.
    let before: Vec<Uuid> = stream
        .iter()
        .filter(|(minutes, _)| *minutes > 12)
        .map(|(_, id)| *id)
        .collect();
    assert_eq!(order[..place], before);
    assert_eq!(order.len(), stream.len() + 1);
}

#[tokio::test]
async fn a_job_that_is_not_due_has_no_place_and_gets_it_when_it_falls_due() {
    let database = Database::new().await;
    let due = record(&database, 0, Duration::minutes(1)).await;
    let ahead = record(&database, 100, Duration::minutes(-1)).await;
    let placed = "select count(*) from ops_jobs where id = $1 and claim_order is not null";
    let of_ahead: i64 = sqlx::query_scalar(placed)
        .bind(ahead)
        .fetch_one(&database.psql)
        .await
        .expect("a count");
    assert_eq!(of_ahead, 0, "no claim reads past it");
    assert_eq!(claimed(&database, 10).await, [due]);
    // As if the minute had passed: what the clock does, without the trigger that a change of run_at would call.
    let mut transaction = database.psql.begin().await.expect("a transaction");
    sqlx::query("set local session_replication_role = replica")
        .execute(&mut *transaction)
        .await
        .expect("no triggers");
    sqlx::query("update ops_jobs set run_at = now() where id = $1")
        .bind(ahead)
        .execute(&mut *transaction)
        .await
        .expect("due");
    transaction.commit().await.expect("committed");
    let later = record(&database, 0, Duration::minutes(1)).await;
    let last = record(&database, 0, Duration::minutes(1)).await;
    // The first claim gives it its place, and may itself look before that is committed.
    let order = one_by_one(&database).await;
    assert!(order[..2].contains(&ahead), "{order:?}");
    let others: Vec<Uuid> = order.into_iter().filter(|id| *id != ahead).collect();
    assert_eq!(others, [later, last]);
}

#[tokio::test]
async fn a_priority_or_an_instant_changed_by_hand_moves_the_job() {
    let database = Database::new().await;
    let first = record(&database, 0, Duration::minutes(3)).await;
    let second = record(&database, 0, Duration::minutes(2)).await;
    let third = record(&database, 0, Duration::minutes(1)).await;
    for (sql, id) in [
        ("update ops_jobs set priority = 1 where id = $1", third),
        (
            "update ops_jobs set run_at = now() + interval '1 hour' where id = $1",
            first,
        ),
        (
            "update ops_jobs set claim_order = now() - interval '1 year' where id = $1",
            second,
        ),
    ] {
        database.type_in(sql, id).await.expect(sql);
    }
    assert_eq!(claimed(&database, 10).await.len(), 2);
    let order: Vec<Uuid> =
        sqlx::query_scalar("select id from ops_jobs where status = 'running' order by fence")
            .fetch_all(&database.psql)
            .await
            .expect("the claims");
    assert!(!order.contains(&first));
    assert!(order.contains(&second) && order.contains(&third));
    let right: i64 = sqlx::query_scalar(
        "select count(*) from ops_jobs where id <> $1 and claim_order = run_at - priority * interval '5 minutes'",
    )
    .bind(first)
    .fetch_one(&database.psql)
    .await
    .expect("a count");
    assert_eq!(
        right, 2,
        "whatever is written there, the database puts the right value"
    );
}

#[tokio::test]
async fn the_release_before_claims_in_its_own_order_what_this_one_records() {
    let database = Database::new().await;
    let low = record(&database, 0, Duration::hours(5)).await;
    let high = record(&database, 1, Duration::minutes(1)).await;
    let order: Vec<Uuid> = sqlx::query_scalar(
        "select id from ops_jobs where status = 'queued' and run_at <= now() order by priority desc, run_at, id",
    )
    .fetch_all(&database.psql)
    .await
    .expect("its query");
    assert_eq!(order, [high, low]);
    assert_eq!(one_by_one(&database).await, [low, high]);
}
