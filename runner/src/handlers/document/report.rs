//! What a rendering found, for programs (`report.json`) and for people (`report.md`).

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::template::Findings;

/// The names of the report's files.
pub(super) const NAMES: [&str; 2] = ["report.json", "report.md"];

/// How a rendering ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    MissingRequired,
    StrictFailed,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::MissingRequired => "missing_required",
            Self::StrictFailed => "strict_failed",
        }
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) outcome: Outcome,
    pub(super) output: String,
    template: String,
    findings: Findings,
}

impl Report {
    pub(super) fn of(findings: Findings, strict: bool, template: String, output: String) -> Self {
        let outcome = if !findings.missing.is_empty() {
            Outcome::MissingRequired
        } else if strict && !findings.faults.is_empty() {
            Outcome::StrictFailed
        } else {
            Outcome::Ok
        };
        Self {
            outcome,
            output,
            template,
            findings,
        }
    }

    /// In one line.
    pub(super) fn summary(&self) -> String {
        let some = |all: Vec<&str>| {
            let more = all.len().saturating_sub(5);
            let first = all.into_iter().take(5).collect::<Vec<_>>().join(", ");
            if more > 0 {
                format!("{first} and {more} more")
            } else {
                first
            }
        };
        match self.outcome {
            Outcome::Ok => format!("{} is rendered from {}", self.output, self.template),
            Outcome::MissingRequired => {
                format!(
                    "required input is missing: {}",
                    some(self.findings.missing.keys().map(String::as_str).collect())
                )
            }
            Outcome::StrictFailed => {
                format!(
                    "the strict format check failed: {}",
                    some(self.findings.faults.iter().map(String::as_str).collect())
                )
            }
        }
    }

    /// What is kept as the job's result.
    pub(super) fn result(&self) -> Value {
        json!({ "outcome": self.outcome.word(), "document": self.output, "warnings": self.findings.faults })
    }

    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        std::fs::write(folder.join(NAMES[0]), format!("{:#}\n", self.json()))?;
        std::fs::write(folder.join(NAMES[1]), self.text())
    }

    fn json(&self) -> Value {
        let missing: Vec<Value> = self
            .findings
            .missing
            .iter()
            .map(|(path, times)| json!({ "path": path, "asked_for": times }))
            .collect();
        let document = (self.outcome != Outcome::MissingRequired).then_some(&self.output);
        json!({
            "outcome": self.outcome.word(),
            "template": self.template,
            "document": document,
            "missing": missing,
            "format": self.findings.faults,
        })
    }

    fn text(&self) -> String {
        let mut text = format!("# {}\n\n{}\n", self.template, self.summary());
        let findings = &self.findings;
        if !findings.missing.is_empty() {
            text.push_str("\n## Missing\n\n");
            for (path, times) in &findings.missing {
                // Writing into a text does not fail.
                let _ = writeln!(text, "- `{path}`, asked for {times} times");
            }
        }
        if !findings.faults.is_empty() {
            text.push_str("\n## Format\n\n");
            for fault in &findings.faults {
                let _ = writeln!(text, "- {fault}");
            }
        }
        text
    }
}
