//! The harness itself: what it promises to notice, it notices.

use serde_json::json;
use tests::{System, processes_of};

use crate::scripts::{Door, HOLD};

#[tokio::test]
#[should_panic(expected = "a system was not stopped")]
async fn a_system_that_is_not_stopped_fails_its_test() {
    drop(System::builder().runners(0).start().await);
}

#[tokio::test]
#[should_panic(expected = "jobs are left running")]
async fn a_job_that_is_left_running_fails_its_test() {
    let system = System::builder().runners(0).start().await;
    system.submit_type("a").await;
    let claim = "update ops_jobs set status = 'running', runner_id = 'gone'";
    sqlx::query(claim)
        .execute(&system.database.psql)
        .await
        .expect("claimed by hand");
    system.stop().await;
}

#[tokio::test]
async fn the_processes_of_a_job_are_seen_while_it_runs_and_gone_after_a_stop() {
    let system = System::builder().shell("hold", HOLD, "").start().await;
    let id = system.submit(&Door::of(&system).job()).await;
    system.until(&id, "running").await;
    let folder = system.folder().to_path_buf();
    tests::wait_until("its process is seen", async || {
        (!processes_of(&folder).is_empty()).then_some(())
    })
    .await;
    system.stop().await;
    assert_eq!(json!(processes_of(&folder)), json!([]));
}
