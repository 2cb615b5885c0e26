//! Prints how fast a runner runs `/bin/true`, beside a bare loop that starts and reaps it on the same machine.
//! `cargo run -p runner --release --example spawn -- [JOBS] [SLOTS] [ROUNDS] [RUNNER]`: 2000 jobs, 16 slots, 3 rounds and this
//! program as its own runner when nothing is said; another runner's program may be named, to compare. Rounds of both alternate.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for a person at a terminal, which starts a runner and measures from outside"
)]

use std::fs::{self, File};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use jobs::{NewJob, Status, Store, StoreOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use uuid::Uuid;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if matches!(
        arguments.first().map(String::as_str),
        Some("exec-shim" | "--config")
    ) {
        return runner::Runner::builder().run();
    }
    let number = |place: usize, usual: usize| match arguments.get(place) {
        Some(text) => text
            .parse()
            .expect("JOBS, SLOTS and ROUNDS are whole numbers"),
        None => usual,
    };
    let (jobs, slots, rounds) = (number(0, 2000), number(1, 16), number(2, 3));
    let runner = arguments.get(3).map_or("/proc/self/exe", String::as_str);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(measure(jobs, slots, rounds, runner));
    ExitCode::SUCCESS
}

async fn measure(jobs: usize, slots: usize, rounds: usize, runner: &str) {
    let stage = Stage::new().await;
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let bare = bare(jobs);
        let product = stage.product(jobs, slots, runner).await;
        let ratio = product.rate / bare.rate;
        println!(
            "round {round}: bare {:.0}/s, {:.2} ms CPU each; runner with {slots} slots {:.0}/s, {:.2} ms CPU each; ratio {ratio:.2}",
            bare.rate, bare.cpu_ms, product.rate, product.cpu_ms
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
}

/// What one way of running so many commands came to.
struct Figures {
    rate: f64,
    /// Of the processes that ran them and of the commands; without the database.
    cpu_ms: f64,
}

impl Figures {
    fn of(jobs: usize, took: Duration, cpu: Duration) -> Self {
        let jobs = f64::from(u32::try_from(jobs).expect("fewer jobs"));
        Self {
            rate: jobs / took.as_secs_f64(),
            cpu_ms: cpu.as_secs_f64() * 1000.0 / jobs,
        }
    }
}

/// One after another, as a loop that needs nothing else would.
fn bare(jobs: usize) -> Figures {
    let (begun, cpu) = (Instant::now(), cpu_of_family());
    for _ in 0..jobs {
        let status = Command::new("/bin/true").status().expect("started");
        assert!(status.success());
    }
    Figures::of(jobs, begun.elapsed(), cpu_of_family() - cpu)
}

/// The processor time of this process and of all that it has waited for.
fn cpu_of_family() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("a /proc");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks: u64 = fields
        .split_ascii_whitespace()
        .skip(11)
        .take(4)
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}

struct Stage {
    store: Store,
    folder: tempfile::TempDir,
    database: local_postgres::testing::TestDatabase,
}

impl Stage {
    async fn new() -> Self {
        let key = format!("jobs_{}", jobs::schema_fingerprint());
        let database = local_postgres::testing::database(&key, async |url| {
            let store = Store::new(&StoreOptions::new(url, 1, "spawn"))?;
            store.migrate().await?;
            store.close().await;
            Ok(())
        })
        .await
        .expect("a database");
        let store = Store::new(&StoreOptions::new(database.url.clone(), 4, "spawn"));
        let folder = tempfile::tempdir().expect("a folder");
        let settings = "[job_types.nothing]\ncommand = [\"/bin/true\"]\n";
        fs::write(folder.path().join("runner.toml"), settings).expect("a settings file");
        Self {
            store: store.expect("a store"),
            folder,
            database,
        }
    }

    /// From the first start to the last end, by the database's clock, of jobs that were all there before the runner.
    async fn product(&self, jobs: usize, slots: usize, runner: &str) -> Figures {
        let mut ids = Vec::new();
        for _ in 0..jobs {
            let new = NewJob::new("nothing".parse().expect("a name"), json!({}));
            let submitted = self.store.submit(new, "spawn").await;
            ids.push(submitted.expect("recorded").into_job().id);
        }
        let cpu = cpu_of_family();
        let mut runner = self.start(slots, runner);
        for id in ids.iter().rev() {
            self.until_ended(*id).await;
        }
        end(&mut runner).await;
        let cpu = cpu_of_family() - cpu;
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for id in ids {
            let job = self.store.get(id).await.expect("an answer").expect("a job");
            assert_eq!(job.status, Status::Succeeded, "{job:?}");
            starts.extend(job.started_at);
            ends.extend(job.finished_at);
        }
        let first = starts.into_iter().min().expect("a start");
        let took = ends.into_iter().max().expect("an end") - first;
        Figures::of(jobs, took.try_into().expect("a duration"), cpu)
    }

    fn start(&self, slots: usize, runner: &str) -> Child {
        let log = File::create(self.folder.path().join("log")).expect("a log");
        Command::new(runner)
            .arg("--config")
            .arg(self.folder.path().join("runner.toml"))
            .env_clear()
            .env("APP_ENV", "test")
            .env("DATABASE_URL", &self.database.url)
            .env("RUNNER_TOKEN", "opsr_of_these_figures_0123456789")
            .env("RUNNER_BIND", "127.0.0.1:0")
            .env("RUNNER_ALLOWLIST", "nothing")
            .env("RUNNER_POLL_INTERVAL_SECONDS", "1")
            .env("RUNNER_CONCURRENCY", slots.to_string())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .expect("a runner")
    }

    async fn until_ended(&self, id: Uuid) {
        loop {
            let job = self.store.get(id).await.expect("an answer").expect("a job");
            match job.status {
                Status::Queued | Status::Running => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Status::Waiting | Status::Succeeded | Status::Failed | Status::Aborted => return,
            }
        }
    }
}

/// So that what it had waited for counts as its own.
async fn end(runner: &mut Child) {
    let pid = Pid::from_raw(i32::try_from(runner.id()).expect("a pid")).expect("a pid");
    kill_process(pid, Signal::TERM).expect("asked");
    while runner.try_wait().expect("a status").is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
