//! The law of docs/logging.md: the lines that both services write keep it, and `opsctl logs summarize` reads them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::{Serving, StateFolder, api_key, opsctl, outcome};

const LAW: &str = include_str!("../../../../docs/logging.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every event of the table, which may name several in a line.
fn lawful() -> BTreeSet<&'static str> {
    let table = LAW.split("## Events").nth(1).expect("a table of events");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    cells
        .flat_map(|cell| cell.split('`'))
        .filter(|word| !word.trim_matches([',', ' ']).is_empty())
        .collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_event_that_the_code_can_write_stands_in_the_law() {
    let lawful = lawful();
    let mut files = Vec::new();
    for folder in [
        "control-plane/src",
        "runner/src",
        "crates/service/src",
        "crates/jobs/src",
        "crates/files/src",
    ] {
        sources(&root().join(folder), &mut files);
    }
    let mut seen = 0;
    for file in files {
        let text = fs::read_to_string(&file).expect("text");
        let text = text.split("#[cfg(test)]").next().expect("code");
        for rest in text.split("event = \"").skip(1) {
            let event = rest.split('"').next().expect("a word");
            assert!(
                lawful.contains(event),
                "`{event}` of {} is not in docs/logging.md",
                file.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen} events were found");
}

#[test]
fn the_lines_of_both_services_keep_the_law_and_come_to_what_was_done() {
    let state = StateFolder::new();
    let serving = Serving::start(state.dev(&[]));
    let asked = |arguments: &[&str]| {
        let mut command = opsctl(arguments);
        outcome(
            command
                .env("OPS_URL", serving.url())
                .env("OPS_API_KEY", api_key(&state)),
        )
    };
    let (code, out, err) = asked(&["smoke"]);
    assert_eq!(code, 0, "{out}{err}");
    let payload = r#"{"name": "canary-of-a-payload"}"#;
    let (code, ..) = asked(&[
        "jobs",
        "submit",
        "smoke",
        "--payload",
        payload,
        "--label",
        "a=canary-of-a-label",
        "--trigger",
        "--wait",
    ]);
    assert_eq!(code, 0);
    drop(serving);

    let log = fs::read_to_string(state.path("dev.log")).expect("written");
    assert!(
        !log.contains("canary-of"),
        "a payload or label is in the log"
    );
    let lawful = lawful();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).expect("one JSON object a line");
        if let Some(event) = line["event"].as_str() {
            assert!(lawful.contains(event), "{event}");
        }
    }
    let path = state.path("dev.log");
    let path = path.to_str().expect("text");
    let (code, out, _) = outcome(&mut opsctl(&[
        "logs",
        "summarize",
        path,
        "--output",
        "json",
    ]));
    assert_eq!(code, 0);
    let summary: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(summary["bad_lines"], 0, "{summary}");
    let requests = &summary["requests"];
    assert_eq!(requests["outcomes"]["unauthorized"], 1, "{summary}");
    assert_eq!(requests["outcomes"]["unprocessable"], 1, "{summary}");
    assert_eq!(requests["statuses"]["401"], 1, "{summary}");
    assert!(
        requests["total_ms"]["p95"].as_f64() > Some(0.0),
        "{summary}"
    );
    // The first job of dev, three of smoke, and the one with a payload of ours.
    let attempts = &summary["attempts"];
    assert_eq!(
        attempts["outcomes"],
        serde_json::json!({"aborted": 1, "failed": 1, "succeeded": 5})
    );
    assert_eq!(attempts["wait_ms"]["count"], 7);
    let (code, text, _) = outcome(&mut opsctl(&["logs", "summarize", path]));
    assert_eq!(code, 0);
    assert!(
        text.contains("0 of them bad") && text.contains("attempt wait"),
        "{text}"
    );
    assert_eq!(
        outcome(&mut opsctl(&["logs", "summarize", "/nowhere"])).0,
        1
    );
}
