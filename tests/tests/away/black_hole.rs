//! A database whose network takes everything and answers nothing.

use std::time::{Duration, Instant};

use fault_proxy::{Direction, Fault, Reach};
use serde_json::json;
use tests::{Client, Database, System};
use tokio::task::JoinSet;

use crate::database::proxied;

const WITHIN: Duration = Duration::from_secs(3);
const HEALED: Duration = Duration::from_secs(10);
/// Requests at once.
const AT_ONCE: usize = 50;

/// So many requests at once, reads and writes; gives how many were served. All are answered in time.
async fn ask(ops: &Client) -> usize {
    let mut asking = JoinSet::new();
    for number in 0..AT_ONCE {
        let ops = ops.clone();
        asking.spawn(async move {
            let begun = Instant::now();
            let answer = if number % 2 == 0 {
                ops.get("/jobs?limit=1").await
            } else {
                ops.post("/jobs", &json!({"job_type": "a"})).await
            };
            assert!(
                begun.elapsed() < WITHIN,
                "{:?}: {answer:?}",
                begun.elapsed()
            );
            if answer.status < 300 {
                return 1;
            }
            answer.problem(503);
            assert!(
                answer
                    .header("retry-after")
                    .parse::<u32>()
                    .is_ok_and(|seconds| seconds >= 1),
                "{answer:?}"
            );
            0
        });
    }
    asking.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_answers_in_time_through_a_black_hole_and_heals_by_itself_three_times_over()
{
    let database = Database::migrated().await;
    let (proxy, url) = proxied(&database.url).await;
    let system = System::builder().on(&url).runners(0).start().await;
    let health = system.ops.anonymous().at("");
    for seconds in [20, 5, 5] {
        assert_eq!(ask(&system.ops).await, AT_ONCE);
        // Requests are on their way when it happens.
        let (ops, begun) = (system.ops.clone(), Instant::now());
        let mut in_flight = JoinSet::new();
        in_flight.spawn(async move { ask(&ops).await });
        proxy.set(Reach::All, Direction::Both, Fault::BlackHole);
        in_flight.join_all().await;
        while begun.elapsed() < Duration::from_secs(seconds) {
            assert_eq!(ask(&system.ops).await, 0);
            health.get("/livez").await.expect(200);
            assert_eq!(
                health.get("/readyz").await.problem(503)["failed"],
                "database"
            );
        }
        proxy.pass();
        let begun = Instant::now();
        while ask(&system.ops).await < AT_ONCE {
            assert!(begun.elapsed() < HEALED, "not healed");
        }
        println!("healed after {:?}", begun.elapsed());
        assert!(begun.elapsed() < HEALED, "{:?}", begun.elapsed());
        health.get("/readyz").await.expect(200);
    }
    assert!(proxy.counts().swallowed > 0);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_network_forgot_are_replaced_while_it_takes_new_ones() {
    let database = Database::migrated().await;
    let (proxy, url) = proxied(&database.url).await;
    let system = System::builder().on(&url).runners(0).start().await;
    assert_eq!(ask(&system.ops).await, AT_ONCE);
    proxy.set(Reach::Established, Direction::Both, Fault::BlackHole);
    let begun = Instant::now();
    while ask(&system.ops).await < AT_ONCE {
        assert!(begun.elapsed() < HEALED, "not healed");
    }
    proxy.pass();
    system.stop().await;
}
