//! Prints how soon hostile process trees are dead after their grace, and how much a runner grows while a job floods its
//! output. `cargo run -p runner --release --example limits -- [JOBS] [GIB] [FLOOD …]`, 120 jobs, 10 GiB and every flood (yes,
//! zero, random, line) when nothing is said.
//! Ends with 1 when a figure is beyond its bound. The program is its own runner, in a process of its own.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for a person at a terminal, which starts a runner and looks at the clock from outside"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use jobs::{NewJob, Status, Store, StoreOptions};
use serde_json::json;
use uuid::Uuid;

const GRACE: Duration = Duration::from_secs(2);
const LATEST: Duration = Duration::from_secs(1);
const MOST_GROWTH_KIB: u64 = 32 * 1024;
const AT_ONCE: usize = 12;

/// Ignores termination, but notes when it came; its children are in sessions of their own and ignore it too.
const HOSTILE: &str = r#"
trap ': > $HOME/$OPS_JOB_ID.term' TERM
setsid sh -c 'trap "" TERM
  (setsid sh -c "trap \"\" TERM; : > $HOME/$OPS_JOB_ID.out; while :; do sleep 1; done" &)
  while :; do sleep 1; done' < /dev/null > /dev/null 2>&1 &
while ! test -e $HOME/$OPS_JOB_ID.out; do sleep 0.02; done
while :; do sleep 1; done
"#;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if matches!(
        arguments.first().map(String::as_str),
        Some("exec-shim" | "--config")
    ) {
        return runner::Runner::builder().run();
    }
    let number = |place: usize, usual| match arguments.get(place) {
        Some(text) => text.parse().expect("JOBS and GIB are whole numbers"),
        None => usual,
    };
    let jobs = usize::try_from(number(0, 120)).expect("a number of jobs");
    let gib: u64 = number(1, 10);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let holds = runtime.block_on(async {
        let stage = Stage::new(gib).await;
        let in_time = jobs == 0 || stage.kill_trees(jobs).await;
        let in_bounds = stage
            .flood(gib, arguments.get(2..).unwrap_or_default())
            .await;
        in_time && in_bounds
    });
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

struct Stage {
    store: Store,
    folder: tempfile::TempDir,
    runner: Child,
    _database: local_postgres::testing::TestDatabase,
}

impl Stage {
    async fn new(gib: u64) -> Self {
        let key = format!("jobs_{}", jobs::schema_fingerprint());
        let database = local_postgres::testing::database(&key, async |url| {
            let store = Store::new(&StoreOptions::new(url, 1, "limits"))?;
            store.migrate().await?;
            store.close().await;
            Ok(())
        })
        .await
        .expect("a database");
        let store = Store::new(&StoreOptions::new(database.url.clone(), 4, "limits"));
        let folder = tempfile::tempdir().expect("a folder");
        let bytes = gib << 30;
        let types = [
            ("aborted", HOSTILE.to_owned(), ""),
            ("overdue", HOSTILE.to_owned(), "timeout_seconds = 2"),
            ("warm", "yes | head -c 16777216".to_owned(), ""),
            ("yes", format!("yes | head -c {bytes}"), ""),
            ("zero", format!("head -c {bytes} /dev/zero"), ""),
            ("random", format!("head -c {bytes} /dev/urandom"), ""),
            (
                "line",
                "head -c 1073741824 /dev/zero | tr '\\0' x".to_owned(),
                "",
            ),
        ];
        let names: Vec<&str> = types.iter().map(|(name, _, _)| *name).collect();
        let tables = types.iter().map(|(name, script, terms)| {
            format!("[job_types.{name}]\ncommand = [\"sh\", \"-c\", '''{script}''']\n{terms}\n")
        });
        let settings = folder.path().join("runner.toml");
        fs::write(&settings, tables.collect::<String>()).expect("a settings file");
        let log = folder.path().join("log");
        let runner = Command::new("/proc/self/exe")
            .arg("--config")
            .arg(&settings)
            .env_clear()
            .env("APP_ENV", "test")
            .env("DATABASE_URL", &database.url)
            .env("RUNNER_TOKEN", "opsr_of_these_figures_0123456789")
            .env("RUNNER_BIND", "127.0.0.1:0")
            .env("RUNNER_WORK_DIR", folder.path().join("work"))
            .env("RUNNER_ALLOWLIST", names.join(","))
            .env("RUNNER_POLL_INTERVAL_SECONDS", "1")
            .env("RUNNER_CONCURRENCY", AT_ONCE.to_string())
            .env("RUNNER_LEASE_SECONDS", "9")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(File::create(log).expect("a log"))
            .spawn()
            .expect("a runner");
        Self {
            store: store.expect("a store"),
            folder,
            runner,
            _database: database,
        }
    }

    async fn submit(&self, job_type: &str) -> Uuid {
        let new = NewJob::new(job_type.parse().expect("a name"), json!({}));
        let submitted = self.store.submit(new, "limits").await;
        submitted.expect("recorded").into_job().id
    }

    async fn status(&self, id: Uuid) -> Status {
        let job = self.store.get(id).await.expect("an answer");
        job.expect("a job").status
    }

    /// Hostile trees, half of them aborted and half overdue: how long after the grace the last of each is alive.
    async fn kill_trees(&self, jobs: usize) -> bool {
        let mut late = BTreeMap::new();
        while late.len() < jobs {
            let mut waiting = BTreeSet::new();
            for number in 0..AT_ONCE.min(jobs - late.len()) {
                let aborted = number % 2 == 0;
                let id = self
                    .submit(if aborted { "aborted" } else { "overdue" })
                    .await;
                waiting.insert((id, aborted));
            }
            for (id, aborted) in &waiting {
                wait_for(&self.folder.path().join(format!("{id}.out"))).await;
                if *aborted {
                    self.store.abort(*id, "limits", None).await.expect("asked");
                }
            }
            let mut alive: BTreeSet<Uuid> = waiting.iter().map(|(id, _)| *id).collect();
            while !alive.is_empty() {
                let living = at_work();
                let now = SystemTime::now();
                for id in alive.clone().difference(&living) {
                    alive.remove(id);
                    let termed = self.folder.path().join(format!("{id}.term"));
                    let termed = fs::metadata(termed).and_then(|file| file.modified());
                    let grace_ended = termed.expect("it was asked to end first") + GRACE;
                    late.insert(*id, now.duration_since(grace_ended).unwrap_or_default());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let mut figures: Vec<Duration> = late.into_values().collect();
        figures.sort();
        let at = |percent: usize| figures[(figures.len() - 1) * percent / 100].as_millis();
        let most = figures.last().copied().unwrap_or_default();
        println!(
            "trees: {} aborted or overdue, each with double forks, new sessions and ignored SIGTERM; from the end of the grace to the last process: p50 {} ms, p99 {} ms, max {} ms (bound {} ms)",
            figures.len(),
            at(50),
            at(99),
            most.as_millis(),
            LATEST.as_millis()
        );
        most <= LATEST
    }

    /// Jobs that print more than anybody can keep: how much the runner's peak grows.
    async fn flood(&self, gib: u64, chosen: &[String]) -> bool {
        self.finish("warm").await;
        let before = peak_kib(self.runner.id());
        for (name, size) in [("yes", gib), ("zero", gib), ("random", gib), ("line", 1)] {
            if !chosen.is_empty() && !chosen.iter().any(|one| one == name) {
                continue;
            }
            let begun = Instant::now();
            self.finish(name).await;
            let peak = peak_kib(self.runner.id());
            println!(
                "output: {name}, {size} GiB in {:.1} s; the runner's peak is {peak} KiB, {} KiB above before (bound {MOST_GROWTH_KIB} KiB)",
                begun.elapsed().as_secs_f64(),
                peak - before
            );
        }
        peak_kib(self.runner.id()) - before <= MOST_GROWTH_KIB
    }

    async fn finish(&self, job_type: &str) {
        let id = self.submit(job_type).await;
        loop {
            match self.status(id).await {
                Status::Succeeded => return,
                Status::Queued | Status::Running => {}
                Status::Waiting | Status::Failed | Status::Aborted => panic!("{job_type} failed"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.runner.kill();
        let _ = self.runner.wait();
    }
}

async fn wait_for(file: &Path) {
    let begun = Instant::now();
    while !file.exists() {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "waited in vain: {}",
            file.display()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The jobs for which somebody is alive.
fn at_work() -> BTreeSet<Uuid> {
    let entries = fs::read_dir("/proc").expect("a /proc").flatten();
    let environments = entries.filter_map(|entry| fs::read(entry.path().join("environ")).ok());
    environments
        .filter_map(|environment| {
            environment
                .split(|byte| *byte == 0)
                .find_map(|variable| variable.strip_prefix(b"OPS_JOB_ID="))
                .and_then(|id| Uuid::try_parse_ascii(id).ok())
        })
        .collect()
}

fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a runner");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let word = line.and_then(|line| line.split_ascii_whitespace().next());
    word.and_then(|word| word.parse().ok()).expect("a number")
}
