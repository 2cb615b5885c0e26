//! What a person needs once everything serves: addresses, keys, files, and three calls to try.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::SetUp;
use crate::screen::{Ink, Output, Screen};

/// Shows it; `took` is how long it all took.
pub(super) fn show(set_up: &SetUp, took: Duration, screen: &Screen) {
    match screen.output() {
        Output::Json => json(set_up, took, screen),
        Output::Text => text(set_up, took, screen),
    }
}

fn text(set_up: &SetUp, took: Duration, screen: &Screen) {
    let took = took.as_secs_f64();
    let lines = [
        ("control plane", set_up.services.control_plane_url()),
        ("runner", set_up.services.runner_url()),
        ("API key", set_up.keys.api_key.expose().to_owned()),
        ("runner token", set_up.keys.runner_token.expose().to_owned()),
        ("keys file", set_up.files.env.display().to_string()),
        (
            "job types",
            set_up.services.runner_file().display().to_string(),
        ),
        ("log", set_up.log.display().to_string()),
        ("psql", set_up.psql.clone()),
    ];
    let heading = format!("serving after {took:.1} s; Ctrl-C ends it");
    screen.line(&screen.paint(Ink::Strong, &heading));
    for (name, value) in lines {
        screen.line(&format!("{name:<13} {value}"));
    }
    screen.line(&screen.paint(Ink::Strong, "try"));
    for line in calls(set_up) {
        screen.line(&line);
    }
}

/// Three calls that work as they stand: list the jobs, send one, ask what the control plane can do.
fn calls(set_up: &SetUp) -> [String; 3] {
    let base = format!("{}/api/v1/ops", set_up.services.control_plane_url());
    let curl = format!("curl -sS -H @{}", quoted(&set_up.files.header));
    let body = "-H 'Content-Type: application/json' -d '{\"job_type\": \"hello\"}'";
    [
        format!("{curl} {base}/jobs"),
        format!("{curl} {body} {base}/trigger_runner"),
        format!("{curl} {base}/meta"),
    ]
}

fn json(set_up: &SetUp, took: Duration, screen: &Screen) {
    screen.json(&json!({
        "control_plane": set_up.services.control_plane_url(),
        "runner": set_up.services.runner_url(),
        "keys_file": set_up.files.env,
        "header_file": set_up.files.header,
        "runner_file": set_up.services.runner_file(),
        "log_file": set_up.log,
        "psql": set_up.psql,
        "seconds": took.as_secs_f64(),
    }));
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
    if plain {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_blanks_is_quoted_for_the_shell() {
        assert_eq!(
            quoted(Path::new("/var/lib/ops-jobs/a.header")),
            "/var/lib/ops-jobs/a.header"
        );
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
