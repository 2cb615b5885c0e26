//! Secrets stay where they are: in no answer, no log line, no event, no row, no argument list.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use local_postgres::Mode;
use local_postgres::testing::{PrivateCluster, private_cluster};
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Executor, PgPool};
use tempfile::TempDir;
use tests::{Client, Program, Start, command_line, processes_of, rows, wait_until};

const PASSWORD: &str = "canary-database-password";
const KEYS: [&str; 2] = ["canary-ops-key-one", "canary-ops-key-two"];
const TOKENS: [&str; 2] = ["canary-runner-token-one", "canary-runner-token-two"];
const SECRET_KEY: &str = "canary-secret-key-0123456789-0123456789";
const SIGNING_KEY: &str = "canary-webhook-signing-key-0123456789";
const ADDRESS: &str = "canary-runner-address";
const HEADER: &str = "canary-http-header";

/// Everything that was seen, and where.
#[derive(Default)]
struct Seen(Vec<(String, String)>);

impl Seen {
    fn note(&mut self, place: &str, text: String) {
        self.0.push((place.to_owned(), text));
    }

    async fn ask(&mut self, client: &Client, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = client.call(method, path).text(body).send().await;
        self.note(
            &format!("{method} {path}"),
            format!("{:?} {}", answer.headers, answer.body),
        );
        (
            answer.status,
            serde_json::from_str(&answer.body).unwrap_or_default(),
        )
    }

    /// Whether a text was seen at a place.
    fn has(&self, place: &str, text: &str) -> bool {
        self.0
            .iter()
            .any(|(seen, said)| seen == place && said.contains(text))
    }

    fn must_hold_no_canary(&self) {
        for (place, text) in &self.0 {
            if let Some(needle) = needles()
                .iter()
                .find(|needle| text.contains(needle.as_str()))
            {
                let line = text.lines().find(|line| line.contains(needle.as_str()));
                panic!("{needle} stands in {place}: {line:?}");
            }
        }
    }
}

/// The secrets as they are, and in base64 wherever they may stand in it.
fn needles() -> Vec<String> {
    let secrets = [PASSWORD, SECRET_KEY, SIGNING_KEY, ADDRESS, HEADER]
        .into_iter()
        .chain(KEYS)
        .chain(TOKENS);
    let mut needles = Vec::new();
    for secret in secrets {
        needles.push(secret.to_owned());
        for before in ["", "-", "--"] {
            let encoded = STANDARD_NO_PAD.encode(format!("{before}{secret}"));
            needles.push(encoded[4..encoded.len() - 4].to_owned());
        }
    }
    needles
}

#[test]
fn a_secret_would_be_found_wherever_it_stands() {
    for text in [
        "Bearer canary-ops-key-two",
        "user:canary-database-password@host",
        "a canary-runner-token-one",
    ] {
        for found in [text.to_owned(), STANDARD_NO_PAD.encode(text)] {
            assert!(
                needles().iter().any(|needle| found.contains(needle)),
                "{found}"
            );
        }
    }
}

/// A database that asks for a password, with the superuser's connection beside it.
async fn guarded() -> (PrivateCluster, String, PgPool) {
    let cluster = private_cluster(Mode::Test).await.expect("a cluster");
    cluster
        .create_database("guarded")
        .await
        .expect("a database");
    let url = cluster.url("guarded");
    tests::migrate(&url).await.expect("migrated");
    let psql = PgPoolOptions::new()
        .max_connections(1)
        .connect(&url)
        .await
        .expect("a connection");
    psql.execute("create role ops_canary superuser login password 'canary-database-password'")
        .await
        .expect("a role");
    let rules: String = sqlx::query_scalar("show hba_file")
        .fetch_one(&psql)
        .await
        .expect("a file");
    let old = fs::read_to_string(&rules).expect("rules");
    fs::write(&rules, format!("local all ops_canary scram-sha-256\n{old}")).expect("written");
    psql.execute("select pg_reload_conf()")
        .await
        .expect("reloaded");
    let login = format!("postgres://ops_canary:{PASSWORD}@");
    (
        cluster,
        url.replacen("postgres://postgres@", &login, 1),
        psql,
    )
}

struct Programs {
    folder: TempDir,
    url: String,
    /// They end at the end, and what they said is looked at then.
    started: Vec<(&'static str, Program)>,
}

impl Programs {
    async fn start(
        &mut self,
        name: &'static str,
        program: &str,
        changes: &[(&str, &str)],
    ) -> Client {
        let work = self.folder.path().join("work").display().to_string();
        let file = self.folder.path().join("runner.toml").display().to_string();
        let (keys, tokens) = (KEYS.join(","), TOKENS.join(", "));
        let mut start = Start::of(program);
        for (name, value) in [
            ("APP_ENV", "test"),
            ("DATABASE_URL", self.url.as_str()),
            ("SECRET_KEY", SECRET_KEY),
            ("WEBHOOK_SIGNING_KEY", SIGNING_KEY),
            ("OPS_API_KEY", &keys),
            ("RUNNER_TOKEN", &tokens),
            ("RUNNER_TOKEN_OUTBOUND", TOKENS[1]),
            ("RUNNER_URL", &format!("http://127.0.0.1:1/{ADDRESS}")),
            ("CONTROL_PLANE_BIND", "127.0.0.1:0"),
            ("RUNNER_BIND", "127.0.0.1:0"),
            ("RUNNER_WORK_DIR", &work),
            ("RUNNER_ALLOWLIST", "fails,stays,calls,metrics_refresh"),
            ("RUNNER_POLL_INTERVAL_SECONDS", "1"),
            ("RUNNER_DRAIN_SECONDS", "0"),
            ("JOBS_ENABLED", "1"),
            ("RUNNER_ENABLED", "1"),
            ("FEATURE_METRICS", "1"),
            ("LOG_LEVEL", "debug"),
            ("OPS_CONFIG", if program == "runner" { &file } else { "" }),
        ]
        .iter()
        .chain(changes)
        {
            start = start.set(name, value);
        }
        let mut program = start.start();
        let client = Client::new(&format!("http://{}", program.address().await));
        self.started.push((name, program));
        client
    }
}

const JOB_TYPES: &str = r#"
[job_types.fails]
command = ["sh", "-c", "env; tr '\\0' '\\n' < /proc/self/environ; echo broken >&2; exit 1"]
[job_types.stays]
command = ["sh", "-c", "exec sleep 600"]
[job_types.calls]
http = { url = "http://127.0.0.1:1/canary-runner-address", headers = { Authorization = "Bearer canary-http-header" } }
"#;

/// Everything that a caller may do wrong, and some of what is right.
async fn provoke(seen: &mut Seen, ops: &Client) {
    let anyone = ops.anonymous();
    for client in [
        ops.clone(),
        anyone.clone(),
        anyone.with("x-ops-key", "canary-ops-key"),
        anyone.with("x-runner-token", TOKENS[0]),
    ] {
        for path in [
            "/jobs",
            "/runners",
            "/meta",
            "/debug/env",
            "/openapi.json",
            "/nothing",
            "/jobs/nothing",
            "/jobs?cursor=AAAA",
        ] {
            seen.ask(&client, "GET", path, "").await;
        }
        for body in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"job_type":"Wrong","x":1}"#,
            r#"{"job_type":"captorator_compose"}"#,
        ] {
            for path in ["/jobs", "/jobs/batch", "/trigger_runner"] {
                seen.ask(&client, "POST", path, body).await;
            }
        }
        for (path, body) in [
            (
                "/webhooks",
                r#"{"name":"w","url":"http://localhost:1/hook"}"#,
            ),
            ("/webhooks/w/rotate", ""),
            ("/webhooks/w/ping", ""),
            ("/tick", ""),
        ] {
            seen.ask(&client, "POST", path, body).await;
        }
        seen.ask(&client, "GET", "/webhooks/w/deliveries", "").await;
        for path in ["/healthz", "/readyz"] {
            seen.ask(&client.at(""), "GET", path, "").await;
        }
    }
}

#[tokio::test]
async fn no_secret_is_seen_anywhere_whatever_goes_wrong() {
    let (cluster, url, psql) = guarded().await;
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("runner.toml"), JOB_TYPES).expect("written");
    let mut programs = Programs {
        folder,
        url: url.clone(),
        started: Vec::new(),
    };
    let mut seen = Seen::default();
    let runner = programs.start("runner", "runner", &[]).await;
    let with_runner = [("RUNNER_URL", runner.url(""))];
    let with_runner: Vec<(&str, &str)> = with_runner
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let ops = programs
        .start("control-plane", "control-plane", &with_runner)
        .await
        .at("/api/ops")
        .with("x-ops-key", KEYS[1]);
    let lonely = programs
        .start("control-plane without runner", "control-plane", &[])
        .await;
    let lonely = lonely
        .at("/api/ops")
        .with("authorization", &format!("Bearer {}", KEYS[0]));
    let wrong = url.replace(PASSWORD, "canary-database-password-that-is-wrong");
    let shut_out = programs
        .start(
            "control-plane shut out",
            "control-plane",
            &[("DATABASE_URL", &wrong)],
        )
        .await;
    let shut_out = shut_out.at("/api/ops").with("x-ops-key", KEYS[0]);
    programs
        .start("runner shut out", "runner", &[("DATABASE_URL", &wrong)])
        .await;

    provoke(&mut seen, &ops).await;
    provoke(&mut seen, &shut_out).await;
    assert!(seen.ask(&shut_out, "GET", "/jobs", "").await.0 >= 500);
    assert_eq!(
        seen.ask(
            &lonely,
            "POST",
            "/trigger_runner",
            r#"{"job_type":"metrics_refresh"}"#
        )
        .await
        .0,
        502
    );
    let mut ids = Vec::new();
    for job_type in ["fails", "calls", "metrics_refresh", "stays", "not_allowed"] {
        let (_, answer) = seen
            .ask(
                &ops,
                "POST",
                "/trigger_runner",
                &json!({ "job_type": job_type }).to_string(),
            )
            .await;
        let id = answer["job"]["id"].as_str().or(answer["job_id"].as_str());
        ids.push(id.unwrap_or_else(|| panic!("no job: {answer}")).to_owned());
    }
    for client in [
        runner.with("x-runner-token", TOKENS[0]),
        runner.with("x-runner-token", "canary"),
        runner.anonymous(),
    ] {
        for (method, path) in [
            ("POST", "/run"),
            ("POST", "/tick"),
            ("GET", "/v1/meta"),
            ("GET", "/readyz"),
            ("GET", "/nothing"),
        ] {
            seen.ask(&client, method, path, "{}").await;
        }
    }
    for (id, status) in ids
        .iter()
        .zip(["failed", "failed", "succeeded", "running", "failed"])
    {
        wait_until(&format!("the job is {status}"), async || {
            let (_, job) = seen.ask(&ops, "GET", &format!("/jobs/{id}"), "").await;
            (job["status"] == status).then_some(())
        })
        .await;
        for rest in ["events", "log"] {
            seen.ask(&ops, "GET", &format!("/jobs/{id}/{rest}"), "")
                .await;
        }
    }
    let mut processes = processes_of(programs.folder.path());
    assert!(!processes.is_empty(), "the job that stays");
    processes.extend(
        programs
            .started
            .iter()
            .filter_map(|(_, program)| i32::try_from(program.id()).ok()),
    );
    for pid in processes {
        seen.note("a command line", command_line(pid));
    }
    seen.note("the rows", rows(&psql).await);
    for (name, mut program) in programs.started {
        program.terminate();
        assert_eq!(program.exit_code().await, 0, "{name}");
        seen.note(name, program.stdout() + &program.stderr());
    }
    assert!(seen.has("the rows", "ops_job_events") && seen.has("the rows", "metrics_refresh"));
    assert!(
        seen.has("control-plane without runner", "trigger_failed")
            && seen.has("control-plane shut out", "password authentication failed")
    );
    assert!(seen.has("runner", "job_finished") && seen.has("a command line", "sleep 600"));
    seen.must_hold_no_canary();
    psql.close().await;
    cluster.stop().await.expect("stopped");
}
