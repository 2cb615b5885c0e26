//! An object store that takes every request and answers none: what waits for it can still be stopped, and nothing else waits.

use serde_json::json;
use tests::{Peer, System, wait_until};

/// Whose jobs leave one file each, which is never stored.
async fn before(store: &Peer) -> System {
    System::builder()
        .set("ARTIFACT_STORE", "s3://files/jobs")
        .set("AWS_ENDPOINT_URL", store.url())
        .set("AWS_ACCESS_KEY_ID", "an-id")
        .set("AWS_SECRET_ACCESS_KEY", "a-secret-key")
        .set("SCHEDULES_ENABLED", "1")
        .set("RUNNER_LEASE_SECONDS", "3")
        .shell("leaves", "echo text > \"$OPS_ARTIFACTS_DIR/note.txt\"", "")
        .shell("work", "true", "")
        .start()
        .await
}

/// A job whose handler has succeeded, and whose file is on its way for ever.
async fn stuck(system: &System, store: &Peer) -> String {
    let id = system.submit_type("leaves").await;
    wait_until("the file is sent", async || {
        (!store.heard().is_empty()).then_some(())
    })
    .await;
    id
}

#[tokio::test]
async fn a_job_whose_files_cannot_be_stored_is_aborted_when_that_is_asked_for() {
    let store = Peer::silent().await;
    let system = before(&store).await;
    let id = stuck(&system, &store).await;
    wait_until("it is kept beyond its first lease", async || {
        let renewed: bool = sqlx::query_scalar(
            "select status = 'running' and attempt = 1 and heartbeat_at > started_at + interval '3 seconds'
             from ops_jobs where id::text = $1",
        )
        .bind(&id)
        .fetch_one(&system.database.psql)
        .await
        .expect("the job");
        renewed.then_some(())
    })
    .await;
    system.abort(&id).await.expect(202);
    system.until(&id, "aborted").await;
    system.stop().await;
}

#[tokio::test]
async fn a_stopping_runner_hands_back_a_job_whose_files_cannot_be_stored() {
    let store = Peer::silent().await;
    let system = before(&store).await;
    let id = stuck(&system, &store).await;
    system.running_runner(0).stop();
    let job = system.until(&id, "queued").await;
    assert_eq!(job["attempt"], 0, "it is not counted: {job}");
    assert_eq!(
        system.kinds(&id).await.last().map(String::as_str),
        Some("released")
    );
    system.abort(&id).await.expect(202);
    system.stop().await;
}

#[tokio::test]
async fn schedules_fire_while_old_files_cannot_be_removed() {
    let store = Peer::silent().await;
    let system = before(&store).await;
    sqlx::query("insert into ops_file_garbage (object) values ('old')")
        .execute(&system.database.psql)
        .await
        .expect("a person in psql may");
    wait_until("it is tried", async || {
        (!store.heard().is_empty()).then_some(())
    })
    .await;
    let every_minute = json!({
        "name": "often", "cron": "* * * * *", "job_type": "work", "catch_up": "one", "grace_seconds": 3600,
    });
    system
        .ops
        .post("/schedules", &every_minute)
        .await
        .expect(201);
    sqlx::query("update ops_schedules set next_fire_at = date_trunc('minute', now())")
        .execute(&system.database.psql)
        .await
        .expect("a person in psql may");
    wait_until("it has fired", async || {
        let jobs = system
            .ops
            .get("/jobs?job_type=work")
            .await
            .expect(200)
            .json();
        jobs["jobs"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    system.stop().await;
}
