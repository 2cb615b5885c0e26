//! The programs refuse to start on anything that is wrong, and say everything at once, without a value.

use std::net::TcpListener;

use tests::Start;

const CONTROL_PLANE: [(&str, &str); 5] = [
    ("APP_ENV", "prod"),
    ("DATABASE_URL", "postgres://u:canary-password@127.0.0.1:1/d"),
    ("SECRET_KEY", "canary-0123456789-0123456789-0123456789"),
    ("OPS_API_KEY", "canary-key"),
    ("CONTROL_PLANE_BIND", "127.0.0.1:0"),
];
const RUNNER: [(&str, &str); 4] = [
    ("APP_ENV", "prod"),
    ("DATABASE_URL", "postgres://u:canary-password@127.0.0.1:1/d"),
    ("RUNNER_TOKEN", "canary-token"),
    ("RUNNER_BIND", "127.0.0.1:0"),
];

fn program(name: &str, changes: &[(&str, &str)]) -> Start {
    let right: &[(&str, &str)] = if name == "runner" { &RUNNER } else { &CONTROL_PLANE };
    let pairs = right.iter().chain(changes).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Start::of(name).environment(pairs)
}

/// Starts it with these changes, and checks that it ends with 2 and names exactly these settings.
async fn refuses(name: &str, changes: &[(&str, &str)], settings: &[&str]) -> String {
    // A port that nobody else has: were it to listen before it refuses, it would not get this one.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut all = vec![("CONTROL_PLANE_BIND", address.as_str()), ("RUNNER_BIND", address.as_str())];
    all.extend(changes);
    let (code, stdout, stderr) = program(name, &all).run().await;
    assert_eq!(code, 2, "{changes:?}: {stderr}");
    assert_eq!(stdout, "", "{changes:?}");
    let named: Vec<&str> = stderr.lines().skip(1).filter_map(|line| line.split_once(':').map(|(name, _)| name)).collect();
    let (mut found, mut expected) = (named, settings.to_vec());
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{changes:?}: {stderr}");
    assert!(!stderr.contains("canary"), "{stderr}");
    stderr
}

#[tokio::test]
async fn both_programs_need_a_postgresql() {
    for name in ["control-plane", "runner"] {
        for url in ["", "sqlite:///canary.db", "mysql://canary@h/d", "canary"] {
            let stderr = refuses(name, &[("DATABASE_URL", url)], &["DATABASE_URL"]).await;
            assert!(stderr.contains("PostgreSQL"), "{name} {url}: {stderr}");
        }
    }
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once() {
    let changes = [
        ("APP_ENV", "canary"),
        ("DATABASE_URL", ""),
        ("SECRET_KEY", "canary-short"),
        ("OPS_API_KEY", ""),
        ("RUNNER_ENABLED", "1"),
        ("MAX_BODY_BYTES", "canary"),
        ("JOBS_ENABLED", "canary"),
    ];
    let wrong = ["APP_ENV", "DATABASE_URL", "SECRET_KEY", "OPS_API_KEY", "RUNNER_URL", "RUNNER_TOKEN_OUTBOUND", "MAX_BODY_BYTES", "JOBS_ENABLED"];
    refuses("control-plane", &changes, &wrong).await;
    let changes = [("APP_ENV", ""), ("DATABASE_URL", ""), ("RUNNER_TOKEN", ""), ("RUNNER_CONCURRENCY", "canary"), ("RUNNER_LEASE_SECONDS", "0")];
    refuses("runner", &changes, &["APP_ENV", "DATABASE_URL", "RUNNER_TOKEN", "RUNNER_CONCURRENCY", "RUNNER_LEASE_SECONDS"]).await;
}

#[tokio::test]
async fn production_is_held_to_its_rules() {
    refuses("control-plane", &[("OPS_API_KEY", "")], &["OPS_API_KEY"]).await;
    refuses("control-plane", &[("OPS_API_KEY", ""), ("APP_ENV", "staging")], &["OPS_API_KEY"]).await;
    refuses("control-plane", &[("SECRET_KEY", "canary-short")], &["SECRET_KEY"]).await;
    refuses("control-plane", &[("SECRET_KEY", "")], &["SECRET_KEY"]).await;
    let plain = [("RUNNER_ENABLED", "1"), ("RUNNER_URL", "http://canary.example:8010"), ("RUNNER_TOKEN_OUTBOUND", "canary")];
    refuses("control-plane", &plain, &["RUNNER_URL"]).await;
    refuses("control-plane", &[("CORS_ENABLED", "1"), ("CORS_ALLOW_CREDENTIALS", "1")], &["CORS_ALLOW_CREDENTIALS"]).await;
    refuses("control-plane", &[("CONTROL_PLANE_BIND", "0.0.0.0:0")], &["CONTROL_PLANE_BIND"]).await;
    refuses("runner", &[("RUNNER_BIND", "0.0.0.0:0")], &["RUNNER_BIND"]).await;
    refuses("runner", &[("RUNNER_TOKEN", "")], &["RUNNER_TOKEN"]).await;
    refuses("runner", &[("RUNNER_TOKEN", " , ")], &["RUNNER_TOKEN"]).await;
}

#[tokio::test]
async fn a_settings_file_is_held_to_the_same_rules_and_the_environment_wins() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ops.toml");
    let path = file.display().to_string();
    std::fs::write(&file, "app_env = \"canary\"\nno_such_setting = 1\n[job_types.Wrong]\ncommand = []\n").expect("written");
    let (code, _, stderr) = program("runner", &[]).arguments(&["--config", &path]).run().await;
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.to_lowercase().contains("no_such_setting") && stderr.contains("job_types.Wrong"), "{stderr}");
    assert!(!stderr.contains("APP_ENV") && !stderr.contains("canary"), "the environment's is right: {stderr}");
    let (code, _, stderr) = program("runner", &[]).arguments(&["--config", "/no/such/file.toml"]).run().await;
    assert_eq!(code, 2, "{stderr}");
    let (code, _, stderr) = program("control-plane", &[("OPS_CONFIG", "/no/such/file.toml")]).run().await;
    assert_eq!(code, 2, "{stderr}");
}

#[tokio::test]
async fn arguments_are_few_and_wrong_ones_end_with_2() {
    for name in ["control-plane", "runner", "opsctl"] {
        for (arguments, expected) in [
            (["--help"].as_slice(), 0),
            (&["--version"], 0),
            (&["--no-such-argument"], 2),
            (&["no-such-command"], 2),
            (&["--config"], 2),
        ] {
            let (code, stdout, stderr) = program(name, &[]).arguments(arguments).run().await;
            assert_eq!(code, expected, "{name} {arguments:?}: {stderr}");
            let (told, silent) = if expected == 0 { (stdout, stderr) } else { (stderr, stdout) };
            assert!(!told.is_empty() && silent.is_empty(), "{name} {arguments:?}");
        }
    }
}

#[tokio::test]
async fn a_taken_port_ends_a_program_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for (name, setting) in [("control-plane", "CONTROL_PLANE_BIND"), ("runner", "RUNNER_BIND")] {
        let (code, _, stderr) = program(name, &[(setting, &address)]).run().await;
        assert_eq!(code, 1, "{name}: {stderr}");
        assert!(stderr.contains(&address) && !stderr.contains("canary"), "{name}: {stderr}");
    }
}
