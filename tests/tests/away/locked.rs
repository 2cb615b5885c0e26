//! Somebody locks the table of jobs, as a careless migration or a person in psql does.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{System, wait_until};
use tokio::task::JoinSet;

/// In which a database that does not answer must have been told of.
const ANSWER: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_is_told_of_in_time_and_costs_no_job() {
    let system = System::builder()
        .shell("short", "sleep 1", "")
        .set("DATABASE_MAX_CONNECTIONS", "3")
        .start()
        .await;
    let running = system.submit_type("short").await;
    system.until(&running, "running").await;
    let mut lock = system.database.psql.begin().await.expect("a transaction");
    sqlx::query("lock table ops_jobs in access exclusive mode")
        .execute(&mut *lock)
        .await
        .expect("the lock");
    let begun = Instant::now();
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        let ops = system.ops.clone();
        asking.spawn(async move {
            let asked = Instant::now();
            let answer = ops.post("/jobs", &json!({"job_type": "short"})).await;
            answer.problem(503);
            assert!(!answer.header("retry-after").is_empty());
            asked.elapsed()
        });
    }
    let slowest = asking.join_all().await.into_iter().max();
    assert!(slowest < Some(ANSWER), "{slowest:?}");
    let live = system.control_plane(0).at("").get("/livez").await;
    assert_eq!(live.status, 200);
    // Until after its handler has ended.
    wait_until("the job would be done", async || {
        (begun.elapsed() > Duration::from_secs(4)).then_some(())
    })
    .await;
    lock.rollback().await.expect("unlocked");
    let job = system.until(&running, "succeeded").await;
    assert_eq!(job["attempt"], 1, "{job}");
    system
        .run_until(&json!({"job_type": "short"}), "succeeded")
        .await;
    system.stop().await;
}
