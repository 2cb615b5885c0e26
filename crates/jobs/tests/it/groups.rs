//! What different callers ask for at the same time is committed together, and stays as separate as if it were not.

use std::collections::HashSet;
use std::time::Duration;

use jobs::{NewJob, Outcome, Status, Store, StoreError, Submitted};
use serde_json::json;
use sqlx::Acquire as _;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use crate::database::{Database, TestRunner, name};

const JOBS: usize = 200;

fn keyed(number: usize, key: &str) -> NewJob {
    let mut new = NewJob::new(name("a"), json!({"number": number}));
    new.idempotency_key = Some(key.to_owned());
    new
}

async fn submit_all(
    store: &Store,
    jobs: impl Iterator<Item = NewJob>,
) -> Vec<Result<Submitted, StoreError>> {
    let mut callers = JoinSet::new();
    for (number, new) in jobs.enumerate() {
        let store = store.clone();
        callers.spawn(async move { store.submit(new, &format!("key:{number}")).await });
    }
    callers.join_all().await
}

#[tokio::test]
async fn creates_of_many_callers_share_transactions_and_each_has_its_own_job() {
    let database = Database::new().await;
    let jobs = (0..JOBS).map(|number| NewJob::new(name("a"), json!({"number": number})));
    let submitted = submit_all(&database.store, jobs).await;
    let mut seen = HashSet::new();
    for answer in submitted {
        let job = answer.expect("recorded").into_job();
        let number = job.payload["number"].to_string();
        assert_eq!(
            job.created_by,
            format!("key:{number}"),
            "each is its caller's"
        );
        assert_eq!(database.kinds(job.id).await, ["queued"]);
        seen.insert(number);
    }
    assert_eq!(seen.len(), JOBS);
    let transactions: i64 = sqlx::query_scalar("select count(distinct xmin::text) from ops_jobs")
        .fetch_one(&database.psql)
        .await
        .expect("a count");
    assert!(transactions < 100, "{transactions} transactions");
}

#[tokio::test]
async fn one_key_is_one_job_however_many_ask_for_it_at_once() {
    let database = Database::new().await;
    let submitted = submit_all(&database.store, (0..50).map(|_| keyed(1, "the same"))).await;
    let mut created = 0;
    let mut ids = HashSet::new();
    for answer in submitted {
        let answer = answer.expect("recorded");
        created += usize::from(matches!(answer, Submitted::Created(_)));
        ids.insert(answer.into_job().id);
    }
    assert_eq!((created, ids.len()), (1, 1));
}

#[tokio::test]
async fn a_request_that_is_refused_fails_nobody_else() {
    let database = Database::new().await;
    database
        .store
        .submit(keyed(0, "taken"), "key:test")
        .await
        .expect("recorded");
    let mut too_many = NewJob::new(name("a"), json!({}));
    too_many.max_attempts = Some(5000);
    let jobs = (1..60).map(|number| match number {
        20 => too_many.clone(),
        40 => keyed(number, "taken"),
        _ => keyed(number, &format!("own {number}")),
    });
    let mut counts = (0, 0, 0);
    for answer in submit_all(&database.store, jobs).await {
        match answer {
            Ok(Submitted::Created(_)) => counts.0 += 1,
            Err(StoreError::Refused(why)) => {
                assert!(why.contains("max_attempts"), "{why}");
                counts.1 += 1;
            }
            Err(StoreError::IdempotencyConflict(_)) => counts.2 += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counts, (57, 1, 1));
}

async fn claimed(database: &Database, jobs: usize) -> Vec<jobs::LeasedJob> {
    for _ in 0..jobs {
        database.record("a").await;
    }
    let runner = TestRunner::new("r", &["a"]);
    let most = i64::try_from(jobs).expect("few");
    let claimed = database.store.claim_due(runner.request(), most).await;
    claimed.expect("claimed")
}

async fn finish_all(
    store: &Store,
    claimed: Vec<jobs::LeasedJob>,
    outcome: impl Fn(usize) -> Outcome,
) -> Vec<(Uuid, Result<Status, StoreError>)> {
    let mut finishing = JoinSet::new();
    for (number, leased) in claimed.into_iter().enumerate() {
        let (store, outcome) = (store.clone(), outcome(number));
        finishing.spawn(async move {
            let id = leased.lease.job_id();
            let finished = store.finish(leased.lease, outcome).await;
            (
                id,
                finished
                    .map(|done| done.status)
                    .map_err(|undone| undone.error),
            )
        });
    }
    finishing.join_all().await
}

#[tokio::test]
async fn ends_of_many_attempts_share_transactions_and_each_is_its_own() {
    let database = Database::new().await;
    let claimed = claimed(&database, JOBS).await;
    let outcome = |number: usize| match number % 4 {
        0 => Outcome::Failed(format!("fault {number}")),
        1 => Outcome::Aborted,
        2 => Outcome::Retry(format!("later {number}")),
        _ => Outcome::Succeeded(json!(number)),
    };
    for (id, finished) in finish_all(&database.store, claimed, outcome).await {
        let status = finished.expect("recorded");
        let job = database.job(id).await;
        assert_eq!(job.status, status, "what was answered is what is committed");
        let last = database.kinds(id).await.pop().expect("an event");
        match status {
            Status::Succeeded => assert!(job.result.is_some() && last == "succeeded"),
            Status::Aborted => assert_eq!(last, "aborted"),
            // One attempt only: a retry that is not left is a failure, and both have used their attempts up.
            Status::Failed => assert!(job.error.is_some() && last == "dead_lettered", "{last}"),
            other => panic!("{other}"),
        }
    }
    let transactions: i64 = sqlx::query_scalar(
        "select count(distinct xmin::text) from ops_jobs where status in ('succeeded', 'aborted')",
    )
    .fetch_one(&database.psql)
    .await
    .expect("a count");
    assert!(
        transactions < 50,
        "{transactions} transactions for 100 ends"
    );
}

#[tokio::test]
async fn a_stale_lease_in_a_group_is_refused_alone() {
    let database = Database::new().await;
    let claimed = claimed(&database, 40).await;
    let stolen = claimed[7].lease.job_id();
    // Somebody else takes it: the fence moves on.
    for sql in [
        "update ops_jobs set status = 'queued' where id = $1",
        "update ops_jobs set status = 'running' where id = $1",
    ] {
        database.type_in(sql, stolen).await.expect("legal");
    }
    for (id, finished) in
        finish_all(&database.store, claimed, |_| Outcome::Succeeded(json!(1))).await
    {
        if id == stolen {
            assert!(
                matches!(finished, Err(StoreError::LeaseLost(_))),
                "{finished:?}"
            );
            let kinds = database.kinds(id).await;
            assert_eq!(
                kinds.last().map(String::as_str),
                Some("stale_result_refused")
            );
        } else {
            assert_eq!(finished.expect("recorded"), Status::Succeeded);
        }
    }
}

#[tokio::test]
async fn a_row_that_somebody_locks_holds_up_nobody_else() {
    let database = Database::new().await;
    let claimed = claimed(&database, 40).await;
    let locked = claimed[3].lease.job_id();
    let mut person = database.psql.acquire().await.expect("a connection");
    let mut transaction = person.begin().await.expect("begun");
    sqlx::query("select from ops_jobs where id = $1 for update")
        .bind(locked)
        .execute(&mut *transaction)
        .await
        .expect("locked");
    let (mut others, mut held_up) = (JoinSet::new(), JoinSet::new());
    for leased in claimed {
        let store = database.store.clone();
        let of = if leased.lease.job_id() == locked {
            &mut held_up
        } else {
            &mut others
        };
        of.spawn(async move {
            store
                .finish(leased.lease, Outcome::Succeeded(json!(1)))
                .await
        });
    }
    let finished = timeout(Duration::from_secs(20), others.join_all()).await;
    assert!(finished.expect("not held up").iter().all(Result::is_ok));
    transaction.rollback().await.expect("let go");
    let last = held_up.join_next().await.expect("one").expect("no panic");
    assert_eq!(last.expect("recorded").status, Status::Succeeded);
}

#[tokio::test]
async fn a_listener_hears_of_jobs_that_are_due_and_of_no_others() {
    let database = Database::new().await;
    let mut hints = database
        .store
        .listen(None)
        .await
        .expect("an answer")
        .expect("a session");
    let heard = timeout(Duration::from_millis(50), hints.heard()).await;
    assert!(heard.is_err(), "nothing has happened yet");
    database.record("a").await;
    timeout(Duration::from_secs(10), hints.heard())
        .await
        .expect("in time")
        .expect("a hint");
    let mut later = NewJob::new(name("a"), json!({}));
    later.run_at = Some(time::OffsetDateTime::UNIX_EPOCH + Duration::from_secs(7_000_000_000));
    database.record_with(later).await;
    database
        .store
        .submit_quietly(NewJob::new(name("a"), json!({})), "key:test")
        .await
        .expect("recorded");
    let heard = timeout(Duration::from_millis(300), hints.heard()).await;
    assert!(
        heard.is_err(),
        "one is not due, and one is told in another way"
    );
}

#[tokio::test]
async fn a_listener_whose_connection_is_cut_says_so() {
    let database = Database::new().await;
    let mut hints = database
        .store
        .listen(None)
        .await
        .expect("an answer")
        .expect("a session");
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'ops-jobs hints' and datname = current_database()";
    sqlx::query(cut).execute(&database.psql).await.expect("cut");
    let heard = timeout(Duration::from_secs(10), hints.heard())
        .await
        .expect("in time");
    assert!(
        matches!(heard, Err(StoreError::Unavailable(_))),
        "{heard:?}"
    );
}
