//! Both services behind the real `PgBouncer` in transaction mode.

use local_postgres::testing::bouncer;
use serde_json::json;
use tests::{Database, System};

use crate::database::{socket_folder, through};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_from_end_to_end_behind_a_pooler_that_shares_sessions() {
    let database = Database::migrated().await;
    let host = socket_folder(&database.url).display().to_string();
    let bouncer = bouncer(host, 5432, 3)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let url = through(bouncer.address(), &database.url);
    let system = System::builder()
        .shell(
            "hello",
            "echo said; echo '{\"n\": 1}' > \"$OPS_RESULT_FILE\"",
            "",
        )
        .shell("alone", "true", "concurrency = 1")
        .shell("long", "sleep 60", "")
        .set("DATABASE_POOLER", "transaction")
        .on(&url)
        .start()
        .await;
    system
        .ops
        .anonymous()
        .at("")
        .get("/readyz")
        .await
        .expect(200);
    let job = system
        .run_until(&json!({"job_type": "hello"}), "succeeded")
        .await;
    let id = job["id"].as_str().expect("an id");
    assert_eq!(job["result"], json!({"n": 1}));
    assert_eq!(system.kinds(id).await, ["queued", "running", "succeeded"]);
    assert_eq!(system.log(id).await, "said\n");
    let triggered = system
        .ops
        .post("/trigger_runner", &json!({"job_type": "hello"}))
        .await
        .expect(202)
        .json();
    system
        .until(triggered["job"]["id"].as_str().expect("an id"), "succeeded")
        .await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(
            system
                .submit_type(if number % 2 == 0 { "hello" } else { "alone" })
                .await,
        );
    }
    for id in ids {
        system.until(&id, "succeeded").await;
    }
    let long = system.submit_type("long").await;
    system.until(&long, "running").await;
    system.abort(&long).await.expect(202);
    system.until(&long, "aborted").await;
    system
        .run_until(&json!({"job_type": "metrics_refresh"}), "succeeded")
        .await;
    system.stop().await;
}
