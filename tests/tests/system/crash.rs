//! The real programs, killed and asked to end: no job is ever stuck, and none is lost.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tests::{Program, Start, System, end_processes_of};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const LEASE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_secs(1);

/// Stays for ever in its first attempt, and is done at once in any later one.
const STAYS_ONCE: &str = r#"if mkdir "$HOME/been-here-$OPS_JOB_ID"; then exec sleep 600; fi"#;

fn runner(system: &System, id: &str, settings: &[(&str, &str)]) -> Program {
    let work = system
        .folder()
        .join(format!("work-of-{id}"))
        .display()
        .to_string();
    let file = system.runner_file().display().to_string();
    let home = system.folder().display().to_string();
    let mut start = Start::of("runner")
        .environment(system.environment())
        .arguments(&["--config", &file]);
    let lease = LEASE.as_secs().to_string();
    for (name, value) in [
        ("RUNNER_ID", id),
        ("RUNNER_WORK_DIR", &work),
        ("HOME", &home),
        ("RUNNER_LEASE_SECONDS", &lease),
    ] {
        start = start.set(name, value);
    }
    for (name, value) in settings {
        start = start.set(name, value);
    }
    start.start()
}

fn instant(text: &serde_json::Value) -> OffsetDateTime {
    OffsetDateTime::parse(text.as_str().expect("an instant"), &Rfc3339).expect("RFC 3339")
}

/// Kills a runner in the middle of a job while another one lives, and gives the database's instant of the kill.
async fn kill_in_the_middle(system: &System, id: &str) -> (Program, OffsetDateTime) {
    let mut first = runner(system, "first", &[]);
    first.address().await;
    assert_eq!(system.until(id, "running").await["runner_id"], "first");
    let mut second = runner(system, "second", &[]);
    second.address().await;
    first.kill9().await;
    let killed: OffsetDateTime = sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(&system.database.psql)
        .await
        .expect("an instant");
    (second, killed)
}

async fn end(mut program: Program, folder: &Path) {
    program.terminate();
    assert_eq!(program.exit_code().await, 0);
    // What the killed runner had started.
    end_processes_of(folder);
}

#[tokio::test]
async fn a_job_of_a_killed_runner_is_finished_by_another_in_time() {
    let system = System::builder()
        .shell("stay", STAYS_ONCE, "")
        .runners(0)
        .start()
        .await;
    let id = system
        .submit(&json!({"job_type": "stay", "max_attempts": 3}))
        .await;
    let (second, killed) = kill_in_the_middle(&system, &id).await;
    let job = system.until(&id, "succeeded").await;
    let took = instant(&job["finished_at"]) - killed;
    assert!(took <= LEASE + POLL + Duration::from_secs(1), "{took}");
    assert_eq!(
        (&job["attempt"], &job["runner_id"]),
        (&json!(2), &json!("second"))
    );
    assert_eq!(
        system.kinds(&id).await,
        [
            "queued",
            "running",
            "lease_expired",
            "retry_scheduled",
            "running",
            "succeeded"
        ]
    );
    end(second, system.folder()).await;
    system.stop().await;
}

#[tokio::test]
async fn a_job_of_a_killed_runner_that_may_run_once_only_fails_and_names_the_runner() {
    let system = System::builder()
        .shell("stay", STAYS_ONCE, "")
        .runners(0)
        .start()
        .await;
    let id = system.submit_type("stay").await;
    let (second, killed) = kill_in_the_middle(&system, &id).await;
    let job = system.until(&id, "failed").await;
    assert!(
        instant(&job["finished_at"]) - killed <= LEASE + POLL + Duration::from_secs(1),
        "{job}"
    );
    assert!(
        job["error"]
            .as_str()
            .is_some_and(|error| error.contains("runner first was lost")),
        "{job}"
    );
    assert_eq!(
        system.kinds(&id).await,
        [
            "queued",
            "running",
            "lease_expired",
            "failed",
            "dead_lettered"
        ]
    );
    end(second, system.folder()).await;
    system.stop().await;
}

#[tokio::test]
async fn a_runner_that_is_asked_to_end_lets_short_jobs_finish_and_hands_long_ones_back() {
    let builder =
        System::builder()
            .shell("stay", STAYS_ONCE, "")
            .shell("hold", crate::scripts::HOLD, "");
    let system = builder.runners(0).start().await;
    let door = crate::scripts::Door::of(&system);
    let mut first = runner(&system, "first", &[("RUNNER_DRAIN_SECONDS", "3")]);
    first.address().await;
    let (short, long) = (
        system.submit(&door.job()).await,
        system.submit_type("stay").await,
    );
    for id in [&short, &long] {
        assert_eq!(system.until(id, "running").await["runner_id"], "first");
    }
    let mut second = runner(&system, "second", &[]);
    second.address().await;
    first.terminate();
    tests::wait_until("the first runner drains", async || {
        (!first.logged("draining").is_empty()).then_some(())
    })
    .await;
    door.open();
    assert_eq!(
        system.until(&short, "succeeded").await["runner_id"],
        "first"
    );
    let job = system.until(&long, "succeeded").await;
    assert_eq!(
        (&job["runner_id"], &job["attempt"]),
        (&json!("second"), &json!(1)),
        "a released attempt is not counted"
    );
    assert_eq!(
        system.kinds(&long).await,
        ["queued", "running", "released", "running", "succeeded"]
    );
    assert_eq!(first.exit_code().await, 0);
    assert_eq!(first.stderr(), "");
    second.terminate();
    assert_eq!(second.exit_code().await, 0);
    assert!(!system.folder().join("work-of-second").join(&long).exists());
    system.stop().await;
}

#[tokio::test]
async fn a_runner_that_hung_comes_back_too_late_and_changes_nothing() {
    let script = format!("{STAYS_ONCE}\necho '\"of the second\"' > \"$OPS_RESULT_FILE\"");
    let system = System::builder()
        .shell("stay", &script, "")
        .runners(0)
        .start()
        .await;
    let id = system
        .submit(&json!({"job_type": "stay", "max_attempts": 3}))
        .await;
    let mut first = runner(&system, "first", &[]);
    first.address().await;
    assert_eq!(system.until(&id, "running").await["runner_id"], "first");
    let mut second = runner(&system, "second", &[]);
    second.address().await;
    first.freeze();
    let job = system.until(&id, "succeeded").await;
    assert_eq!(
        (&job["runner_id"], &job["result"]),
        (&json!("second"), &json!("of the second"))
    );
    first.thaw();
    tests::wait_until("the late result is refused", async || {
        system
            .kinds(&id)
            .await
            .contains(&"stale_result_refused".to_owned())
            .then_some(())
    })
    .await;
    assert_eq!(system.job(&id).await, job);
    for mut program in [first, second] {
        program.terminate();
        assert_eq!(program.exit_code().await, 0);
    }
    system.stop().await;
}

#[tokio::test]
async fn a_control_plane_that_is_asked_to_end_ends_well() {
    let system = System::builder().runners(0).control_planes(0).start().await;
    let mut program = Start::of("control-plane")
        .environment(system.environment())
        .start();
    let address = program.address().await;
    let client = tests::Client::new(&format!("http://{address}"));
    client.get("/readyz").await.expect(200);
    client
        .at("/api/ops")
        .with("x-ops-key", tests::API_KEY)
        .post("/jobs", &json!({"job_type": "a"}))
        .await
        .expect(201);
    program.terminate();
    assert_eq!(program.exit_code().await, 0);
    assert_eq!(program.stderr(), "");
    for line in program.stdout().lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("one JSON object a line");
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
    }
    system.stop().await;
}

/// Kills its runner: its parent is the shim, and the shim's is the runner.
const KILLS_ITS_RUNNER: &str = r#"kill -9 "$(cut -d ' ' -f 4 "/proc/$PPID/stat")"; exec sleep 600"#;

#[tokio::test]
async fn a_job_that_kills_every_runner_is_given_up_after_three_and_the_others_are_done() {
    let system = System::builder()
        .shell("poison", KILLS_ITS_RUNNER, "")
        .shell("good", "true", "")
        .runners(0)
        .start()
        .await;
    let poison = system
        .submit(&json!({"job_type": "poison", "max_attempts": 50}))
        .await;
    let mut good = Vec::new();
    for _ in 0..5 {
        let body = json!({"job_type": "good", "max_attempts": 3});
        good.push(system.submit(&body).await);
    }
    for _ in 0..3 {
        let mut victim = runner(&system, "victim", &[]);
        victim.is_killed().await;
    }
    let mut survivor = runner(&system, "victim", &[]);
    survivor.address().await;
    let job = system.until(&poison, "failed").await;
    assert_eq!(
        (&job["attempt"], &job["max_attempts"]),
        (&json!(3), &json!(50))
    );
    assert!(job["dead_lettered_at"].is_string(), "{job}");
    let kinds = system.kinds(&poison).await;
    let lost = kinds.iter().filter(|kind| *kind == "lease_expired").count();
    assert_eq!(lost, 3, "{kinds:?}");
    for id in &good {
        system.until(id, "succeeded").await;
    }
    end(survivor, system.folder()).await;
    system.stop().await;
}
