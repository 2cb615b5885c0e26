//! Hosts whose clocks are wrong: what is due is said by the database's clock alone.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{API_KEY, Client, Program, RUNNER_TOKEN, Start, System, wait_until};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinSet;

/// Seconds by which the clocks of five runners are off, and those of two control planes.
const RUNNERS: [i32; 5] = [-300, -150, 1, 150, 300];
const CONTROL_PLANES: [i32; 2] = [-300, 300];

/// Fifty calls a second, from before the instant until well after it.
const CALLS: u32 = 300;
const BETWEEN_CALLS: Duration = Duration::from_millis(20);
const BEFORE: Duration = Duration::from_secs(3);

/// A program under a clock of its own, and a client of it.
struct Skewed {
    client: Client,
    program: Program,
}

async fn runner(system: &System, off_by: i32) -> Skewed {
    let start = Start::of("runner")
        .environment(system.environment())
        .arguments(&["--config", &system.runner_file().display().to_string()])
        .set("RUNNER_ID", &format!("off-by{off_by:+}"))
        .set(
            "RUNNER_WORK_DIR",
            &system
                .folder()
                .join(format!("work{off_by:+}"))
                .display()
                .to_string(),
        )
        .set("RUNNER_POLL_INTERVAL_SECONDS", "1");
    let (program, url) = started(system, start, off_by).await;
    let client = Client::new(&url).with("x-runner-token", RUNNER_TOKEN);
    Skewed { client, program }
}

async fn control_plane(system: &System, off_by: i32) -> Skewed {
    let start = Start::of("control-plane").environment(system.environment());
    let (program, url) = started(system, start, off_by).await;
    let client = Client::new(&url)
        .at("/api/v1/ops")
        .with("x-ops-key", API_KEY);
    Skewed { client, program }
}

/// A clock that were right after all would prove nothing: the program's own log says how far it is off.
async fn started(system: &System, start: Start, off_by: i32) -> (Program, String) {
    let before = database_time(system).await;
    let start = start.set("LOG_FORMAT", "json").clock_off_by(off_by).await;
    let mut program = start.start();
    let address = program.address().await;
    let told = program.logged("started");
    let told = told[0]["timestamp"].as_str().expect("a time");
    let told = OffsetDateTime::parse(told, &Rfc3339).expect("a time");
    let off = told - before - time::Duration::seconds(off_by.into());
    assert!(
        off.unsigned_abs() < Duration::from_secs(60),
        "asked for {off_by} s, and the log says {told} at {before}"
    );
    (program, format!("http://{address}"))
}

async fn database_time(system: &System) -> OffsetDateTime {
    sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(&system.database.psql)
        .await
        .expect("the time")
}

/// How long it is until the instant, by the database's clock.
async fn until(system: &System, instant: OffsetDateTime) -> Duration {
    let left = instant - database_time(system).await;
    left.try_into().unwrap_or_default()
}

/// What every call was answered: by each program, how many ticks were done, and how many jobs they fired.
async fn tick_around(clients: &[Client]) -> (Vec<u64>, u64) {
    let mut calls = JoinSet::new();
    let mut pace = tokio::time::interval(BETWEEN_CALLS);
    for (number, client) in (0..CALLS).zip(clients.iter().cycle()) {
        pace.tick().await;
        let client = client.clone();
        let which = number as usize % clients.len();
        calls.spawn(async move { (which, client.press("/tick").await) });
    }
    let (mut done, mut fired) = (vec![0; clients.len()], 0);
    for (which, answer) in calls.join_all().await {
        if answer.status == 503 {
            continue;
        }
        done[which] += 1;
        fired += answer.expect(200).json()["fired"]
            .as_u64()
            .expect("a count");
    }
    (done, fired)
}

#[tokio::test(flavor = "multi_thread")]
async fn five_runners_and_fifty_ticks_a_second_under_wrong_clocks_make_one_job_of_an_instant() {
    let system = System::builder()
        .set("SCHEDULES_ENABLED", "1")
        .shell("work", "cat", "")
        .runners(0)
        .control_planes(0)
        .start()
        .await;
    let mut fleet = Vec::new();
    for off_by in CONTROL_PLANES {
        fleet.push(control_plane(&system, off_by).await);
    }
    for off_by in RUNNERS {
        fleet.push(runner(&system, off_by).await);
    }
    let clients: Vec<_> = fleet.iter().map(|one| one.client.clone()).collect();
    let made = json!({ "name": "minutely", "cron": "* * * * *", "job_type": "work" });
    let made = clients[0]
        .post("/schedules", &made)
        .await
        .expect(201)
        .json();
    let instant = made["next_fire_at"].as_str().expect("an instant");
    let instant = OffsetDateTime::parse(instant, &Rfc3339).expect("a time");
    assert!(until(&system, instant).await <= Duration::from_secs(60));

    let wait = until(&system, instant).await.saturating_sub(BEFORE);
    tokio::time::sleep(wait).await;
    let (done, fired) = tick_around(&clients).await;
    assert!(done.iter().all(|&ticks| ticks > 0), "{done:?}");

    let of_instant = async || -> Vec<Value> {
        let page = clients[1].get("/schedules/minutely/fires").await;
        let fires = page.expect(200).json()["fires"].clone();
        let fires = fires.as_array().cloned().expect("a list");
        let at = |fire: &Value| {
            OffsetDateTime::parse(fire["instant"].as_str().expect("a time"), &Rfc3339)
                .expect("a time")
        };
        fires
            .into_iter()
            .filter(|fire| at(fire) == instant)
            .collect()
    };
    let job = wait_until("the instant's job has ended", async || {
        let fires = of_instant().await;
        let id = fires.first()?["job_id"].as_str()?.to_owned();
        let job = clients[0]
            .get(&format!("/jobs/{id}"))
            .await
            .expect(200)
            .json();
        (job["status"] == "succeeded").then_some(job)
    })
    .await;
    assert_eq!(of_instant().await.len(), 1);
    assert_eq!(job["created_by"], "schedule:minutely");
    let created = OffsetDateTime::parse(job["created_at"].as_str().expect("a time"), &Rfc3339);
    assert!(created.expect("a time") >= instant, "{job}");
    let early = "select count(*) from ops_jobs where created_at < $1";
    let early: i64 = sqlx::query_scalar(early)
        .bind(instant)
        .fetch_one(&system.database.psql)
        .await
        .expect("a count");
    assert_eq!(early, 0, "a fast clock must not fire early");
    // A slow machine may come as far as the next instant.
    let jobs = system.database.count("select count(*) from ops_jobs").await;
    let distinct = "select count(distinct instant) from ops_schedule_fires where outcome = 'fired'";
    assert_eq!(system.database.count(distinct).await, jobs);
    assert!(fired <= u64::try_from(jobs).expect("a count"));
    for skewed in &mut fleet {
        skewed.program.terminate();
        assert_eq!(skewed.program.exit_code().await, 0);
    }
    system.stop().await;
}
