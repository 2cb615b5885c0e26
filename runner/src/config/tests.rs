//! The runner's configuration, from settings to refusals.

use std::path::Path;

use reqwest::StatusCode;
use service::settings::Environment;

use super::*;

const RIGHT: [(&str, &str); 3] = [
    ("APP_ENV", "test"),
    ("DATABASE_URL", "postgres://u@localhost/d"),
    ("RUNNER_TOKEN", "one, two"),
];

fn load(file: Option<&Path>, settings: &[(&str, &str)]) -> Result<Config, SettingsError> {
    let pairs = RIGHT
        .iter()
        .chain(settings)
        .map(|(name, value)| ((*name).to_owned(), *value));
    Config::load(Sources {
        config: file.map(Path::to_owned),
        environment: Environment::from_pairs(pairs),
    })
}

fn load_file(text: &str) -> Result<Config, SettingsError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("runner.toml");
    std::fs::write(folder.path().join("good.json"), r#"{"type": "object"}"#).expect("written");
    std::fs::write(folder.path().join("bad.json"), r#"{"type": "canary"}"#).expect("written");
    std::fs::write(&path, text).expect("written");
    load(Some(&path), &[])
}

fn wrong(result: Result<Config, SettingsError>) -> Vec<String> {
    let error = result.expect_err("must be refused");
    assert!(!error.to_string().contains("canary"), "{error}");
    error
        .problems
        .into_iter()
        .map(|problem| problem.name)
        .collect()
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = load(None, &[]).expect("right");
    assert_eq!(config.bind.to_string(), "127.0.0.1:8010");
    assert_eq!(config.limits.slots, 4);
    assert_eq!(config.limits.lease, Duration::from_secs(30));
    assert_eq!(config.limits.poll_interval, Some(Duration::from_secs(5)));
    assert_eq!(config.allowlist.len(), 3);
    assert!(config.tokens.accepts("two").is_some());
    assert!(
        config
            .child_environment
            .iter()
            .any(|(name, _)| name == "PATH")
    );
    assert_ne!(config.runner_id, load(None, &[]).expect("right").runner_id);
}

#[test]
fn every_wrong_setting_is_named_at_once_without_its_value() {
    let names = wrong(load(
        None,
        &[
            ("RUNNER_TOKEN", " , "),
            ("RUNNER_BIND", "0.0.0.0:1"),
            ("RUNNER_ALLOWLIST", "fine,Canary"),
            ("RUNNER_LEASE_SECONDS", "0"),
            ("RUNNER_ID", "a canary"),
            ("RUNNER_TLS_KEY", "canary.pem"),
            ("RUNNER_CONCURRENCY", "canary"),
        ],
    ));
    for name in [
        "RUNNER_TOKEN",
        "RUNNER_BIND",
        "RUNNER_ALLOWLIST",
        "RUNNER_LEASE_SECONDS",
        "RUNNER_ID",
        "RUNNER_TLS_CERT",
        "RUNNER_CONCURRENCY",
    ] {
        assert!(
            names.iter().any(|wrong| wrong == name),
            "{name} in {names:?}"
        );
    }
}

#[test]
fn polling_can_be_switched_off() {
    let config = load(None, &[("RUNNER_POLL_INTERVAL_SECONDS", "0")]).expect("right");
    assert_eq!(config.limits.poll_interval, None);
}

#[test]
fn job_types_are_commands_or_http_calls() {
    let config = load_file(
        r#"
        [job_types.rebuild]
        command = ["./rebuild.sh", "--all"]
        timeout_seconds = 900
        max_attempts = 3
        concurrency = 1
        payload_schema = "good.json"
        env = { INDEX = "main" }
        limits = { memory_bytes = 268435456, open_files = 256 }
        [job_types.warm]
        http = { url = "https://example.internal/warm", method = "POST", headers = { Authorization = "x" }, expect = [202] }
        "#,
    )
    .expect("right");
    let [rebuild, warm] = config.job_types.as_slice() else {
        panic!("two types")
    };
    assert_eq!(
        (rebuild.terms.max_attempts, rebuild.terms.concurrency),
        (3, Some(1))
    );
    assert!(rebuild.schema.is_some());
    let DeclaredWork::Command(command) = &rebuild.work else {
        panic!("a command")
    };
    assert!(
        command.argv[0].starts_with('/') && command.argv[0].ends_with("rebuild.sh"),
        "{:?}",
        command.argv
    );
    assert_eq!(command.argv[1], "--all");
    assert_eq!(command.limits.memory_bytes, Some(268_435_456));
    assert_eq!(command.limits.processes, None);
    assert!(
        matches!(&warm.work, DeclaredWork::Http(call) if call.expect == [StatusCode::ACCEPTED])
    );
}

#[test]
fn a_job_type_that_makes_no_sense_is_refused_by_its_place() {
    for (text, place) in [
        ("[job_types.a]\n", "job_types.a"),
        (
            "[job_types.a]\ncommand = [\"x\"]\nhttp = { url = \"https://h/\" }\n",
            "job_types.a",
        ),
        ("[job_types.A]\ncommand = [\"x\"]\n", "job_types.A"),
        ("[job_types.a]\ncommand = []\n", "job_types.a.command"),
        (
            "[job_types.a]\ncommand = [\"x\"]\ntimeout_seconds = 0\n",
            "job_types.a.timeout_seconds",
        ),
        (
            "[job_types.a]\ncommand = [\"x\"]\nmax_attempts = 1001\n",
            "job_types.a.max_attempts",
        ),
        (
            "[job_types.a]\ncommand = [\"x\"]\npayload_schema = \"none.json\"\n",
            "job_types.a.payload_schema",
        ),
        (
            "[job_types.a]\ncommand = [\"x\"]\npayload_schema = \"bad.json\"\n",
            "job_types.a.payload_schema",
        ),
        (
            "[job_types.a]\ncommand = [\"x\"]\nenv = { OPS_FENCE = \"canary\" }\n",
            "job_types.a.env",
        ),
        (
            "[job_types.a]\nhttp = { url = \"ftp://canary/\" }\n",
            "job_types.a.http.url",
        ),
        (
            "[job_types.a]\nhttp = { url = \"https://h/\", method = \"canary\" }\n",
            "job_types.a.http.method",
        ),
        (
            "[job_types.a]\ncommand = [\"x\"]\ncanari = 1\n",
            "job_types.a",
        ),
        (
            "[job_types.a]\ncommand = [\"x\"]\nlimits = { memory_bytes = 1 }\n",
            "job_types.a.limits.memory_bytes",
        ),
        (
            "[job_types.a]\nhttp = { url = \"https://h/\" }\nlimits = { processes = 9 }\n",
            "job_types.a.limits",
        ),
        ("[job_types.a]\ncommand = \"canary\"\n", "job_types.a"),
        ("[job_types]\na = 1\n", "job_types.a"),
    ] {
        assert_eq!(wrong(load_file(text)), [place], "{text}");
    }
}

#[test]
fn all_that_is_wrong_in_the_tables_of_job_types_is_told_at_once() {
    let text = "[job_types.a]\ncommand = \"x\"\ncanari = 1\nmax_attempts = \"many\"\n\
                [job_types.b]\ncommand = [\"x\"]\ntimeout_seconds = 0\n[job_types.c]\nhttp = 3\n";
    let error = load_file(text).expect_err("must be refused");
    let told: Vec<_> = error
        .problems
        .iter()
        .map(|problem| problem.name.as_str())
        .collect();
    assert_eq!(
        told,
        ["job_types.a", "job_types.c", "job_types.b.timeout_seconds"]
    );
    let all_of_a = &error.problems[0].detail;
    for key in ["canari", "command", "max_attempts"] {
        assert!(all_of_a.contains(key), "{key}: {all_of_a}");
    }
}
