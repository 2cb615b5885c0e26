//! Replay by filter, and what triggers leave behind.

use jobs::{NewJob, Outcome, RetryFilter, Status};
use serde_json::json;
use tokio::task::JoinSet;

use crate::database::{Database, TestRunner, name};

fn failed() -> RetryFilter {
    RetryFilter {
        status: Status::Failed,
        job_type: None,
        queue: None,
        error_contains: None,
        created_after: None,
        created_before: None,
    }
}

/// Records jobs of a type and lets them fail with an error.
async fn fail(database: &Database, job_type: &str, count: usize, error: &str) {
    let fresh = vec![NewJob::new(name(job_type), json!({})); count];
    let recorded = database.store.submit_batch(&fresh, "key:test").await;
    recorded.expect("recorded");
    let runner = TestRunner::new("r1", &[job_type]);
    let claimed = database.store.claim_due(runner.request(), 1000).await;
    for leased in claimed.expect("claims") {
        let outcome = Outcome::Failed(error.to_owned());
        let finished = database.store.finish(leased.lease, outcome).await;
        finished.expect("recorded");
    }
}

async fn queued(database: &Database) -> i64 {
    sqlx::query_scalar("select count(*) from ops_jobs where status = 'queued'")
        .fetch_one(&database.psql)
        .await
        .expect("a count")
}

#[tokio::test]
async fn a_filter_finds_what_it_says_and_a_page_queues_no_more_than_that() {
    let database = Database::new().await;
    fail(&database, "a", 5, "No space left on device").await;
    fail(&database, "a", 2, "100% wrong").await;
    fail(&database, "b", 3, "No space left on device").await;
    let count = async |filter: &RetryFilter| {
        let counted = database.store.count_to_retry(filter).await;
        counted.expect("a count").count
    };
    assert_eq!(count(&failed()).await, 10);
    for (text, expected) in [("space", 8), ("%", 2), ("0% w", 2), ("_", 0)] {
        let filter = RetryFilter {
            error_contains: Some(text.to_owned()),
            ..failed()
        };
        assert_eq!(count(&filter).await, expected, "{text}");
    }
    let aborted = RetryFilter {
        status: Status::Aborted,
        ..failed()
    };
    assert_eq!(count(&aborted).await, 0);
    let filter = RetryFilter {
        job_type: Some(name("a")),
        error_contains: Some("space".to_owned()),
        ..failed()
    };
    let matched = database.store.count_to_retry(&filter).await;
    let matched = matched.expect("a count");
    let page = async |limit| {
        let retried =
            database
                .store
                .retry_page(&filter, matched, limit, "key:test", Some("larger disk"));
        retried.await.expect("a page")
    };
    assert_eq!((page(3).await, page(500).await, page(500).await), (3, 2, 0));
    assert_eq!(queued(&database).await, 5);
    let event: (String, String) = sqlx::query_as(
        "select actor, data->>'reason' from ops_job_events where kind = 'replayed' limit 1",
    )
    .fetch_one(&database.psql)
    .await
    .expect("an event");
    assert_eq!(event, ("key:test".to_owned(), "larger disk".to_owned()));
}

#[tokio::test]
async fn what_fails_again_meanwhile_is_left_alone() {
    let database = Database::new().await;
    fail(&database, "a", 2, "no").await;
    let matched = database.store.count_to_retry(&failed()).await;
    let matched = matched.expect("a count");
    fail(&database, "a", 1, "no").await;
    let retried = database
        .store
        .retry_page(&failed(), matched, 500, "key:test", None)
        .await;
    assert_eq!(retried.expect("a page"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_replays_queue_each_job_once() {
    let database = Database::new().await;
    fail(&database, "a", 200, "no").await;
    let matched = database.store.count_to_retry(&failed()).await;
    let matched = matched.expect("a count");
    let mut racing = JoinSet::new();
    for _ in 0..4 {
        let store = database.store.clone();
        racing.spawn(async move {
            let filter = failed();
            let retried = store.retry_page(&filter, matched, 500, "key:test", None);
            retried.await.expect("a page")
        });
    }
    assert_eq!(racing.join_all().await.into_iter().sum::<u64>(), 200);
    assert_eq!(queued(&database).await, 200);
}

#[tokio::test]
async fn a_tick_asks_for_another_due_job_each_time_and_leaves_no_event() {
    let database = Database::new().await;
    let ids = [
        database.record("a").await.id,
        database.record("b").await.id,
        database.record("c").await.id,
    ];
    let mut asked = Vec::new();
    for _ in 0..3 {
        let next = database.store.next_to_trigger(&["b"], true).await;
        let id = next.expect("an answer").expect("a job");
        let noted = database.store.note_trigger(id, "deferred").await;
        noted.expect("noted");
        asked.push(id);
    }
    assert_eq!(asked, [ids[0], ids[2], ids[0]]);
    assert_eq!(database.kinds(ids[0]).await, ["queued"]);
    let outcome: String =
        sqlx::query_scalar("select last_trigger_outcome from ops_jobs where id = $1")
            .bind(ids[0])
            .fetch_one(&database.psql)
            .await
            .expect("an outcome");
    assert_eq!(outcome, "deferred");
}

/// The control plane's role may do what a tick does.
#[tokio::test]
async fn the_control_planes_role_takes_lost_jobs_back_and_notes_triggers() {
    let database = Database::new().await;
    database.store.bootstrap_roles().await.expect("made");
    let id = database.record("a").await.id;
    let mut doomed = TestRunner::new("r1", &["a"]);
    doomed.lease = std::time::Duration::ZERO;
    doomed.types[0].concurrency = Some(1);
    doomed.take(&database, id).await;
    let login: String = sqlx::query_scalar("select format('%I', current_user)")
        .fetch_one(&database.psql)
        .await
        .expect("a login");
    let base: String = sqlx::query_scalar("select format('%I', current_database())")
        .fetch_one(&database.psql)
        .await
        .expect("a name");
    // New connections of the store act as the role.
    let sql = format!("alter role {login} in database {base} set role = ops_control_plane");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&database.psql)
        .await
        .expect("a setting");
    let fresh = crate::database::store_on(&database.url, 2);
    let swept = fresh.recover("key:test").await.expect("recovered");
    assert_eq!(swept.recovered, 1);
    fresh.note_trigger(id, "accepted").await.expect("noted");
    assert_eq!(database.job(id).await.status, Status::Failed);
}
