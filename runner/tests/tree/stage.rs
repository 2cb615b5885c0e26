//! A database, the program `runner` on it, and commands that try to get away.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jobs::{Job, NewJob, Status, Store, StoreOptions};
use local_postgres::testing::TestDatabase;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

/// Two children: one in a session of its own that ignores termination, and its own grandchild in yet another.
const ESCAPE: &str = r#"
setsid sh -c 'trap "" TERM; (setsid sh -c "echo > $HOME/$OPS_JOB_ID; exec sleep 600" &); while :; do sleep 0.1; done' \
    < /dev/null > /dev/null 2>&1 &
while ! test -e $HOME/$OPS_JOB_ID; do sleep 0.01; done
"#;

/// Each more than one of `bombs::BOMB_LIMITS` allows.
const FORKS: &str = "while :; do sleep 600 & done";
const EATS: &str = "exec awk 'BEGIN { s = \"0123456789abcdef\"; while (1) s = s s }'";
const FILLS: &str = "exec head -c 4194304 /dev/zero > large";
/// More than a small work folder has.
const OVERFLOWS: &str = "head -c 33554432 /dev/zero > large";

const LIMITED: &str = r#"
for fd in /proc/$$/fd/*; do test -e $fd && test ${fd##*/} -lt 10 && printf '%s ' ${fd##*/}; done > files
umask=$(umask); open=$(cat files)
printf '{"data": "%s", "files": "%s", "file": "%s", "core": "%s", "mask": "%s", "oom": "%s", "locked": "%s", "open": "%s"}' \
    $(ulimit -d) $(ulimit -n) $(($(ulimit -f) / 2)) $(ulimit -c) $umask $(cat /proc/$$/oom_score_adj) $(sed -n "s/^NoNewPrivs:\t//p" /proc/$$/status) "${open% }" \
    > $OPS_RESULT_FILE
"#;

/// Waits for a condition, not for ever.
pub(crate) async fn wait_until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(60), wait).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("a /proc to look at");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn has(pid: i32, file: &str, text: &str) -> bool {
    // Who has ended meanwhile has nothing any more.
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// Everybody who works for a job.
pub(crate) fn family_of(id: Uuid) -> Vec<i32> {
    let mark = format!("OPS_JOB_ID={id}");
    processes()
        .filter(|pid| has(*pid, "environ", &mark))
        .collect()
}

/// Who watches over a job's command: a parent of its family.
pub(crate) fn shim_of(id: Uuid) -> Option<i32> {
    let mut parents = family_of(id).into_iter().filter_map(parent_of);
    parents.find(|pid| is_shim(*pid))
}

pub(crate) fn is_shim(pid: i32) -> bool {
    has(pid, "cmdline", "exec-shim")
}

/// What /proc says behind the name of a process: its state, its parent and more.
fn fields_of(pid: i32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_ascii_whitespace().map(str::to_owned).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    fields_of(pid).get(1)?.parse().ok()
}

pub(crate) fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("killed");
}

/// A migrated database, settings and a folder.
pub(crate) struct Stage {
    pub(crate) store: Store,
    database: TestDatabase,
    folder: TempDir,
}

impl Stage {
    /// With job types that all have these terms beside their command.
    pub(crate) async fn new(terms: &str) -> Self {
        let key = format!("jobs_{}", jobs::schema_fingerprint());
        let database = local_postgres::testing::database(&key, async |url| {
            let store = Store::new(&StoreOptions::new(url, 1, "test"))?;
            store.migrate().await?;
            store.close().await;
            Ok(())
        })
        .await
        .expect("a test database");
        let store = Store::new(&StoreOptions::new(database.url.clone(), 4, "test"));
        let stage = Self {
            store: store.expect("a store"),
            database,
            folder: tempfile::tempdir().expect("a folder"),
        };
        let types = [
            ("quick", "exit 0".to_owned()),
            ("leaves", format!("{ESCAPE}exit 0")),
            (
                "stays",
                format!("trap '' TERM\n{ESCAPE}while :; do sleep 0.1; done"),
            ),
            ("limited", LIMITED.to_owned()),
            ("forks", FORKS.to_owned()),
            ("eats", EATS.to_owned()),
            ("fills", FILLS.to_owned()),
            ("overflows", OVERFLOWS.to_owned()),
        ];
        let tables = types.map(|(name, script)| {
            format!("[job_types.{name}]\ncommand = [\"sh\", \"-c\", '''{script}''']\n{terms}\n")
        });
        fs::write(stage.path("runner.toml"), tables.concat()).expect("a settings file");
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a runner and waits until it serves.
    pub(crate) async fn runner(&self, settings: &[(&str, &str)]) -> Runner {
        let log = self.path(&format!(
            "log-{}",
            fs::read_dir(self.folder.path()).expect("a folder").count()
        ));
        let child = self
            .program(settings)
            .stdout(File::create(&log).expect("a file"))
            .spawn()
            .expect("started");
        wait_until("the runner serves", async || {
            let text = fs::read_to_string(&log).expect("a log");
            text.contains("\"started\"").then_some(())
        })
        .await;
        Runner(child)
    }

    /// What a runner says on stderr that must not start with these settings.
    pub(crate) fn refused(&self, settings: &[(&str, &str)]) -> String {
        let ended = self.program(settings).output().expect("its end");
        assert_eq!(ended.status.code(), Some(2));
        String::from_utf8_lossy(&ended.stderr).into_owned()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test of the program as a process"
    )]
    fn program(&self, settings: &[(&str, &str)]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_runner"));
        program
            .arg("--config")
            .arg(self.path("runner.toml"))
            .env_clear()
            .env("APP_ENV", "test")
            .env("DATABASE_URL", &self.database.url)
            .env("RUNNER_TOKEN", "opsr_of_these_tests_0123456789")
            .env("RUNNER_BIND", "127.0.0.1:0")
            .env("RUNNER_WORK_DIR", self.path("work"))
            .env(
                "RUNNER_ALLOWLIST",
                "quick,leaves,stays,limited,forks,eats,fills,overflows",
            )
            .env("RUNNER_POLL_INTERVAL_SECONDS", "1")
            .env("RUNNER_DRAIN_SECONDS", "0")
            .env("DATABASE_MAX_CONNECTIONS", "3")
            .env("HOME", self.folder.path())
            .envs(settings.iter().copied())
            .stdin(Stdio::null());
        program
    }

    pub(crate) async fn submit(&self, job_type: &str) -> Uuid {
        let new = NewJob::new(job_type.parse().expect("a name"), json!({}));
        let submitted = self.store.submit(new, "key:test").await;
        submitted.expect("recorded").into_job().id
    }

    pub(crate) async fn until(&self, id: Uuid, status: Status) -> Job {
        wait_until(&format!("job {id} is {status:?}"), async || {
            let job = self.store.get(id).await.expect("an answer").expect("a job");
            (job.status == status).then_some(job)
        })
        .await
    }

    /// Takes back what lost runners had; gives how many.
    pub(crate) async fn sweep(&self) -> u64 {
        self.store.sweep("test").await.expect("swept").recovered
    }

    /// Whether a runner's log has a line of this event.
    pub(crate) fn logged(&self, event: &str) -> bool {
        let entries = fs::read_dir(self.folder.path()).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry"))
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("log-"))
            .any(|entry| {
                let text = fs::read_to_string(entry.path()).expect("a log");
                text.contains(&format!("\"event\":\"{event}\""))
            })
    }

    /// The kinds of a job's events.
    pub(crate) async fn kinds(&self, id: Uuid) -> Vec<String> {
        let events = self.store.events(id, 0, 100).await.expect("events");
        events.into_iter().map(|event| event.kind).collect()
    }

    /// Whether somebody has left the command's session.
    pub(crate) fn escaped(&self, id: Uuid) -> bool {
        self.path(&id.to_string()).exists()
    }

    pub(crate) async fn until_escaped(&self, id: Uuid) {
        wait_until("somebody has left", async || self.escaped(id).then_some(())).await;
    }

    /// How many boots have a folder.
    pub(crate) fn boots(&self) -> usize {
        let entries = fs::read_dir(self.path("work")).expect("the work folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("ops-runner-"))
            .count()
    }
}

/// A runner that runs; killed when this value goes.
pub(crate) struct Runner(Child);

impl Runner {
    pub(crate) fn id(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a pid")
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("its end");
    }

    /// Asks it to end, and waits.
    pub(crate) async fn end(mut self) {
        kill(self.id(), Signal::TERM);
        let status = wait_until("the runner ends", async || {
            self.0.try_wait().expect("a status")
        })
        .await;
        assert!(status.success(), "{status}");
    }

    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id()))
            .expect("its files")
            .count()
    }

    /// Its children, dead ones too.
    pub(crate) fn children(&self) -> Vec<i32> {
        processes()
            .filter(|pid| parent_of(*pid) == Some(self.id()))
            .collect()
    }

    /// Its shims, at work or at rest.
    pub(crate) fn shims(&self) -> Vec<i32> {
        let mut shims = self.children();
        shims.retain(|pid| is_shim(*pid));
        shims
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
