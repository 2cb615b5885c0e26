//! What a runner takes, and when: slots, drain, tick, poll, limits over the fleet.

use std::collections::BTreeSet;

use serde_json::json;
use tests::{System, wait_until};
use tokio::task::JoinSet;

use crate::scripts::{Door, HOLD};

#[tokio::test]
async fn without_a_free_slot_a_trigger_hears_429_and_the_job_stays_queued() {
    let builder = System::builder()
        .shell("hold", HOLD, "")
        .set("RUNNER_CONCURRENCY", "1")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0");
    let system = builder.start().await;
    let (door, runner) = (Door::of(&system), system.runner(0));
    runner
        .post(
            "/run",
            &json!({"job_type": "hold", "payload": door.payload()}),
        )
        .await
        .expect(202);
    let waiting = system.submit(&door.job()).await;
    let answer = runner.post("/run", &json!({ "job_id": waiting })).await;
    answer.problem(429);
    assert!(
        answer
            .header("retry-after")
            .parse::<u32>()
            .is_ok_and(|seconds| seconds >= 1),
        "{answer:?}"
    );
    assert_eq!(system.kinds(&waiting).await, ["queued"]);
    door.open();
    system.until(&waiting, "succeeded").await;
    system.stop().await;
}

#[tokio::test]
async fn a_draining_runner_takes_nothing_new_and_lets_its_job_finish() {
    let builder = System::builder()
        .shell("hold", HOLD, "")
        .set("RUNNER_DRAIN_SECONDS", "25");
    let system = builder.start().await;
    let (door, runner) = (Door::of(&system), system.runner(0));
    let id = system.submit(&door.job()).await;
    system.until(&id, "running").await;
    system.running_runner(0).stop();
    assert_eq!(
        runner.anonymous().get("/readyz").await.problem(503)["failed"],
        "draining"
    );
    runner.anonymous().get("/healthz").await.expect(200);
    let late = system.submit(&door.job()).await;
    for (path, body) in [
        ("/run", json!({ "job_id": late })),
        ("/run", door.job()),
        ("/tick", json!({})),
    ] {
        let answer = runner.post(path, &body).await;
        answer.problem(503);
        assert!(
            answer.header("retry-after").parse::<u32>().is_ok(),
            "{answer:?}"
        );
    }
    let deferred = system
        .ops
        .post("/trigger_runner", &json!({ "job_id": late }))
        .await
        .expect(202)
        .json();
    assert_eq!(deferred["trigger"]["outcome"], "deferred");
    wait_until("the runner is shown as draining", async || {
        let runners = system.ops.get("/runners").await.expect(200).json();
        (runners["runners"][0]["draining"] == true).then_some(())
    })
    .await;
    door.open();
    system.until(&id, "succeeded").await;
    assert_eq!(system.kinds(&id).await, ["queued", "running", "succeeded"]);
    assert_eq!(system.kinds(&late).await, ["queued"]);
    system.stop().await;
}

#[tokio::test]
async fn a_tick_claims_what_is_due_up_to_the_slots_and_takes_lost_jobs_back() {
    let builder = System::builder()
        .shell("hold", HOLD, "max_attempts = 3")
        .set("RUNNER_CONCURRENCY", "2");
    let system = builder
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0")
        .start()
        .await;
    let (door, runner) = (Door::of(&system), system.runner(0));
    assert_eq!(
        runner.press("/tick").await.expect(200).json(),
        json!({"claimed": 0, "recovered": 0, "fired": 0})
    );
    let future = system
        .submit(&json!({"job_type": "hold", "run_at": "2100-01-01T00:00:00Z"}))
        .await;
    let lost = system
        .submit(&json!({"job_type": "hold", "payload": door.payload(), "max_attempts": 3}))
        .await;
    let uuid: uuid::Uuid = lost.parse().expect("an id");
    let claim = "update ops_jobs set status = 'running', runner_id = 'gone', lease_expires_at = now() - interval '1 second' where id = $1";
    sqlx::query(claim)
        .bind(uuid)
        .execute(&system.database.psql)
        .await
        .expect("claimed by hand");
    let mut ids = vec![lost.clone()];
    for _ in 0..2 {
        ids.push(system.submit(&door.job()).await);
    }
    assert_eq!(
        runner.press("/tick").await.expect(200).json(),
        json!({"claimed": 2, "recovered": 1, "fired": 0})
    );
    assert_eq!(
        runner.post("/tick", &json!({})).await.expect(200).json(),
        json!({"claimed": 0, "recovered": 0, "fired": 0})
    );
    assert_eq!(
        system
            .database
            .count("select count(*) from ops_jobs where status = 'running'")
            .await,
        2
    );
    door.open();
    for id in &ids {
        system.until(id, "succeeded").await;
    }
    assert_eq!(
        system.kinds(&lost).await,
        [
            "queued",
            "running",
            "lease_expired",
            "retry_scheduled",
            "running",
            "succeeded"
        ]
    );
    assert_eq!(system.job(&future).await["status"], "queued");
    system.stop().await;
}

#[tokio::test]
async fn a_step_of_a_tick_that_fails_keeps_no_job_waiting() {
    let builder = System::builder()
        .shell("hello", "true", "")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0");
    let system = builder.start().await;
    let broken = "alter function ops_note_tick rename to ops_note_tick_of_another_release";
    sqlx::raw_sql(broken)
        .execute(&system.database.psql)
        .await
        .expect("a function that the programs miss");
    for door in [&system.ops, &system.runner(0)] {
        let id = system.submit_type("hello").await;
        door.press("/tick").await.problem(503);
        system.until(&id, "succeeded").await;
    }
    system.stop().await;
}

#[tokio::test]
async fn ticks_at_once_take_each_job_once() {
    let builder = System::builder()
        .shell("hello", "true", "")
        .runners(2)
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0");
    let system = builder.set("RUNNER_CONCURRENCY", "8").start().await;
    let mut ids = BTreeSet::new();
    for _ in 0..12 {
        ids.insert(system.submit_type("hello").await);
    }
    let mut ticks = tokio::task::JoinSet::new();
    for number in 0..6 {
        let runner = system.runner(number % 2);
        ticks.spawn(async move { runner.press("/tick").await.expect(200).json() });
    }
    let claimed: u64 = ticks
        .join_all()
        .await
        .iter()
        .filter_map(|answer| answer["claimed"].as_u64())
        .sum();
    assert!(claimed <= 12, "{claimed}");
    for id in &ids {
        system.until(id, "succeeded").await;
        assert_eq!(system.kinds(id).await, ["queued", "running", "succeeded"]);
    }
    system.stop().await;
}

#[tokio::test]
async fn a_job_that_nobody_triggered_is_found_by_the_poll() {
    let system = System::builder().shell("hello", "true", "").start().await;
    let later = system
        .submit(&json!({"job_type": "hello", "run_at": "2100-01-01T00:00:00Z"}))
        .await;
    system
        .run_until(&json!({"job_type": "hello"}), "succeeded")
        .await;
    assert_eq!(system.job(&later).await["status"], "queued");
    system.stop().await;
}

#[tokio::test]
async fn a_type_with_a_limit_never_runs_more_at_once_over_the_fleet() {
    let builder = System::builder().shell(
        "alone",
        "mkdir \"$HOME/alone\" && sleep 0.2 && rmdir \"$HOME/alone\"",
        "concurrency = 1",
    );
    let home = tempfile::tempdir().expect("a folder");
    let system = builder
        .set("HOME", &home.path().display().to_string())
        .runners(2)
        .start()
        .await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(system.submit_type("alone").await);
    }
    for id in &ids {
        system.until(id, "succeeded").await;
    }
    system.stop().await;
}

/// A trigger holds the only slot while a look finds none, and then does not need it; whether that came about.
async fn a_look_in_vain(system: &System) -> bool {
    let triggered = system.submit_type("work").await;
    // The claim takes a slot of the type, and waits here; nothing that keeps the house does.
    let mut lock = system.database.psql.begin().await.expect("a transaction");
    sqlx::query("lock table ops_slots in access exclusive mode")
        .execute(&mut *lock)
        .await
        .expect("the lock");
    let (runner, body) = (system.runner(0), json!({"job_id": triggered}));
    let mut asking = JoinSet::new();
    asking.spawn(async move { runner.post("/run", &body).await.status });
    wait_until("the claim is under way", async || {
        let waiting = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock' and query like '%ops_slots%'";
        (system.database.count(waiting).await > 0).then_some(())
    })
    .await;
    system.abort(&triggered).await.expect(202);
    let waiting = system.submit_type("work").await;
    let tick = system.runner(0).press("/tick").await.expect(200).json();
    assert_eq!(tick["claimed"], 0, "{tick}");
    lock.rollback().await.expect("unlocked");
    let status = asking.join_next().await.expect("one").expect("an answer");
    assert_ne!(status, 202);
    if status == 503 {
        // The claim has not waited so long, on a busy machine.
        system.runner(0).press("/tick").await.expect(200);
    }
    // Nobody polls, nobody listens, and nobody asks again.
    system.until(&waiting, "succeeded").await;
    status != 503
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_a_trigger_did_not_need_is_given_to_what_was_found_waiting() {
    let system = System::builder()
        .shell("work", "true", "concurrency = 4")
        .set("RUNNER_CONCURRENCY", "1")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "0")
        .start()
        .await;
    let mut came_about = false;
    for _ in 0..10 {
        came_about = a_look_in_vain(&system).await;
        if came_about {
            break;
        }
    }
    assert!(came_about);
    system.stop().await;
}
