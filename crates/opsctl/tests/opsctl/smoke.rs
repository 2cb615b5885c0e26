//! `opsctl smoke`: every road on a stack of its own, and what it says of a stack on which one is broken.

use std::fs;

use serde_json::Value;

use crate::program::{Serving, StateFolder, api_key, opsctl, outcome};

fn taken(state: &StateFolder, serving: &Serving, arguments: &[&str]) -> (i32, Value, String) {
    let mut command = opsctl(&["smoke", "--output", "json"]);
    command
        .args(arguments)
        .env("OPS_URL", serving.url())
        .env("OPS_API_KEY", api_key(state));
    let (code, out, err) = outcome(&mut command);
    (code, serde_json::from_str(&out).expect("JSON"), err)
}

fn came<'a>(report: &'a Value, road: &str) -> &'a str {
    let roads = report["roads"].as_array().expect("a list");
    let road = roads.iter().find(|one| one["road"] == road).expect("taken");
    road["came"].as_str().expect("a word")
}

#[test]
fn every_road_of_a_stack_of_its_own_is_right_and_nothing_is_left_behind() {
    let temporary = StateFolder::new();
    let mut command = opsctl(&["smoke", "--output", "json"]);
    let (code, out, err) = outcome(command.env("TMPDIR", temporary.root()));
    assert_eq!(code, 0, "{out}{err}");
    let report: Value = serde_json::from_str(&out).expect("nothing but JSON");
    let roads = report["roads"].as_array().expect("a list");
    assert_eq!(roads.len(), 9);
    assert!(roads.iter().all(|road| road["came"] == "ok"), "{out}");
    assert_eq!(report["look_first"], Value::Null);
    assert_eq!(fs::read_dir(temporary.root()).expect("read").count(), 0);
}

#[test]
fn a_broken_road_is_named_first_and_the_others_are_taken_all_the_same() {
    let state = StateFolder::new();
    let broken = "runner_allowlist = [\"smoke\"]\n[job_types.smoke]\n\
        command = [\"sh\", \"-c\", \"grep -q sleep $OPS_PAYLOAD_FILE && sleep 60; exit 1\"]\n";
    fs::write(state.path("runner.toml"), broken).expect("written");
    let serving = Serving::start(state.dev(&[]));
    let (code, report, err) = taken(&state, &serving, &[]);
    assert_eq!((code, &report["ok"]), (1, &Value::Bool(false)), "{report}");
    let first = report["look_first"].as_str().expect("said");
    assert!(
        first.starts_with("submit: job ") && first.contains("exit code 1"),
        "{first}"
    );
    assert!(err.contains("look first at submit"), "{err}");
    for (road, word) in [
        ("meta", "ok"),
        ("artifact", "failed"),
        ("abort", "ok"),
        ("fail", "ok"),
    ] {
        assert_eq!(came(&report, road), word, "{road} in {report}");
    }
    // Without a runner for the type nothing else is tried, and no job is left in the queue.
    let (code, report, _) = taken(&state, &serving, &["--type", "nobodys", "--patience", "2"]);
    assert_eq!(
        (code, report["roads"].as_array().map(Vec::len)),
        (1, Some(1))
    );
    let first = report["look_first"].as_str().expect("said");
    assert!(
        first.contains("no live runner serves the type `nobodys`"),
        "{first}"
    );
}

#[test]
fn a_stack_that_does_not_answer_is_told() {
    let mut command = opsctl(&["smoke", "--output", "json"]);
    command
        .env("OPS_URL", "http://127.0.0.1:1")
        .env("OPS_API_KEY", "k".repeat(40));
    let (code, out, err) = outcome(&mut command);
    assert_eq!(code, 1, "{out}");
    assert!(
        err.contains("look first at meta: the control plane at"),
        "{err}"
    );
}
