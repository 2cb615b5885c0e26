//! `opsctl doctor`: right where all is right, and naming what is wrong where something is; and whether a planted secret is
//! found where it leaks, and nowhere else.

use serde_json::Value;
use tests::{API_KEY, RUNNER_TOKEN, Start, System};

const SECRET: &str = "canary0123456789abcdef0123456789";

async fn doctor(system: &System, arguments: &[&str], settings: &[(&str, &str)]) -> (i32, Value) {
    let mut start = Start::of("opsctl")
        .arguments(&["doctor", "--output", "json"])
        .arguments(arguments)
        .environment(system.environment())
        .set("OPS_URL", &format!("http://{}", system.ops.authority()))
        .set("CANARY_SECRET", SECRET);
    for (name, value) in settings {
        start = start.set(name, value);
    }
    let (code, told, said) = start.run().await;
    let report = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}{said}"));
    for secret in [SECRET, API_KEY, RUNNER_TOKEN] {
        assert!(
            !told.contains(secret) && !said.contains(secret),
            "{told}{said}"
        );
    }
    (code, report)
}

/// What came of a look; where it was taken several times, of the one that failed.
fn came<'a>(report: &'a Value, look: &str) -> (&'a str, &'a str) {
    let looks = report["looks"].as_array().expect("looks");
    let named = || looks.iter().filter(|one| one["look"] == look);
    let found = named()
        .find(|one| one["came"] == "failed")
        .or_else(|| named().next());
    let found = found.unwrap_or_else(|| panic!("{look}: {report}"));
    let text = |member: &str| found[member].as_str().expect("text");
    (text("came"), text("said"))
}

async fn set_up(unmasked: bool) -> System {
    let toml = include_str!("../../../crates/opsctl/src/doctor/canary.toml");
    let table = toml.split_once("[job_types.canary]").expect("a table").1;
    let builder = System::builder()
        .job_type(
            "canary",
            &format!("{table}env = {{ CANARY_SECRET = \"{SECRET}\" }}"),
        )
        .set("PATH", "/usr/bin:/bin");
    if unmasked {
        builder.unmasked()
    } else {
        builder
    }
    .start()
    .await
}

#[tokio::test]
async fn a_planted_secret_is_found_nowhere_and_everywhere_once_masking_is_off() {
    let system = set_up(false).await;
    let (code, report) = doctor(&system, &["--canary"], &[]).await;
    assert_eq!(code, 0, "{report}");
    assert!(
        report["looks"].as_array().expect("looks").len() > 20,
        "{report}"
    );
    assert_eq!(came(&report, "tables").0, "ok");
    system.stop().await;
    let system = set_up(true).await;
    let (code, report) = doctor(&system, &["--canary"], &[]).await;
    assert_eq!(code, 1, "{report}");
    for look in [
        "log",
        "job",
        "events",
        "log lines",
        "event stream",
        "log stream",
        "list of jobs",
    ] {
        assert_eq!(came(&report, look).0, "failed", "{look}: {report}");
    }
    let (came, said) = came(&report, "tables");
    assert_eq!(came, "failed");
    for table in ["ops_job_log", "ops_jobs"] {
        assert!(said.contains(table), "{said}");
    }
    system.stop().await;
}

#[tokio::test]
async fn a_sound_stack_is_right_and_each_thing_that_is_broken_is_named() {
    let system = System::builder().start().await;
    let (_, report) = doctor(&system, &[], &[]).await;
    for look in [
        "settings of the control plane",
        "settings of the runner",
        "settings together",
        "database",
        "schema",
        "clock",
        "pooler",
        "control plane",
        "key of the control plane",
        "runner",
        "token of the runner",
        "runners",
        "releases and flags",
    ] {
        assert_eq!(came(&report, look).0, "ok", "{look}: {report}");
    }
    // A cluster of the tests keeps nothing through a crash, and that is said.
    assert_eq!(came(&report, "durability").0, "failed");
    for (settings, look, word) in [
        (
            ("OPS_API_KEY", "another"),
            "key of the control plane",
            "OPS_API_KEY",
        ),
        (
            ("RUNNER_TOKEN_OUTBOUND", "another"),
            "token of the runner",
            "RUNNER_TOKEN_OUTBOUND",
        ),
        (
            ("RUNNER_TOKEN_OUTBOUND", "another"),
            "settings together",
            "RUNNER_TOKEN_OUTBOUND",
        ),
        (("RUNNER_URL", "http://127.0.0.1:1"), "runner", "RUNNER_URL"),
        (
            ("STALL_THRESHOLD_SECONDS", "5"),
            "settings together",
            "STALL_THRESHOLD_SECONDS",
        ),
        (
            ("MAX_BODY_BYTES", "many"),
            "settings of the control plane",
            "MAX_BODY_BYTES",
        ),
    ] {
        let (code, report) = doctor(&system, &[], &[settings]).await;
        assert_eq!(code, 1, "{settings:?}");
        let (came, said) = came(&report, look);
        assert!(
            came == "failed" && said.contains(word),
            "{settings:?}: {report}"
        );
    }
    for (sql, look, word) in [
        (
            "update ops_fleet set protocol_min = 5, protocol_max = 5",
            "runners",
            "does not fit",
        ),
        (
            "grant delete on ops_jobs to ops_readonly",
            "roles",
            "ops_readonly",
        ),
    ] {
        let store = jobs::Store::new(&jobs::StoreOptions::new(
            system.database.url.clone(),
            1,
            "test",
        ));
        let store = store.expect("a store");
        store.bootstrap_roles().await.expect("made");
        store.close().await;
        sqlx::raw_sql(sql)
            .execute(&system.database.psql)
            .await
            .expect(sql);
        let (code, report) = doctor(&system, &[], &[]).await;
        assert_eq!(code, 1);
        let (came, said) = came(&report, look);
        assert!(came == "failed" && said.contains(word), "{report}");
    }
    system.stop().await;
}
