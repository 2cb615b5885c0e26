//! The figures over HTTP: what an operator, and Prometheus, see of a system that works, fails, retries and gives up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tests::{Client, System, wait_until};

/// Jobs of every kind of end: two succeed, one is given up after a retry, one waits for a runner that is not there.
async fn busy() -> System {
    let system = System::builder()
        .shell("good", "true", "")
        .shell(
            "bad",
            "exit 75",
            "max_attempts = 2\nbackoff = { base_seconds = 0, cap_seconds = 0 }",
        )
        .set("WORKER_ALERT_FAILURE_THRESHOLD", "1")
        .set("RUNNER_POLL_INTERVAL_SECONDS", "1")
        .start()
        .await;
    wait_until("jobs are counted", async || {
        let figures = system.ops.get("/health/metrics").await.expect(200).json();
        figures["counted_since"].is_string().then_some(())
    })
    .await;
    for job_type in ["good", "good", "bad", "orphan"] {
        let job = json!({ "job_type": job_type });
        system.ops.post("/jobs", &job).await.expect(201);
    }
    system
}

async fn settled(system: &System) -> Value {
    wait_until("everything that can has ended", async || {
        let figures = system.ops.get("/health/metrics").await.expect(200).json();
        let window = &figures["window"];
        let counted = window["succeeded"] == 2 && window["dead_letters"] == 1;
        // The depth is of a moment before the counters.
        let seen = figures["queue_depth"]["default"]["running"] == 0;
        (counted && seen).then_some(figures)
    })
    .await
}

#[tokio::test]
async fn health_metrics_tells_depth_counts_last_successes_and_what_raised_the_alert() {
    let system = busy().await;
    let begun = system.ops.get("/health/metrics").await.expect(200).json();
    assert!(begun["counted_since"].is_string(), "{begun}");
    let figures = settled(&system).await;
    let queue = &figures["queue_depth"]["default"];
    assert_eq!(
        (&queue["queued"], &queue["running"], &queue["waiting"]),
        (&json!(1), &json!(0), &json!(0)),
        "{figures}"
    );
    assert!(
        queue["oldest_due_age_seconds"]
            .as_f64()
            .is_some_and(|age| age > 0.0)
    );
    assert_eq!(
        queue["oldest_due_age_seconds"],
        figures["oldest_due_age_seconds"]
    );
    let window = &figures["window"];
    for (counter, expected) in [
        ("recorded", 4),
        ("started", 4),
        ("succeeded", 2),
        ("failed", 1),
        ("retries", 1),
        ("dead_letters", 1),
        ("hours", 24),
    ] {
        assert_eq!(window[counter], expected, "{counter}: {figures}");
    }
    assert!(figures["last_success"]["good"].is_string(), "{figures}");
    assert_eq!(figures["last_success"]["bad"], Value::Null);
    assert_eq!(figures["alert"], true);
    assert_eq!(figures["alerts"][0]["kind"], "dead_letters");
    assert_eq!(figures["alerts"][0]["job_types"], json!({ "bad": 1 }));
    assert_eq!(figures["unserved_job_types"][0]["job_type"], "orphan");
    assert_eq!(
        figures["unserved_job_types"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(figures["last"]["tick"], Value::Null);
    assert_eq!(figures["last"]["backup"], Value::Null);

    system.ops.press("/tick").await.expect(200);
    let figures = system.ops.get("/health/metrics").await.expect(200).json();
    for task in ["tick", "sweep"] {
        assert!(
            figures["last"][task]["age_seconds"].is_number(),
            "{task}: {figures}"
        );
    }
    // What the job type has rolled up stands there too.
    let refresh = json!({ "job_type": "metrics_refresh" });
    system
        .ops
        .post("/trigger_runner", &refresh)
        .await
        .expect(202);
    wait_until("the durations are there", async || {
        let figures = system.ops.get("/health/metrics").await.expect(200).json();
        let types: Vec<_> = figures["durations"]
            .as_array()?
            .iter()
            .map(|one| one["job_type"].clone())
            .collect();
        types.contains(&json!("good")).then_some(())
    })
    .await;
    system.stop().await;
}

#[tokio::test]
async fn an_alert_needs_as_many_dead_letters_as_its_threshold() {
    let system = System::builder()
        .shell("bad", "false", "")
        .set("WORKER_ALERT_FAILURE_THRESHOLD", "3")
        .start()
        .await;
    for expected in [false, false, true] {
        let job = json!({ "job_type": "bad" });
        system.ops.post("/trigger_runner", &job).await.expect(202);
        let before = system.ops.get("/health/metrics").await.expect(200).json();
        let figures = wait_until("it was given up", async || {
            let figures = system.ops.get("/health/metrics").await.expect(200).json();
            let is_empty = figures["queue_depth"]
                .as_object()
                .is_some_and(|queues| queues.is_empty());
            is_empty.then_some(figures)
        })
        .await;
        assert_eq!(figures["alert"], expected, "{before}\n{figures}");
    }
    system.stop().await;
}

#[tokio::test]
async fn with_the_flag_off_nothing_is_counted() {
    let system = System::builder()
        .shell("good", "true", "")
        .set("FEATURE_METRICS", "0")
        .start()
        .await;
    let job = json!({ "job_type": "good" });
    system.ops.post("/trigger_runner", &job).await.expect(202);
    system.ops.press("/tick").await.expect(200);
    system.runner(0).press("/tick").await.expect(200);
    system.runner(0).get("/metrics").await.problem(404);
    // Neither read nor written, by anyone, trigger functions included.
    let touched = "select coalesce(sum(coalesce(seq_scan, 0) + coalesce(idx_scan, 0) + n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint
                   from pg_stat_user_tables where relname like 'ops\\_count\\_%' or relname = 'ops_metrics'";
    assert_eq!(system.database.count(touched).await, 0);
    system.stop().await;
}

/// The metrics of a page, by name, with the type that it gives them; each line is looked at.
fn families(page: &str) -> BTreeMap<String, String> {
    let mut types = BTreeMap::new();
    let mut helped = BTreeSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped.insert(rest.split(' ').next().expect("a name").to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(helped.contains(name), "{name} explains itself");
            types.insert(name.to_owned(), kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            value.parse::<f64>().expect("a number");
            let name = series.split('{').next().expect("a name");
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .filter(|base| types.get(*base).is_some_and(|kind| kind == "histogram"))
                .unwrap_or(name);
            assert!(types.contains_key(base), "{line}");
            assert_eq!(name.ends_with("_total"), types[base] == "counter", "{line}");
        }
    }
    types
}

async fn page(client: &Client) -> String {
    let answer = client.get("/metrics").await.expect(200);
    assert_eq!(
        answer.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    answer.body
}

#[tokio::test]
async fn both_programs_show_prometheus_what_the_dashboard_and_the_alerts_are_made_of() {
    let system = busy().await;
    settled(&system).await;
    system.ops.press("/tick").await.expect(200);
    system.ops.anonymous().get("/metrics").await.problem(401);
    system
        .runner(0)
        .anonymous()
        .get("/metrics")
        .await
        .problem(401);
    let (ours, theirs) = (page(&system.ops).await, page(&system.runner(0)).await);
    for line in [
        r#"ops_jobs_current{job_type="orphan",queue="default",status="queued"} 1"#,
        r#"ops_jobs_transitions_total{job_type="bad",kind="dead_lettered",queue="default"} 1"#,
        r#"ops_jobs_transitions_total{job_type="good",kind="succeeded",queue="default"} 2"#,
        "ops_jobs_alert 1",
        r#"ops_fleet_runners{state="taking"} 1"#,
        r#"ops_http_failed_authentications_total{reason="missing"} 1"#,
    ] {
        assert!(ours.lines().any(|found| found == line), "{line}\n{ours}");
    }
    for line in [
        r#"ops_jobs_wait_seconds_count{job_type="good"} 2"#,
        r#"ops_jobs_run_seconds_count{job_type="bad"} 2"#,
        r#"ops_runner_attempts_total{job_type="bad",outcome="retry"} 2"#,
        r#"ops_runner_slots{state="used"} 0"#,
        "ops_runner_leases 0",
        r#"ops_http_failed_authentications_total{reason="missing"} 1"#,
        "ops_http_limited_authentications_total 0",
    ] {
        assert!(
            theirs.lines().any(|found| found == line),
            "{line}\n{theirs}"
        );
    }
    let mut known = families(&ours);
    known.extend(families(&theirs));
    system.stop().await;

    // Backups and drills show once there are any; their names are the same then.
    let known: BTreeSet<String> = known
        .into_keys()
        .chain(["ops_drill_ok".to_owned()])
        .collect();
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/monitoring"));
    let mut named = BTreeSet::new();
    for expression in expressions(&folder) {
        for name in names_in(&expression) {
            assert!(
                known.contains(&name),
                "{name} of {expression} is exported by nobody"
            );
            named.insert(name);
        }
    }
    assert!(named.len() > 12, "{named:?}");
}

/// Every expression of the dashboard and of the alert rules.
fn expressions(folder: &std::path::Path) -> Vec<String> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).expect("JSON");
    let rules: Value = serde_norway::from_str(&read("alerts.yml")).expect("YAML");
    let mut found = Vec::new();
    for rule in rules["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"))
    {
        assert!(
            rule["alert"].is_string() && rule["for"].is_string(),
            "{rule}"
        );
        assert!(rule["annotations"]["summary"].is_string(), "{rule}");
        found.push(rule["expr"].as_str().expect("an expression").to_owned());
    }
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push(target["expr"].as_str().expect("an expression").to_owned());
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

/// The metrics that an expression names.
fn names_in(expression: &str) -> Vec<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    expression
        .split(|letter| !is_part(letter))
        .filter(|word| word.starts_with("ops_"))
        .map(|word| {
            ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| word.strip_suffix(suffix))
                .unwrap_or(word)
                .to_owned()
        })
        .collect()
}
