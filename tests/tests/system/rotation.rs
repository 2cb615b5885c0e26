//! Keys and tokens are replaced under load, one program after the other, and no caller and no job notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use tests::{API_KEY, Balancer, Client, Program, RUNNER_TOKEN, Start, System, wait_until};
use tokio::task::JoinSet;

use crate::deploy::{replaced, seated};

const NEW_KEY: &str = "opsk_of_the_system_tests_2";
const NEW_TOKEN: &str = "opsr_of_the_system_tests_2";

/// What callers show, until they are told to show another.
type Key = Arc<Mutex<&'static str>>;

fn shown(key: &Key) -> &'static str {
    *key.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records, triggers and lists jobs until told to stop; retries nothing. Gives how many answers there were, and the wrong ones.
async fn call(
    client: Client,
    key: Key,
    stop: Arc<AtomicBool>,
    worker: usize,
) -> (u64, Vec<String>) {
    let (mut answers, mut failures) = (0, Vec::new());
    let mut number = worker;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let client = client.with("x-ops-key", shown(&key));
        let body = json!({"job_type": "short"});
        let call = match number % 3 {
            0 => client.call("POST", "/trigger_runner").json(&body),
            1 => client.call("POST", "/jobs").json(&body),
            _ => client.call("GET", "/jobs?limit=1"),
        };
        match call.try_send().await {
            Ok(answer) if answer.status < 300 => answers += 1,
            Ok(answer) => failures.push(format!("{answer:?}")),
            Err(error) => failures.push(format!("{error:?}")),
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    (answers, failures)
}

/// Both programs of a kind, and the balancer before them.
struct Pair<'a> {
    balancer: &'a Balancer,
    programs: Vec<Program>,
}

impl<'a> Pair<'a> {
    async fn start(balancer: &'a Balancer, start: impl Fn(usize) -> Start) -> Self {
        let mut programs = Vec::new();
        for place in 0..2 {
            programs.push(seated(start(place), balancer, place).await.0);
        }
        Self { balancer, programs }
    }

    /// One after the other.
    async fn replace(&mut self, start: impl Fn(usize) -> Start) {
        for place in 0..2 {
            let old = self.programs.remove(0);
            let new = replaced(old, start(place), self.balancer, place).await;
            self.programs.push(new);
        }
    }

    async fn addresses(&mut self) -> Vec<String> {
        let mut addresses = Vec::new();
        for program in &mut self.programs {
            addresses.push(format!("http://{}", program.address().await));
        }
        addresses
    }

    async fn stop(self) {
        for mut program in self.programs {
            program.terminate();
            assert_eq!(program.exit_code().await, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_and_token_is_replaced_under_load_in_rolling_steps_without_a_failed_request() {
    let system = System::builder()
        .control_planes(0)
        .runners(0)
        .shell("short", "true", "")
        .set("RUNNER_DRAIN_SECONDS", "1")
        .set("RUNNER_DRAIN_DELAY_SECONDS", "1")
        .set("CONTROL_PLANE_DRAIN_DELAY_SECONDS", "1")
        .set("LOG_FORMAT", "json")
        .set("PATH", "/usr/bin:/bin")
        .start()
        .await;
    let file = system.runner_file().display().to_string();
    let runners = Balancer::start(2).await;
    let control_planes = Balancer::start(2).await;
    let runner = |tokens: &'static str| {
        let (file, environment) = (file.clone(), system.environment());
        move |place: usize| {
            let start = Start::of("runner").arguments(&["--config", &file]);
            let start = start.environment(environment.clone());
            start
                .set("RUNNER_ID", &format!("runner-{place}"))
                .set("RUNNER_TOKEN", tokens)
        }
    };
    let control_plane = |keys: &'static str, token: &'static str| {
        let (url, environment) = (runners.url(), system.environment());
        move |_: usize| {
            let start = Start::of("control-plane").environment(environment.clone());
            start
                .set("RUNNER_URL", &url)
                .set("OPS_API_KEY", keys)
                .set("RUNNER_TOKEN_OUTBOUND", token)
        }
    };
    let both_keys = "opsk_of_the_system_tests_1,opsk_of_the_system_tests_2";
    let both_tokens = "opsr_of_the_system_tests_1,opsr_of_the_system_tests_2";
    let mut working = Pair::start(&runners, runner(RUNNER_TOKEN)).await;
    let mut serving = Pair::start(&control_planes, control_plane(API_KEY, RUNNER_TOKEN)).await;
    let key: Key = Arc::new(Mutex::new(API_KEY));
    let stop = Arc::new(AtomicBool::new(false));
    let client = Client::new(&control_planes.url()).at("/api/v1/ops");
    let mut callers = JoinSet::new();
    for worker in 0..4 {
        callers.spawn(call(
            client.clone(),
            Arc::clone(&key),
            Arc::clone(&stop),
            worker,
        ));
    }
    // Whoever receives takes both before whoever sends has the new one.
    working.replace(runner(both_tokens)).await;
    serving
        .replace(control_plane(both_keys, RUNNER_TOKEN))
        .await;
    *key.lock().expect("unpoisoned") = NEW_KEY;
    serving.replace(control_plane(NEW_KEY, NEW_TOKEN)).await;
    working.replace(runner(NEW_TOKEN)).await;
    let before = system.database.count("select count(*) from ops_jobs").await;
    wait_until("there is load on what is new", async || {
        let now = system.database.count("select count(*) from ops_jobs").await;
        (now > before + 20).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let (mut answers, mut failures) = (0, Vec::new());
    for (answered, failed) in callers.join_all().await {
        answers += answered;
        failures.extend(failed);
    }
    assert!(
        failures.is_empty(),
        "{} of {answers}: {failures:#?}",
        failures.len()
    );
    assert!(answers > 200, "{answers}");
    println!("{answers} requests, none failed, 8 programs replaced");
    for address in serving.addresses().await {
        let client = Client::new(&address).at("/api/ops");
        let old = client.with("x-ops-key", API_KEY).get("/jobs").await;
        assert_eq!(old.problem(401)["detail"], "Invalid or missing X-Ops-Key");
        client
            .with("x-ops-key", NEW_KEY)
            .get("/jobs")
            .await
            .expect(200);
    }
    for address in working.addresses().await {
        let client = Client::new(&address);
        let old = client
            .with("x-runner-token", RUNNER_TOKEN)
            .get("/v1/meta")
            .await;
        assert_eq!(
            old.problem(401)["detail"],
            "Invalid or missing X-Runner-Token"
        );
        client
            .with("x-runner-token", NEW_TOKEN)
            .get("/v1/meta")
            .await
            .expect(200);
    }
    serving.stop().await;
    working.stop().await;
    system.stop().await;
}
