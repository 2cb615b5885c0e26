//! The database goes away, and comes back.

use std::time::{Duration, Instant};

use local_postgres::Mode;
use local_postgres::testing::private_cluster;
use serde_json::json;
use tests::{Client, Peer, System, wait_until};

const WITHIN: Duration = Duration::from_secs(3);

async fn each_route_says_so_in_time(ops: &Client) {
    let id = "0190163d-8694-739b-aea5-966c26f8ad90";
    for (method, path) in [
        ("POST", "/jobs".to_owned()),
        ("POST", "/jobs/batch".to_owned()),
        ("GET", "/jobs".to_owned()),
        ("GET", format!("/jobs/{id}")),
        ("GET", format!("/jobs/{id}/events")),
        ("GET", format!("/jobs/{id}/log")),
        ("POST", format!("/jobs/{id}/abort")),
        ("POST", format!("/jobs/{id}/retry")),
        ("POST", "/trigger_runner".to_owned()),
        ("GET", "/runners".to_owned()),
        ("GET", "/meta".to_owned()),
    ] {
        let call = ops.call(method, &path);
        let call = match path.as_str() {
            "/jobs/batch" => call.json(&json!({"jobs": [{"job_type": "a"}]})),
            "/jobs" | "/trigger_runner" if method == "POST" => call.json(&json!({"job_type": "a"})),
            _ => call,
        };
        let begun = Instant::now();
        let answer = call.send().await;
        assert!(begun.elapsed() < WITHIN, "{method} {path} took {:?}", begun.elapsed());
        answer.problem(503);
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{path}: {answer:?}");
    }
    let begun = Instant::now();
    assert_eq!(ops.anonymous().at("").get("/readyz").await.problem(503)["failed"], "database");
    assert!(begun.elapsed() < WITHIN);
    ops.anonymous().at("").get("/healthz").await.expect(200);
    ops.anonymous().get("/jobs").await.problem(401);
}

#[tokio::test]
async fn while_the_database_is_away_every_route_says_so_and_afterwards_all_goes_on() {
    let cluster = private_cluster(Mode::Test).await.expect("a cluster");
    cluster.create_database("away").await.expect("a database");
    let url = cluster.url("away");
    tests::migrate(&url).await.expect("migrated");
    let system = System::builder().shell("hello", "true", "").on(&url).start().await;
    system.run_until(&json!({"job_type": "hello"}), "succeeded").await;
    let cluster = cluster.shut_down().await.expect("away");
    each_route_says_so_in_time(&system.ops).await;
    let runner = system.runner(0);
    assert_eq!(runner.get("/readyz").await.problem(503)["failed"], "database");
    let begun = Instant::now();
    runner.post("/run", &json!({"job_type": "hello"})).await.problem(503);
    assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    let cluster = cluster.restart().await.expect("back");
    wait_until("the control plane is ready again", async || {
        (system.ops.anonymous().at("").get("/readyz").await.status == 200).then_some(())
    })
    .await;
    system.run_until(&json!({"job_type": "hello"}), "succeeded").await;
    system.stop().await;
    cluster.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_database_that_takes_calls_and_never_answers_is_away_too() {
    let silent = Peer::silent().await;
    let url = silent.url().replace("http://", "postgres://somebody@") + "/nothing";
    let system = System::builder().on(&url).runners(0).start().await;
    each_route_says_so_in_time(&system.ops).await;
    system.stop().await;
}
