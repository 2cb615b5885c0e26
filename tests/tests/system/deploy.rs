//! A deploy under load: every program is replaced, one after the other, and no caller and no job notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tests::{API_KEY, Balancer, Client, Program, RUNNER_TOKEN, Start, System, wait_until};
use tokio::task::JoinSet;

const ROUNDS: usize = 2;

/// What the callers of a deploy saw.
#[derive(Debug, Default)]
struct Seen {
    jobs: u64,
    failures: Vec<String>,
}

/// Records and triggers jobs, short and long ones, until told to stop.
async fn call(client: Client, stop: Arc<AtomicBool>, worker: usize) -> Seen {
    let mut seen = Seen::default();
    let mut number = worker;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let job_type = if number.is_multiple_of(12) {
            "long"
        } else {
            "short"
        };
        let path = if number.is_multiple_of(3) {
            "/trigger_runner"
        } else {
            "/jobs"
        };
        let body = json!({ "job_type": job_type, "max_attempts": 1 });
        match client.call("POST", path).json(&body).try_send().await {
            Ok(answer) if [201, 202].contains(&answer.status) => seen.jobs += 1,
            Ok(answer) => seen.failures.push(format!("{path}: {answer:?}")),
            Err(error) => seen.failures.push(format!("{path}: {error:?}")),
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    seen
}

pub(crate) async fn replaced(
    old: Program,
    start: Start,
    balancer: &Balancer,
    place: usize,
) -> Program {
    old.terminate();
    let mut old = old;
    assert_eq!(old.exit_code().await, 0, "{}", old.stdout());
    let (program, _) = seated(start, balancer, place).await;
    program
}

pub(crate) async fn seated(
    start: Start,
    balancer: &Balancer,
    place: usize,
) -> (Program, SocketAddr) {
    let mut program = start.start();
    let address = program.address().await;
    balancer.seat(place, address);
    wait_until("the balancer takes the program", async || {
        balancer.takes(place).then_some(())
    })
    .await;
    (program, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_program_is_replaced_under_load_and_no_caller_and_no_job_notices() {
    let system = System::builder()
        .control_planes(0)
        .runners(0)
        .shell("short", "true", "")
        .shell("long", "sleep 2", "")
        .set("RUNNER_DRAIN_SECONDS", "1")
        .set("RUNNER_DRAIN_DELAY_SECONDS", "1")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "1")
        .set("CONTROL_PLANE_DRAIN_DELAY_SECONDS", "1")
        .set("LOG_FORMAT", "json")
        .set("PATH", "/usr/bin:/bin")
        .start()
        .await;
    let runners = Balancer::start(2).await;
    let control_planes = Balancer::start(2).await;
    let runner = |place: usize| {
        let file = system.runner_file().display().to_string();
        let start = Start::of("runner").arguments(&["--config", &file]);
        start
            .environment(system.environment())
            .set("RUNNER_ID", &format!("runner-{place}"))
    };
    let control_plane = |_: usize| {
        let start = Start::of("control-plane").environment(system.environment());
        start.set("RUNNER_URL", &runners.url())
    };
    let mut running_runners = Vec::new();
    let mut running_control_planes = Vec::new();
    for place in 0..2 {
        running_runners.push(seated(runner(place), &runners, place).await.0);
    }
    for place in 0..2 {
        running_control_planes.push(seated(control_plane(place), &control_planes, place).await.0);
    }
    let client = Client::new(&control_planes.url())
        .at("/api/v1/ops")
        .with("x-ops-key", API_KEY);
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for worker in 0..4 {
        callers.spawn(call(client.clone(), Arc::clone(&stop), worker * 3));
    }
    for _ in 0..ROUNDS {
        for place in 0..2 {
            let old = running_control_planes.remove(0);
            let new = replaced(old, control_plane(place), &control_planes, place).await;
            running_control_planes.push(new);
            let old = running_runners.remove(0);
            running_runners.push(replaced(old, runner(place), &runners, place).await);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut seen = Seen::default();
    for one in callers.join_all().await {
        seen.jobs += one.jobs;
        seen.failures.extend(one.failures);
    }
    assert!(
        seen.failures.is_empty(),
        "{} of {}: {:#?}",
        seen.failures.len(),
        seen.jobs,
        seen.failures
    );
    assert!(seen.jobs > 200, "{}", seen.jobs);
    let count = async |query| system.database.count(query).await;
    wait_until("every job has ended", async || {
        let left =
            count("select count(*) from ops_jobs where status in ('queued', 'running')").await;
        (left == 0).then_some(())
    })
    .await;
    assert_eq!(
        count("select count(*) from ops_jobs where status <> 'succeeded'").await,
        0
    );
    assert_eq!(
        count("select count(*) from ops_jobs where attempt <> 1").await,
        0,
        "a deploy used up attempts"
    );
    assert_eq!(
        count("select count(*) from ops_jobs").await,
        i64::try_from(seen.jobs).expect("a count")
    );
    assert_eq!(
        count("select count(*) from ops_job_events where kind = 'lease_expired'").await,
        0
    );
    let released = count("select count(*) from ops_job_events where kind = 'released'").await;
    assert!(
        released > 0,
        "no job was under way while its runner was replaced"
    );
    println!(
        "{} jobs, {released} handed back, {} programs replaced",
        seen.jobs,
        ROUNDS * 4
    );
    for program in running_control_planes
        .iter_mut()
        .chain(&mut running_runners)
    {
        program.terminate();
    }
    for mut program in running_control_planes.into_iter().chain(running_runners) {
        assert_eq!(program.exit_code().await, 0);
    }
    system.stop().await;
}

#[tokio::test]
async fn a_control_plane_that_is_stopping_still_serves_until_balancers_have_noticed() {
    let system = System::builder().control_planes(0).runners(0).start().await;
    let start = Start::of("control-plane").environment(system.environment());
    let mut program = start
        .set("LOG_FORMAT", "json")
        .set("CONTROL_PLANE_DRAIN_DELAY_SECONDS", "120")
        .start();
    let client = Client::new(&format!("http://{}", program.address().await));
    client.get("/readyz").await.expect(200);
    program.terminate();
    wait_until("it is not ready any more", async || {
        let answer = client.get("/readyz").await;
        (answer.status == 503).then(|| assert_eq!(answer.problem(503)["failed"], "draining"))
    })
    .await;
    client.get("/healthz").await.expect(200);
    let ops = client.at("/api/v1/ops").with("x-ops-key", API_KEY);
    let made = ops
        .post("/jobs", &json!({"job_type": "a"}))
        .await
        .expect(201);
    assert_eq!(
        made.header("connection"),
        "close",
        "the next request goes elsewhere"
    );
    // A second signal waits for nobody.
    program.terminate();
    assert_eq!(program.exit_code().await, 0);
    system.stop().await;
}

#[tokio::test]
async fn a_runner_that_is_stopping_still_answers_until_balancers_have_noticed() {
    let system = System::builder()
        .control_planes(0)
        .runners(0)
        .shell("short", "true", "")
        .start()
        .await;
    let file = system.runner_file().display().to_string();
    let start = Start::of("runner").arguments(&["--config", &file]);
    let mut program = start
        .environment(system.environment())
        .set("LOG_FORMAT", "json")
        .set("PATH", "/usr/bin:/bin")
        .set("RUNNER_DRAIN_DELAY_SECONDS", "120")
        .start();
    let client = Client::new(&format!("http://{}", program.address().await));
    wait_until("it is ready", async || {
        (client.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    program.terminate();
    wait_until("it is not ready any more", async || {
        let answer = client.get("/readyz").await;
        (answer.status == 503).then(|| assert_eq!(answer.problem(503)["failed"], "draining"))
    })
    .await;
    // It has no job, so that nothing but the delay keeps it.
    wait_until("it drains", async || {
        (!program.logged("draining").is_empty()).then_some(())
    })
    .await;
    let cron = client.with("x-runner-token", RUNNER_TOKEN);
    let refused = cron.post("/run", &json!({"job_type": "short"})).await;
    assert_eq!(refused.header("connection"), "close");
    assert_eq!(refused.problem(503)["title"], "Draining");
    // A second signal waits for nobody.
    program.terminate();
    assert_eq!(program.exit_code().await, 0);
    system.stop().await;
}
