//! In production, a server that may lose what it acknowledged is none to work on.

use serde_json::json;
use tests::{Database, System};

#[tokio::test(flavor = "multi_thread")]
async fn in_production_both_services_are_not_ready_on_a_server_without_fsync_and_say_so() {
    let database = Database::migrated().await;
    let fsync: String = sqlx::query_scalar("show fsync")
        .fetch_one(&database.psql)
        .await
        .expect("a setting");
    assert_eq!(fsync, "off", "the tests' server is fast and unsafe");
    let system = System::builder()
        .set("APP_ENV", "prod")
        .shell("hello", "true", "")
        .on(&database.url)
        .start()
        .await;
    for service in [system.ops.anonymous().at(""), system.runner(0).anonymous()] {
        let problem = service.get("/readyz").await.problem(503);
        assert_eq!(problem["failed"], "durability");
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("fsync is off")),
            "{problem}"
        );
        service.get("/livez").await.expect(200);
    }
    let id = system.submit(&json!({"job_type": "hello"})).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(
        system.job(&id).await["status"],
        "queued",
        "the runner claims nothing there"
    );
    system.stop().await;
}
