//! Publishing to Notion at the database: noted with the end or not at all, taken by one at a time and in turns, the newest
//! outcome at last.

use std::time::Duration;

use jobs::{
    ClaimedOutcome, NotionCame, NotionCheck, NotionOutcome, NotionRecord, NotionWork, Outcome,
    Status,
};
use serde_json::json;
use sqlx::Executor;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::database::{Database, TestRunner};

const KEY: &str = "0badcafe";
const PLACE: &str = "a-database";

async fn work(database: &Database, sender: &str) -> NotionWork {
    // Whose turn comes when is another test's.
    database
        .psql
        .execute("update ops_notion set next_request_at = clock_timestamp()")
        .await
        .expect("no turns");
    let claimed = database.store.claim_notion(sender, KEY, PLACE).await;
    claimed.expect("an answer")
}

async fn claim(database: &Database, sender: &str) -> ClaimedOutcome {
    match work(database, sender).await {
        NotionWork::Publish(claimed) => *claimed,
        other => panic!("nothing to publish: {other:?}"),
    }
}

/// Somebody publishes, and may.
async fn noting(database: &Database) {
    assert!(matches!(work(database, "s").await, NotionWork::Check(_)));
    let right = database.store.record_notion_check(KEY, &NotionCheck::Right);
    right.await.expect("recorded");
}

async fn record(
    database: &Database,
    sender: &str,
    claimed: &ClaimedOutcome,
    came: NotionCame,
) -> NotionRecord {
    let outcome = NotionOutcome {
        error: (!matches!(came, NotionCame::Published(_))).then(|| "answered 500".to_owned()),
        came,
        status: None,
        retry_after: None,
    };
    let recorded = database
        .store
        .record_notion(sender, PLACE, claimed, &outcome);
    recorded.await.expect("an answer")
}

fn published() -> NotionCame {
    NotionCame::Published("page".to_owned())
}

async fn fail(database: &Database) -> Uuid {
    let id = database.record("a").await.id;
    end(database, id, Outcome::Failed("broken".to_owned())).await;
    id
}

async fn end(database: &Database, id: Uuid, outcome: Outcome) {
    let leased = TestRunner::new("r1", &["a"]).take(database, id).await;
    let finished = database.store.finish(leased.lease, outcome).await;
    finished.expect("recorded");
}

async fn end_anew(database: &Database, id: Uuid) {
    let retried = database.type_in("select ops_retry($1)", id).await;
    retried.expect("queued again");
    end(database, id, Outcome::Succeeded(json!(1))).await;
}

async fn leases_are_over(database: &Database) {
    database
        .psql
        .execute("update ops_notion_pages set due_at = clock_timestamp() where state = 'pending'")
        .await
        .expect("over");
}

async fn noted(database: &Database) -> i64 {
    sqlx::query_scalar("select count(*) from ops_notion_pages")
        .fetch_one(&database.psql)
        .await
        .expect("a count")
}

async fn state(database: &Database, id: Uuid) -> String {
    sqlx::query_scalar("select state from ops_notion_pages where job_id = $1")
        .bind(id)
        .fetch_one(&database.psql)
        .await
        .expect("its state")
}

#[tokio::test]
async fn ends_are_noted_once_somebody_publishes_and_no_longer_when_nobody_does() {
    let database = Database::new().await;
    fail(&database).await;
    assert_eq!(noted(&database).await, 0);
    noting(&database).await;
    let id = fail(&database).await;
    assert_eq!(noted(&database).await, 1);
    let claimed = claim(&database, "s").await;
    assert_eq!(
        (claimed.job_id, claimed.status.as_str(), claimed.look),
        (id, "failed", false)
    );
    assert_eq!(claimed.error.as_deref(), Some("broken"));
    database
        .psql
        .execute("update ops_notion set asked_at = asked_at - interval '27 hours'")
        .await
        .expect("long ago");
    fail(&database).await;
    assert_eq!(noted(&database).await, 1);
}

#[tokio::test]
async fn an_end_that_is_rolled_back_is_not_noted() {
    let database = Database::new().await;
    noting(&database).await;
    let id = database.record("a").await.id;
    let mut transaction = database.psql.begin().await.expect("a transaction");
    sqlx::query("select ops_abort($1)")
        .bind(id)
        .execute(&mut *transaction)
        .await
        .expect("aborted");
    transaction.rollback().await.expect("undone");
    assert!(matches!(work(&database, "s").await, NotionWork::Nothing));
}

#[tokio::test]
async fn one_publishes_a_job_at_a_time_and_who_comes_after_a_lost_one_looks_for_the_page() {
    let database = Database::new().await;
    noting(&database).await;
    fail(&database).await;
    let first = claim(&database, "first").await;
    assert!(matches!(
        work(&database, "second").await,
        NotionWork::Nothing
    ));
    leases_are_over(&database).await;
    let second = claim(&database, "second").await;
    assert_eq!((second.attempt, second.look), (2, true));
    assert_eq!(second.seq, first.seq);
    let came = record(&database, "second", &second, published()).await;
    assert_eq!(came, NotionRecord::Published);
    assert_eq!(state(&database, first.job_id).await, "published");
}

#[tokio::test]
async fn the_newest_outcome_stands_at_last_whoever_was_slow() {
    let database = Database::new().await;
    noting(&database).await;
    let id = fail(&database).await;
    let slow = claim(&database, "slow").await;
    // It ends anew while somebody publishes the end before.
    end_anew(&database, id).await;
    assert!(matches!(
        work(&database, "other").await,
        NotionWork::Nothing
    ));
    leases_are_over(&database).await;
    let newest = claim(&database, "other").await;
    assert_eq!(newest.status, "succeeded");
    assert!(newest.seq > slow.seq);
    record(&database, "other", &newest, published()).await;
    assert_eq!(state(&database, id).await, "published");
    // The slow one wakes, and has written over it: the newest goes once more.
    assert_eq!(
        record(&database, "slow", &slow, published()).await,
        NotionRecord::Late
    );
    let again = claim(&database, "other").await;
    assert_eq!(
        (again.seq, again.status.as_str()),
        (newest.seq, "succeeded")
    );
    assert_eq!(again.page_id.as_deref(), Some("page"));
    record(&database, "other", &again, published()).await;
    assert!(matches!(
        work(&database, "other").await,
        NotionWork::Nothing
    ));
}

#[tokio::test]
async fn an_end_that_comes_while_the_one_before_is_published_is_published_next() {
    let database = Database::new().await;
    noting(&database).await;
    let id = fail(&database).await;
    let first = claim(&database, "s").await;
    end_anew(&database, id).await;
    record(&database, "s", &first, published()).await;
    assert_eq!(state(&database, id).await, "pending");
    let next = claim(&database, "s").await;
    assert_eq!(next.status, "succeeded");
    // Nothing that was refused of an older outcome counts against a newer one.
    database
        .type_in(
            "update ops_notion_pages set noted_seq = noted_seq + 1 where job_id = $1",
            id,
        )
        .await
        .expect("noted anew");
    let came = record(&database, "s", &next, NotionCame::Refused).await;
    assert_eq!(came, NotionRecord::Retry);
}

#[tokio::test]
async fn a_job_that_is_at_work_again_is_published_at_its_next_end() {
    let database = Database::new().await;
    noting(&database).await;
    let id = fail(&database).await;
    let retried = database.type_in("select ops_retry($1)", id).await;
    retried.expect("queued again");
    assert!(matches!(work(&database, "s").await, NotionWork::Nothing));
    assert_eq!(state(&database, id).await, "superseded");
    end(&database, id, Outcome::Succeeded(json!(1))).await;
    assert_eq!(database.job(id).await.status, Status::Succeeded);
    assert_eq!(claim(&database, "s").await.status, "succeeded");
}

#[tokio::test]
async fn turns_are_handed_out_a_third_of_a_second_apart_and_a_delay_is_everybodys() {
    let database = Database::new().await;
    noting(&database).await;
    for _ in 0..4 {
        fail(&database).await;
    }
    let mut waits = Vec::new();
    let begun = std::time::Instant::now();
    for number in 0..3 {
        let sender = format!("s{number}");
        let claimed = database.store.claim_notion(&sender, KEY, PLACE).await;
        match claimed.expect("an answer") {
            NotionWork::Publish(claimed) => waits.push(begun.elapsed() + claimed.wait),
            other => panic!("nothing to publish: {other:?}"),
        }
    }
    for pair in waits.windows(2) {
        assert!(pair[1] >= pair[0] + Duration::from_millis(330), "{waits:?}");
    }
    let claimed = claim(&database, "busy").await;
    let outcome = NotionOutcome {
        came: NotionCame::Busy,
        status: Some(429),
        error: Some("answered 429".to_owned()),
        retry_after: Some(1000),
    };
    let recorded = database
        .store
        .record_notion("busy", PLACE, &claimed, &outcome);
    assert_eq!(recorded.await.expect("an answer"), NotionRecord::Retry);
    leases_are_over(&database).await;
    let next = database.store.claim_notion("s", KEY, PLACE).await;
    assert_eq!(next.expect("an answer"), NotionWork::Nothing);
    let turn = database.store.reserve_notion().await.expect("an answer");
    assert!(turn > Duration::from_secs(990), "{turn:?}");
    let health = database.store.notion_health().await.expect("an answer");
    assert!(health.waits_until.is_some());
    assert_eq!(health.last_error.as_deref(), Some("answered 429"));
}

#[tokio::test]
async fn what_fails_is_tried_again_later_and_later_and_never_given_up_for_that() {
    let database = Database::new().await;
    noting(&database).await;
    let id = fail(&database).await;
    for _ in 0..30 {
        leases_are_over(&database).await;
        let claimed = claim(&database, "s").await;
        let came = record(&database, "s", &claimed, NotionCame::Busy).await;
        assert_eq!(came, NotionRecord::Retry);
        let pause: f64 = sqlx::query_scalar(
            "select extract(epoch from due_at - clock_timestamp())::float8 from ops_notion_pages",
        )
        .fetch_one(&database.psql)
        .await
        .expect("a time");
        assert!(pause <= 3600.0, "{pause}");
        // Everybody waits too, but not for so long.
        let health = database.store.notion_health().await.expect("an answer");
        assert_eq!(health.last_error.as_deref(), Some("answered 500"));
        let delay: f64 = sqlx::query_scalar(
            "select extract(epoch from next_request_at - clock_timestamp())::float8 from ops_notion",
        )
        .fetch_one(&database.psql)
        .await
        .expect("a time");
        assert!(delay <= 300.0, "{delay}");
    }
    assert_eq!(state(&database, id).await, "pending");
}

#[tokio::test]
async fn while_the_fleet_is_paused_nothing_is_published_and_after_a_restore_pages_are_looked_for() {
    let database = Database::new().await;
    noting(&database).await;
    fail(&database).await;
    database
        .psql
        .execute("select ops_pause_fleet('restored')")
        .await
        .expect("paused");
    assert!(matches!(work(&database, "s").await, NotionWork::Nothing));
    database
        .psql
        .execute("select ops_resume_fleet()")
        .await
        .expect("resumed");
    assert!(claim(&database, "s").await.look);
}

#[tokio::test]
async fn a_page_of_another_database_is_not_changed() {
    let database = Database::new().await;
    noting(&database).await;
    let id = fail(&database).await;
    let claimed = claim(&database, "s").await;
    record(&database, "s", &claimed, published()).await;
    end_anew(&database, id).await;
    let elsewhere = database.store.claim_notion("s", KEY, "another").await;
    match elsewhere.expect("an answer") {
        NotionWork::Publish(claimed) => assert_eq!((claimed.page_id, claimed.look), (None, true)),
        other => panic!("nothing to publish: {other:?}"),
    }
}

#[tokio::test]
async fn who_is_found_faulty_waits_and_others_do_not() {
    let database = Database::new().await;
    noting(&database).await;
    fail(&database).await;
    let faulty = NotionCheck::Faulty("the token is refused".to_owned());
    let recorded = database.store.record_notion_check(KEY, &faulty).await;
    recorded.expect("recorded");
    assert_eq!(work(&database, "s").await, NotionWork::Nothing);
    let other = database.store.claim_notion("o", "another-key", PLACE).await;
    assert!(matches!(other, Ok(NotionWork::Check(_))), "{other:?}");
    let retried = database.store.retry_notion(None).await;
    assert_eq!(retried.expect("an answer"), Some(0));
    assert!(matches!(work(&database, "s").await, NotionWork::Check(_)));
    let nobodys = database.store.retry_notion(Some(Uuid::nil())).await;
    assert_eq!(nobodys.expect("an answer"), None);
}

#[tokio::test]
async fn a_job_ends_while_others_publish_by_the_hundred() {
    let database = Database::new().await;
    noting(&database).await;
    let store = database.store.clone();
    let mut publishing = JoinSet::new();
    publishing.spawn(async move {
        for _ in 0..200 {
            let work = store.claim_notion("s", KEY, PLACE).await;
            if let NotionWork::Publish(claimed) = work.expect("an answer") {
                let outcome = NotionOutcome {
                    came: published(),
                    status: None,
                    error: None,
                    retry_after: None,
                };
                let recorded = store.record_notion("s", PLACE, &claimed, &outcome).await;
                recorded.expect("an answer");
            }
            store.reserve_notion().await.expect("an answer");
            store.retry_notion(None).await.expect("an answer");
        }
    });
    while ended(&mut publishing).is_none() {
        database
            .psql
            .execute("select ops_abort(ops_enqueue('a', '{}')) from generate_series(1, 20)")
            .await
            .expect("ended");
        database
            .psql
            .execute("update ops_notion set next_request_at = clock_timestamp()")
            .await
            .expect("no turns");
    }
}

/// Fails with what has failed.
fn ended(task: &mut JoinSet<()>) -> Option<()> {
    task.try_join_next().map(|ended| ended.expect("no panic"))
}
