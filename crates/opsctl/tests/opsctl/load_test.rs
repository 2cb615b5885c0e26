//! `opsctl load-test`: a small run that is right, and what it says of one that is not.

use std::fs;

use serde_json::Value;

use crate::program::{Serving, StateFolder, api_key, opsctl, outcome};

const SMALL: [&str; 11] = [
    "load-test",
    "--rounds",
    "2",
    "--warm-up",
    "1",
    "--jobs",
    "4",
    "--concurrency",
    "2",
    "--output",
    "json",
];

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("a list");
    checks
        .iter()
        .find(|check| check["name"] == name)
        .expect("checked")
}

#[test]
fn a_small_run_on_a_stack_of_its_own_is_right_and_is_written_down() {
    let (temporary, results) = (StateFolder::new(), StateFolder::new());
    let mut command = opsctl(&SMALL);
    command.arg("--results").arg(results.root());
    // How fast this machine is, is not what is tested.
    command
        .env("LOAD_TEST_MAX_TOTAL_P95_MS", "60000")
        .args(["--max-wait-p95-ms", "60000"])
        .env("TMPDIR", temporary.root());
    let (code, out, err) = outcome(&mut command);
    assert_eq!(code, 0, "{out}{err}");
    let report: Value = serde_json::from_str(&out).expect("nothing but JSON");
    assert_eq!(report["ok"], true);
    assert_eq!(report["rounds"].as_array().map(Vec::len), Some(3));
    assert_eq!(report["rounds"][0]["warm_up"], true);
    assert_eq!(report["rounds"][2]["outcomes"]["succeeded"], 4);
    assert_eq!(report["limits"]["total_p95_ms"], 60000);
    assert_eq!(report["leaked"], serde_json::json!([]));
    assert_eq!(report["temporary"]["before"], report["temporary"]["after"]);
    let written = fs::read_to_string(results.path("result.json")).expect("written");
    assert_eq!(
        serde_json::from_str::<Value>(&written).expect("JSON"),
        report
    );
    let text = fs::read_to_string(results.path("result.md")).expect("written");
    assert!(
        text.contains("Everything was kept to.") && text.contains("| 1 (warm-up) |"),
        "{text}"
    );
}

#[test]
fn failures_and_left_files_are_named_each() {
    let (state, temporary) = (StateFolder::new(), StateFolder::new());
    let left = temporary.path("left");
    let broken = format!(
        "runner_allowlist = [\"smoke\"]\n[job_types.smoke]\n\
         command = [\"sh\", \"-c\", \"echo 12345 >> {}; exit 1\"]\n",
        left.display()
    );
    fs::write(state.path("runner.toml"), broken).expect("written");
    let serving = Serving::start(state.dev(&[]));
    let mut command = opsctl(&SMALL);
    command
        .args([
            "--max-temporary-bytes",
            "10",
            "--max-temporary-files",
            "0",
            "--grace",
            "1",
        ])
        .args(["--max-wait-p95-ms", "60000", "--max-total-p95-ms", "60000"])
        .arg("--temporary")
        .arg(temporary.root())
        .arg("--results")
        .arg(state.path("results"))
        .env("OPS_URL", serving.url())
        .env("OPS_API_KEY", api_key(&state));
    let (code, out, err) = outcome(&mut command);
    assert_eq!(code, 1, "{out}{err}");
    let report: Value = serde_json::from_str(&out).expect("nothing but JSON");
    assert_eq!(check(&report, "5xx")["ok"], true);
    assert_eq!(check(&report, "not succeeded")["measured"], "8 of 8");
    assert_eq!(check(&report, "temporary bytes")["ok"], false);
    assert_eq!(check(&report, "temporary files")["ok"], false);
    let first = report["look_first"].as_str().expect("said");
    assert!(
        first.starts_with("not succeeded: 8 of 8") && first.contains("which is failed"),
        "{first}"
    );
    assert!(err.contains(first), "{err}");
    assert!(state.path("results/result.md").exists());
}
