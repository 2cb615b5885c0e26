//! A restored copy under a living system: what was queued and running when the backup was made does not begin by itself.

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tests::{Answer, Start, System, wait_until};

use crate::scripts::{Door, HOLD};

async fn db(system: &System, arguments: &[&str]) -> (Value, String) {
    let folder = system.folder().join("backups");
    let start = Start::of("opsctl")
        .arguments(&["--output", "json", "db"])
        .arguments(arguments)
        .set("DATABASE_URL", &system.database.url)
        .set("BACKUP_DIR", &folder.display().to_string());
    let (code, stdout, stderr) = start.run().await;
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    (serde_json::from_str(&stdout).expect("JSON"), stderr)
}

/// Whether a runner has kept house in the copy.
async fn was_swept(system: &System) -> bool {
    let swept = "select count(*) from ops_sweeps s, ops_fleet f where s.name = 'sweep' and s.ran_at > f.restored_at";
    system.database.count(swept).await == 1
}

/// The answer of somebody whose connections were cut with the database that they led to, and who is asked again until the
/// copy answers.
async fn settled(ask: impl AsyncFn() -> Answer) -> Answer {
    wait_until("an answer out of the copy", async || {
        let answer = ask().await;
        let cut = answer.status == 503 && answer.json()["failed"] == "database";
        (!cut).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn a_restored_copy_starts_nothing_under_living_runners_until_it_is_resumed() {
    let builder = System::builder()
        .shell("hold", HOLD, "max_attempts = 2")
        .shell("hello", "true", "");
    let system = builder
        .set("RUNNER_CONCURRENCY", "1")
        .set("SCHEDULES_ENABLED", "1")
        .start()
        .await;
    let door = Door::of(&system);
    let held = system.submit(&door.job()).await;
    system.until(&held, "running").await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(system.submit_type("hello").await);
    }
    // Nothing is due before it is set back: a job of its own would be one more in the backup, or one more that is lost.
    let schedule = json!({"name": "often", "cron": "0 0 29 2 *", "timezone": "UTC", "job_type": "hello", "catch_up": "all"});
    system.ops.post("/schedules", &schedule).await.expect(201);
    let (backup, _) = db(&system, &["backup"]).await;
    assert_eq!(backup["jobs"], 4);

    // The live system goes on.
    door.open();
    for id in waiting.iter().chain([&held]) {
        system.until(id, "succeeded").await;
    }
    let after = system.submit_type("hello").await;
    system.until(&after, "succeeded").await;
    let used = system
        .database
        .count("select max(fence) from ops_jobs")
        .await;

    let file = backup["file"].as_str().expect("a path");
    let (restored, stderr) = db(&system, &["restore", file, "--yes"]).await;
    assert_eq!(
        (&restored["lost"], &restored["paused"]),
        (&json!(1), &json!(true))
    );
    assert!(stderr.contains("opsctl fleet resume"), "{stderr}");
    // Late by an hour: there is much that would be due.
    sqlx::query(
        "update ops_schedules set cron = '* * * * *', next_fire_at = date_trunc('minute', now()) - interval '1 hour'",
    )
    .execute(&system.database.psql)
    .await
    .expect("set back");
    wait_until("a runner sweeps the copy", async || {
        was_swept(&system).await.then_some(())
    })
    .await;
    let ticked = settled(async || system.ops.press("/tick").await).await;
    let ticked = ticked.expect(200).json();
    assert_eq!(
        (&ticked["fired"], &ticked["triggered"]),
        (&json!(0), &json!(0))
    );
    let runner = system.runner(0);
    let ticked = settled(async || runner.press("/tick").await).await;
    let ticked = ticked.expect(200).json();
    assert_eq!(ticked, json!({"claimed": 0, "recovered": 0, "fired": 0}));
    let run = json!({"job_id": waiting[0]});
    let refused = settled(async || runner.post("/run", &run).await).await;
    let refused = refused.problem(503);
    assert_eq!(refused["paused_by"], "restore");
    let begun = "select count(*) from ops_job_events e, ops_fleet f where e.kind in ('running', 'queued') and e.at > f.restored_at";
    assert_eq!(
        system.database.count(begun).await,
        0,
        "nothing began, and nothing came"
    );
    for id in waiting.iter().chain([&held]) {
        assert_eq!(system.job(id).await["status"], "queued");
    }
    assert_eq!(
        system.kinds(&held).await,
        ["queued", "running", "lease_expired", "retry_scheduled"]
    );

    system.ops.press("/fleet/resume").await.expect(200);
    for id in waiting.iter().chain([&held]) {
        system.until(id, "succeeded").await;
    }
    let lowest = "select min((data ->> 'fence')::bigint) from ops_job_events
      where kind = 'running' and at > (select max(at) from ops_fleet_changes where change = 'resumed')";
    let lowest = system.database.count(lowest).await;
    assert!(lowest > used + 1_000_000, "{lowest} after {used}");

    let aside = restored["kept_as"]
        .as_str()
        .expect("the database of before");
    sqlx::raw_sql(AssertSqlSafe(format!("drop database {aside} with (force)")))
        .execute(&system.database.psql)
        .await
        .expect("dropped");
    system.stop().await;
}
