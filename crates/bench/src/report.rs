//! What was measured: every value as JSON, and medians with ratios for people. Measures nothing.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::stats::{median, paired_ratios, range};

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// More is better.
    PerSecond,
    /// Less is better.
    Milliseconds,
    /// Less is better.
    Megabytes,
    /// More is better.
    Ratio,
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Self::PerSecond => "/s",
            Self::Milliseconds => "ms",
            Self::Megabytes => "MB",
            Self::Ratio => "",
        }
    }
}

/// One value.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Which workload.
    pub workload: String,
    /// What of it.
    pub metric: String,
    /// Who: the product, its base, or a peer.
    pub subject: String,
    /// In which round.
    pub round: usize,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: Unit,
}

/// The one whom the others are compared with.
pub const BASE: &str = "raw";
/// We.
pub const PRODUCT: &str = "ops-jobs";

/// Everything that was measured in a run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    samples: Vec<Sample>,
    /// What was left out, and why.
    notes: Vec<String>,
}

/// Where a value belongs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Which workload.
    pub workload: &'a str,
    /// In which round.
    pub round: usize,
}

impl Report {
    /// Keeps a value, and tells it at once: a run takes long.
    #[expect(clippy::print_stderr, reason = "a program for a person at a terminal")]
    pub fn keep(&mut self, place: Place<'_>, metric: &str, subject: &str, value: f64, unit: Unit) {
        let Place { workload, round } = place;
        eprintln!(
            "{workload:>10} {round:>2}  {metric:<34} {subject:<20} {value:>12.2} {}",
            unit.word()
        );
        self.samples.push(Sample {
            workload: workload.to_owned(),
            metric: metric.to_owned(),
            subject: subject.to_owned(),
            round,
            value,
            unit,
        });
    }

    /// Keeps a remark.
    #[expect(clippy::print_stderr, reason = "a program for a person at a terminal")]
    pub fn note(&mut self, text: String) {
        eprintln!("{text}");
        self.notes.push(text);
    }

    /// Every value of one subject, in the order of the rounds.
    pub fn values(&self, workload: &str, metric: &str, subject: &str) -> Vec<f64> {
        let of = |sample: &&Sample| {
            sample.workload == workload && sample.metric == metric && sample.subject == subject
        };
        self.samples
            .iter()
            .filter(of)
            .map(|sample| sample.value)
            .collect()
    }

    /// The whole report as JSON.
    ///
    /// # Errors
    /// Never in practice: every value is finite.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

type Rounds = Vec<(usize, f64)>;
type Subjects<'a> = BTreeMap<&'a str, (Rounds, Unit)>;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tables: BTreeMap<(&str, &str), Subjects<'_>> = BTreeMap::new();
        for sample in &self.samples {
            let table = tables
                .entry((&sample.workload, &sample.metric))
                .or_default();
            let row = table
                .entry(&sample.subject)
                .or_insert((Vec::new(), sample.unit));
            row.0.push((sample.round, sample.value));
        }
        for ((workload, metric), subjects) in tables {
            writeln!(f, "{workload}: {metric}")?;
            let base = subjects.get(BASE).map(|(rounds, _)| rounds);
            for (subject, (rounds, unit)) in &subjects {
                f.write_str(&line(subject, rounds, *unit, base))?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

fn line(subject: &str, rounds: &Rounds, unit: Unit, base: Option<&Rounds>) -> String {
    let values: Vec<f64> = rounds.iter().map(|(_, value)| *value).collect();
    let (least, most) = range(&values).unwrap_or_default();
    let middle = median(&values).unwrap_or_default();
    let mut line = format!(
        "  {subject:<22} {middle:>12.2} {:<3} ({least:.2} to {most:.2}, n = {})",
        unit.word(),
        values.len()
    );
    if let Some(ratio) = base.and_then(|base| median(&paired_ratios(rounds, base))) {
        let _ = write!(line, "  {ratio:.3} of {BASE}");
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_medians_and_the_ratio_within_rounds() {
        let mut report = Report::default();
        for (round, (raw, ours)) in [(100.0, 80.0), (10.0, 9.0), (50.0, 30.0)]
            .into_iter()
            .enumerate()
        {
            let place = Place {
                workload: "drain",
                round,
            };
            report.keep(place, "jobs", BASE, raw, Unit::PerSecond);
            report.keep(place, "jobs", PRODUCT, ours, Unit::PerSecond);
        }
        report.note("a peer was left out".to_owned());
        let text = report.to_string();
        assert!(text.contains("drain: jobs"), "{text}");
        assert!(text.contains("30.00"), "{text}");
        assert!(text.contains("0.800 of raw"), "{text}");
        assert!(text.ends_with("a peer was left out\n"), "{text}");
        assert_eq!(report.values("drain", "jobs", BASE), [100.0, 10.0, 50.0]);
        assert!(report.json().expect("JSON").contains("\"per_second\""));
    }
}
