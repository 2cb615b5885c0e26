//! What a person needs once everything serves: addresses, keys, files, and three calls to try.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::keys::{KeyFiles, Keys};
use super::services::Services;
use crate::screen::{Ink, Output, Screen};

pub(super) struct Banner<'a> {
    pub(super) services: &'a Services,
    pub(super) keys: &'a Keys,
    pub(super) files: &'a KeyFiles,
    pub(super) log: &'a Path,
    pub(super) psql: &'a str,
    pub(super) took: Duration,
}

impl Banner<'_> {
    pub(super) fn show(&self, screen: &Screen) {
        match screen.output() {
            Output::Json => self.json(screen),
            Output::Text => self.text(screen),
        }
    }

    fn text(&self, screen: &Screen) {
        let lines = [
            ("control plane", self.services.control_plane_url()),
            ("runner", self.services.runner_url()),
            ("API key", self.keys.api_key.expose().to_owned()),
            ("runner token", self.keys.runner_token.expose().to_owned()),
            ("keys file", self.files.env.display().to_string()),
            ("job types", self.services.runner_file().display().to_string()),
            ("log", self.log.display().to_string()),
            ("psql", self.psql.to_owned()),
        ];
        let took = self.took.as_secs_f64();
        screen.line(&screen.paint(Ink::Strong, &format!("serving after {took:.1} s; Ctrl-C ends it")));
        for (name, value) in lines {
            screen.line(&format!("{name:<13} {value}"));
        }
        screen.line(&screen.paint(Ink::Strong, "try"));
        for line in self.calls() {
            screen.line(&line);
        }
    }

    /// Three calls that work as they stand: list the jobs, send one, ask what the control plane can do.
    fn calls(&self) -> [String; 3] {
        let base = format!("{}/api/v1/ops", self.services.control_plane_url());
        let curl = format!("curl -sS -H @{}", quoted(&self.files.header));
        [
            format!("{curl} {base}/jobs"),
            format!("{curl} -H 'Content-Type: application/json' -d '{{\"job_type\": \"hello\"}}' {base}/trigger_runner"),
            format!("{curl} {base}/meta"),
        ]
    }

    fn json(&self, screen: &Screen) {
        screen.json(&json!({
            "control_plane": self.services.control_plane_url(),
            "runner": self.services.runner_url(),
            "keys_file": self.files.env,
            "header_file": self.files.header,
            "runner_file": self.services.runner_file(),
            "log_file": self.log,
            "psql": self.psql,
            "seconds": self.took.as_secs_f64(),
        }));
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_blanks_is_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("/var/lib/ops-jobs/a.header")), "/var/lib/ops-jobs/a.header");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
