//! Whether the services live and are ready.

use serde_json::json;
use tests::{Database, System, wait_until};

#[tokio::test]
async fn health_needs_neither_key_nor_prefix() {
    let system = System::builder().start().await;
    let anyone = system.ops.anonymous().at("");
    let runner = system.runner(0).anonymous();
    for client in [&anyone, &runner] {
        for path in ["/healthz", "/livez", "/readyz"] {
            assert_eq!(client.get(path).await.expect(200).json(), json!({"status": "ok"}), "{path}");
        }
    }
    system.stop().await;
}

#[tokio::test]
async fn a_service_on_another_schema_lives_but_is_not_ready_and_says_why() {
    let empty = Database::empty().await;
    let system = System::builder().on(&empty.url).start().await;
    for client in [system.ops.anonymous().at(""), system.runner(0).anonymous()] {
        client.get("/healthz").await.expect(200);
        let answer = client.get("/readyz").await;
        let problem = answer.problem(503);
        assert_eq!(problem["failed"], "schema");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("opsctl db migrate")), "{problem}");
    }
    tests::migrate(&empty.url).await.expect("migrated");
    for client in [system.ops.anonymous().at(""), system.runner(0).anonymous()] {
        wait_until("a migrated service is ready", async || (client.get("/readyz").await.status == 200).then_some(())).await;
    }
    system.stop().await;
}
