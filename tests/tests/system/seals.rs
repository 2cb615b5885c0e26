//! Who seals the histories of ended jobs: a runner by itself, or whoever ticks.

use serde_json::json;
use tests::{Client, System, wait_until};

const SEALS: &str = "select count(*) from ops_seals";

#[tokio::test]
async fn a_runner_seals_what_has_ended_by_itself() {
    let system = System::builder().shell("hello", "true", "").start().await;
    system
        .run_until(&json!({"job_type": "hello"}), "succeeded")
        .await;
    wait_until("the job is sealed", async || {
        (system.database.count(SEALS).await == 1).then_some(())
    })
    .await;
    system.stop().await;
}

#[tokio::test]
async fn where_no_runner_looks_by_itself_a_tick_of_either_program_seals() {
    let system = System::builder()
        .shell("hello", "true", "")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0")
        .start()
        .await;
    let doors: [&Client; 2] = [&system.ops, &system.runner(0)];
    for (door, seals) in doors.into_iter().zip(1..) {
        system.submit_type("hello").await;
        wait_until("the job has run and is sealed", async || {
            door.press("/tick").await.expect(200);
            (system.database.count(SEALS).await == seals).then_some(())
        })
        .await;
    }
    system.stop().await;
}
