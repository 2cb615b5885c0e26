//! Runners one by one, from outside: drained over HTTP and from the command line, seen where one looks, forgotten when gone.

use serde_json::json;
use tests::{API_KEY, Start, System, wait_until};

async fn opsctl(system: &System, arguments: &[&str]) -> (i32, String, String) {
    Start::of("opsctl")
        .arguments(arguments)
        .set("OPS_URL", &format!("http://{}", system.ops.authority()))
        .set("OPS_API_KEY", API_KEY)
        .run()
        .await
}

#[tokio::test]
async fn a_drained_runner_finishes_what_it_has_takes_nothing_more_and_says_so_everywhere() {
    let system = System::builder()
        .shell("quick", "true", "")
        .shell("long", "sleep 120", "")
        .start()
        .await;
    let long = system.submit_type("long").await;
    wait_until("the long one runs", async || {
        (system.job(&long).await["status"] == "running").then_some(())
    })
    .await;
    let (code, told, said) = opsctl(
        &system,
        &["runners", "drain", "runner-1", "--reason", "new disk"],
    )
    .await;
    assert!(code == 0 && told.contains("runner-1"), "{told}{said}");
    let shown = system.ops.get("/runners").await.expect(200).json()["runners"][0].clone();
    assert_eq!(shown["draining"], true, "{shown}");
    assert_eq!(shown["drain_reason"], "new disk");
    assert!(
        shown["drain_requested_by"]
            .as_str()
            .expect("text")
            .starts_with("key:")
    );
    let anyone = system.runner(0).anonymous();
    let not_ready = anyone.get("/readyz").await.problem(503);
    assert_eq!(not_ready["failed"], "draining");
    let quick = system.submit_type("quick").await;
    let refused = system
        .runner(0)
        .post("/run", &json!({"job_id": quick}))
        .await;
    let refused = refused.problem(503);
    assert!(
        refused["detail"]
            .as_str()
            .expect("text")
            .contains("new disk"),
        "{refused}"
    );
    let deferred = system
        .ops
        .post("/trigger_runner", &json!({"job_id": quick}))
        .await;
    assert_eq!(
        deferred.expect(202).json()["trigger"]["outcome"],
        "deferred"
    );
    system.runner(0).press("/tick").await.expect(200);
    assert_eq!(system.job(&quick).await["status"], "queued");
    assert_eq!(system.job(&long).await["status"], "running");
    let why = system
        .ops
        .get(&format!("/jobs/{quick}/why"))
        .await
        .expect(200)
        .json();
    assert_eq!(why["reasons"][0]["code"], "runners_drained", "{why}");
    let (code, ..) = opsctl(&system, &["runners", "forget", "runner-1"]).await;
    assert_eq!(code, 5, "it is alive");
    let (code, ..) = opsctl(&system, &["runners", "drain", "nobody"]).await;
    assert_eq!(code, 3);
    let (code, ..) = opsctl(&system, &["runners", "undrain", "runner-1"]).await;
    assert_eq!(code, 0);
    wait_until("the quick one has succeeded", async || {
        (system.job(&quick).await["status"] == "succeeded").then_some(())
    })
    .await;
    anyone.get("/readyz").await.expect(200);
    system
        .ops
        .press(&format!("/jobs/{long}/abort"))
        .await
        .expect(202);
    wait_until("the long one has ended", async || {
        (system.job(&long).await["status"] == "aborted").then_some(())
    })
    .await;
    system.stop().await;
}

#[tokio::test]
async fn a_runner_that_does_not_fit_the_database_says_so_and_takes_nothing() {
    let system = System::builder().shell("quick", "true", "").start().await;
    let set = async |sql: &'static str| {
        sqlx::raw_sql(sql)
            .execute(&system.database.psql)
            .await
            .expect(sql);
    };
    set("update ops_fleet set protocol_min = 7, protocol_max = 8").await;
    let quick = system.submit_type("quick").await;
    let not_ready = system
        .runner(0)
        .anonymous()
        .get("/readyz")
        .await
        .problem(503);
    assert_eq!(not_ready["failed"], "protocol");
    let detail = not_ready["detail"].as_str().expect("text");
    assert!(detail.contains("serves 7 to 8"), "{detail}");
    let why = system
        .ops
        .get(&format!("/jobs/{quick}/why"))
        .await
        .expect(200)
        .json();
    assert_eq!(why["reasons"][0]["code"], "runners_incompatible", "{why}");
    let shown = system.ops.get("/runners").await.expect(200).json();
    assert_eq!(shown["runners"][0]["fits"], false);
    system.runner(0).press("/tick").await.expect(200);
    assert_eq!(system.job(&quick).await["status"], "queued");
    set("update ops_fleet set protocol_min = 1").await;
    wait_until("it is taken", async || {
        (system.job(&quick).await["status"] == "succeeded").then_some(())
    })
    .await;
    system.stop().await;
}
