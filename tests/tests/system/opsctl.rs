//! The operator's command, as scripts use it: what it prints, and with which code it ends.

use serde_json::{Value, json};
use tests::{API_KEY, Client, Database, Start, System, repository};

async fn db(url: &str, arguments: &[&str]) -> (i32, Value, String) {
    let start = Start::of("opsctl").arguments(&["db"]).arguments(arguments).arguments(&["--output", "json"]);
    let (code, stdout, stderr) = start.set("DATABASE_URL", url).run().await;
    (code, serde_json::from_str(&stdout).unwrap_or_default(), stderr)
}

#[tokio::test]
async fn the_schema_goes_up_and_down_and_the_status_tells_where_it_is() {
    let database = Database::empty().await;
    let url = database.url.as_str();
    let (code, status, stderr) = db(url, &["status"]).await;
    assert_eq!((code, &status["current"]), (0, &json!(0)), "{stderr}");
    let newest = status["expected"].clone();
    for _ in 0..2 {
        let (code, status, stderr) = db(url, &["migrate"]).await;
        assert_eq!((code, &status["current"]), (0, &newest), "{stderr}");
    }
    let (code, status, stderr) = db(url, &["rollback"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(status["current"].as_i64() < newest.as_i64(), "{status}");
    assert_eq!(db(url, &["migrate"]).await.0, 0);
    sqlx::query("select ops_enqueue('a')").execute(&database.psql).await.expect("recorded");
    let (code, _, stderr) = db(url, &["rollback", "--all"]).await;
    assert_eq!(code, 2, "jobs would be lost: {stderr}");
    assert_eq!(database.count("select count(*) from ops_jobs").await, 1);
    let (code, status, stderr) = db(url, &["rollback", "--all", "--yes"]).await;
    assert_eq!((code, &status["current"]), (0, &json!(0)), "{stderr}");
    assert_eq!(database.count("select count(*) from pg_proc where proname like 'ops\\_%'").await, 0);
    assert_eq!(db(url, &["migrate"]).await.0, 0);
    assert_eq!(db(url, &["rollback", "--to", "12345"]).await.0, 2);
}

#[tokio::test]
async fn a_database_that_is_missing_or_wrong_has_its_exit_code() {
    for (url, expected) in [("", 2), ("sqlite:canary.db", 2), ("postgres://u:canary@127.0.0.1:1/d", 69)] {
        let (code, _, stderr) = db(url, &["status"]).await;
        assert_eq!(code, expected, "{stderr}");
        assert!(!stderr.contains("canary"), "{stderr}");
    }
}

fn opsctl(ops: &Client, arguments: &[&str]) -> Start {
    let start = Start::of("opsctl").arguments(&["--output", "json"]).arguments(arguments);
    start.set("OPS_URL", &format!("http://{}", ops.authority())).set("OPS_API_KEY", API_KEY)
}

async fn run(ops: &Client, arguments: &[&str]) -> (i32, Value) {
    let (code, stdout, stderr) = opsctl(ops, arguments).run().await;
    (code, serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}{stderr}")))
}

#[tokio::test]
async fn a_job_is_sent_followed_and_looked_at_from_the_command_line() {
    let builder = System::builder().shell("hello", "echo hello; cat > \"$OPS_RESULT_FILE\"", "").shell("broken", "exit 1", "");
    let system = builder.start().await;
    let submit = ["jobs", "submit", "hello", "--payload", "{\"a\": 1}", "--label", "by=hand", "--trigger", "--wait"];
    let (code, job) = run(&system.ops, &submit).await;
    assert_eq!((code, &job["status"], &job["result"]), (0, &json!("succeeded"), &json!({"a": 1})));
    assert_eq!(job["labels"], json!({"by": "hand"}));
    let id = job["id"].as_str().expect("an id");
    assert_eq!(run(&system.ops, &["jobs", "get", id]).await, (0, job.clone()));
    let (code, list) = run(&system.ops, &["jobs", "list", "--status", "succeeded"]).await;
    assert_eq!((code, &list["jobs"]), (0, &json!([job])));
    let (code, events) = run(&system.ops, &["jobs", "events", id]).await;
    assert_eq!((code, &events["events"]), (0, &json!(system.events(id).await)));
    let (code, log) = run(&system.ops, &["jobs", "log", id]).await;
    assert_eq!((code, &log["log"]), (0, &json!("hello\n")));
    let (code, job) = run(&system.ops, &["jobs", "submit", "broken", "--wait"]).await;
    assert_eq!((code, &job["status"]), (1, &json!("failed")));
    let (code, queued) = run(&system.ops, &["jobs", "submit", "hello", "--run-at", "2100-01-01T00:00:00Z"]).await;
    assert_eq!((code, &queued["status"]), (0, &json!("queued")));
    let waiting = queued["id"].as_str().expect("an id");
    let (code, aborted) = run(&system.ops, &["jobs", "abort", waiting, "--reason", "late"]).await;
    assert_eq!((code, &aborted["status"]), (0, &json!("aborted")));
    let (code, again) = run(&system.ops, &["jobs", "retry", waiting]).await;
    assert_eq!((code, &again["status"]), (0, &json!("queued")));
    assert_eq!(run(&system.ops, &["meta"]).await.1["flags"]["JOBS_ENABLED"], true);
    assert!(run(&system.ops, &["runners"]).await.1["runners"].is_array());
    let (code, stdout, _) = Start::of("opsctl").arguments(&["jobs", "list"]).environment([
        ("OPS_URL".to_owned(), format!("http://{}", system.ops.authority())),
        ("OPS_API_KEY".to_owned(), API_KEY.to_owned()),
    ]).run().await;
    assert!(code == 0 && stdout.contains(id) && stdout.contains("succeeded"), "{stdout}");
    system.stop().await;
}

#[tokio::test]
async fn each_way_to_fail_has_its_exit_code() {
    let system = System::builder().shell("hello", "true", "").start().await;
    let job = system.run_until(&json!({"job_type": "hello"}), "succeeded").await;
    let id = job["id"].as_str().expect("an id");
    let nobody = Client::new("http://127.0.0.1:1");
    for (start, expected) in [
        (opsctl(&system.ops, &["jobs", "get", "0190163d-8694-739b-aea5-966c26f8ad90"]), 3),
        (opsctl(&system.ops, &["jobs", "get", id]).set("OPS_API_KEY", "canary-wrong"), 4),
        (opsctl(&system.ops, &["jobs", "submit", "nearsight_collect_refresh"]), 4),
        (opsctl(&system.ops, &["jobs", "abort", id]), 5),
        (opsctl(&system.ops, &["jobs", "list", "--status", "done"]), 2),
        (opsctl(&system.ops, &["jobs", "submit", "hello", "--payload", "{"]), 2),
        (opsctl(&system.ops, &["jobs", "get", id]).set("OPS_API_KEY", ""), 2),
        (opsctl(&nobody, &["jobs", "get", id]), 69),
    ] {
        let what = format!("{start:?}");
        let (code, _, stderr) = start.run().await;
        assert_eq!(code, expected, "{what}: {stderr}");
        assert!(!stderr.is_empty() && !stderr.contains("canary"), "{stderr}");
    }
    system.stop().await;
}

#[tokio::test]
async fn the_documents_that_are_made_from_the_code_are_fresh() {
    let root = repository().display().to_string();
    let (code, stdout, stderr) = Start::of("opsctl").arguments(&["reference", "--check", "--root", &root]).run().await;
    assert_eq!(code, 0, "{stdout}{stderr}");
}
