//! What a load test writes down: result.json for programs, result.md for people. Judges nothing.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::leftovers::{Leaked, Temporary};
use super::round::Round;
use super::verdict::{self, Check, Limits};
use super::{LoadTest, Run};
use crate::error::Error;
use crate::figures::Percentiles;

/// Everything that was measured, and the verdict.
pub(super) struct Report {
    setup: Value,
    rounds: Vec<Round>,
    leaked: Option<Vec<Leaked>>,
    temporary: (Temporary, Temporary),
    limits: Limits,
    checks: Vec<Check>,
}

impl Report {
    pub(super) fn new(
        test: &LoadTest,
        limits: Limits,
        run: Run,
        temporary: (Temporary, Temporary),
    ) -> Self {
        let checks = verdict::checks(limits, &run.rounds, run.leaked.as_deref(), temporary);
        Self {
            setup: json!({
                "job_type": String::from(test.job_type.clone()),
                "rounds": test.rounds,
                "warm_up": test.warm_up,
                "jobs": test.jobs,
                "concurrency": test.concurrency,
            }),
            rounds: run.rounds,
            leaked: run.leaked,
            temporary,
            limits,
            checks,
        }
    }

    /// The first thing to look at, if anything is wrong.
    pub(super) fn look_first(&self) -> Option<String> {
        let wrong = self.checks.iter().find(|check| !check.ok)?;
        Some(format!(
            "{}: {} where {} is allowed; {}",
            wrong.name, wrong.measured, wrong.allowed, wrong.look
        ))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "ok": self.look_first().is_none(),
            "look_first": self.look_first(),
            "version": env!("CARGO_PKG_VERSION"),
            "setup": self.setup,
            "limits": self.limits,
            "checks": self.checks,
            "rounds": self.rounds.iter().map(Round::json).collect::<Vec<_>>(),
            "leaked": self.leaked,
            "temporary": {"before": self.temporary.0, "after": self.temporary.1},
        })
    }

    /// The same for people, as Markdown.
    pub(super) fn text(&self) -> String {
        let mut text = String::from("# Load test\n\n");
        text.push_str(&match self.look_first() {
            None => "Everything was kept to.\n".to_owned(),
            Some(first) => format!("**Failed.** Look first at {first}\n"),
        });
        let word = |name: &str| {
            self.setup
                .get(name)
                .map(ToString::to_string)
                .unwrap_or_default()
        };
        let (rounds, warm_up) = (word("rounds"), word("warm_up"));
        let (jobs, type_, callers) = (word("jobs"), word("job_type"), word("concurrency"));
        text.push_str(&format!(
            "\n{rounds} rounds after {warm_up} to warm up, {jobs} jobs of type {type_} each, {callers} callers at once.\n"
        ));
        text.push_str("\n| check | measured | allowed | kept |\n| --- | --- | --- | --- |\n");
        for check in &self.checks {
            let kept = if check.ok { "yes" } else { "**no**" };
            let Check {
                name,
                measured,
                allowed,
                ..
            } = check;
            text.push_str(&format!("| {name} | {measured} | {allowed} | {kept} |\n"));
        }
        text.push_str("\n| round | outcomes | refusals | wait p50 / p95 | total p50 / p95 |\n| --- | --- | --- | --- | --- |\n");
        for (number, round) in (1..).zip(&self.rounds) {
            text.push_str(&row(number, round));
        }
        text
    }

    /// Writes both files; nobody sees half of one.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Error> {
        let json = serde_json::to_string_pretty(&self.json()).unwrap_or_default();
        for (name, text) in [("result.json", json + "\n"), ("result.md", self.text())] {
            let (path, draft) = (folder.join(name), folder.join(format!("{name}.new")));
            fs::write(&draft, text)
                .and_then(|()| fs::rename(&draft, &path))
                .map_err(Error::io("write", &path))?;
        }
        Ok(())
    }
}

fn row(number: u32, round: &Round) -> String {
    let pair = |of: Option<Percentiles>| {
        of.map_or_else(
            || "-".to_owned(),
            |of| format!("{:.0} / {:.0} ms", of.p50, of.p95),
        )
    };
    let outcomes: Vec<_> = round
        .outcomes()
        .iter()
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    let refusals: Vec<_> = round
        .refusals()
        .iter()
        .map(|(status, count)| format!("{count} of {status}"))
        .collect();
    let refusals = if refusals.is_empty() {
        "none".to_owned()
    } else {
        refusals.join(", ")
    };
    let warm_up = if round.is_warm_up { " (warm-up)" } else { "" };
    format!(
        "| {number}{warm_up} | {} | {refusals} | {} | {} |\n",
        outcomes.join(", "),
        pair(round.wait()),
        pair(round.total()),
    )
}
