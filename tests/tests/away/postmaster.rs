//! The postmaster is killed while jobs are recorded.

use std::time::{Duration, Instant};

use local_postgres::Mode;
use local_postgres::testing::private_cluster;
use serde_json::json;
use sqlx::PgPool;
use tests::System;
use tokio::sync::watch;
use tokio::task::JoinSet;

const SERVICE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_job_survives_kill_9_of_the_postmaster_and_service_is_back_in_time() {
    let mut cluster = private_cluster(Mode::Durable).await.expect("a cluster");
    cluster.create_database("away").await.expect("a database");
    let url = cluster.url("away");
    tests::migrate(&url).await.expect("migrated");
    let system = System::builder().on(&url).runners(0).start().await;
    let (stop, stopped) = watch::channel(false);
    let mut creating = JoinSet::new();
    for _ in 0..8 {
        let (ops, stopped) = (system.ops.clone(), stopped.clone());
        creating.spawn(async move {
            let mut acknowledged = Vec::new();
            while !*stopped.borrow() {
                let answer = ops.post("/jobs", &json!({"job_type": "a"})).await;
                if answer.status == 201 {
                    acknowledged.push(answer.json()["id"].as_str().expect("an id").to_owned());
                } else {
                    answer.problem(503);
                }
            }
            acknowledged
        });
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        cluster = cluster
            .kill9()
            .await
            .expect("killed")
            .restart()
            .await
            .expect("back");
        let begun = Instant::now();
        let mut served = 0;
        while served < 20 {
            let answer = system.ops.post("/jobs", &json!({"job_type": "a"})).await;
            served = if answer.status == 201 { served + 1 } else { 0 };
            assert!(
                begun.elapsed() < SERVICE,
                "{:?}: {answer:?}",
                begun.elapsed()
            );
        }
        println!("full service after {:?}", begun.elapsed());
    }
    stop.send_replace(true);
    let acknowledged: Vec<String> = creating.join_all().await.into_iter().flatten().collect();
    assert!(
        acknowledged.len() > 50,
        "{} jobs prove little",
        acknowledged.len()
    );
    let psql = PgPool::connect(&url).await.expect("a connection");
    let there: i64 = sqlx::query_scalar("select count(*) from ops_jobs where id::text = any($1)")
        .bind(&acknowledged)
        .fetch_one(&psql)
        .await
        .expect("a count");
    println!("{there} acknowledged jobs are there");
    assert_eq!(usize::try_from(there), Ok(acknowledged.len()));
    psql.close().await;
    system.stop().await;
    cluster.stop().await.expect("stopped");
}
