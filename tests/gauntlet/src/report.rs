//! What a run came to, in figures and, where something broke, in the story of the first broken job.

use std::collections::BTreeMap;
use std::fmt;

use crate::checker::Violation;
use crate::directed::Measured;
use crate::figures::Figure;
use crate::history::History;
use crate::profile::NOT_YET;
use crate::schedule::Kind;

/// The outcome of a run.
#[derive(Debug)]
pub struct Report {
    /// The seed of its schedule.
    pub seed: u64,
    /// How often each fault happened.
    pub faults: BTreeMap<Kind, usize>,
    /// What is wrong beyond the history: a fault that did not happen often enough, a program that ended by itself.
    pub troubles: Vec<String>,
    /// What is wrong with the history.
    pub violations: Vec<Violation>,
    /// The history.
    pub history: History,
    /// What was measured in the directed half.
    pub measured: Measured,
    /// Every promise, with what was found.
    pub figures: Vec<Figure>,
    /// Whether the figures must be within their bounds.
    pub judged: bool,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        let within = !self.judged || self.figures.iter().all(|figure| figure.holds);
        self.troubles.is_empty() && self.violations.is_empty() && within
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let history = &self.history;
        let of_kind = |kind: &str| {
            history
                .events
                .values()
                .flatten()
                .filter(|event| event.kind == kind)
                .count()
        };
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "faults: {:?}", self.faults)?;
        for (kind, reason) in NOT_YET {
            writeln!(f, "left out: {kind:?}, because {reason}")?;
        }
        let mut statuses: BTreeMap<&str, usize> = BTreeMap::new();
        history
            .rows
            .values()
            .for_each(|row| *statuses.entry(&row.status).or_default() += 1);
        writeln!(
            f,
            "jobs: {} {statuses:?}, {} acknowledged",
            history.rows.len(),
            history.acks.iter().filter(|ack| ack.job.is_some()).count()
        )?;
        writeln!(
            f,
            "claims: {}, lost {}, released {}, retried {}, stale results refused {}",
            of_kind("running"),
            of_kind("lease_expired"),
            of_kind("released"),
            of_kind("retry_scheduled"),
            of_kind("stale_result_refused")
        )?;
        let refused = history
            .effects
            .iter()
            .filter(|effect| !effect.accepted)
            .count();
        writeln!(
            f,
            "ledger: {} records; sink: {} effects, {refused} refused",
            history.ledger.len(),
            history.effects.len()
        )?;
        let mut answers: BTreeMap<u16, usize> = BTreeMap::new();
        history
            .answers
            .iter()
            .for_each(|answer| *answers.entry(answer.status).or_default() += 1);
        writeln!(f, "answers: {answers:?}")?;
        for figure in &self.figures {
            let line = figure.to_string();
            // A machine that does much else proves nothing about time.
            let line = if self.judged {
                line
            } else {
                line.replacen("FAIL", "----", 1)
            };
            writeln!(f, "{line}")?;
        }
        if !self.judged {
            writeln!(f, "(figures are judged in the full run only)")?;
        }
        for trouble in &self.troubles {
            writeln!(f, "TROUBLE: {trouble}")?;
        }
        let mut broken: BTreeMap<_, usize> = BTreeMap::new();
        self.violations
            .iter()
            .for_each(|violation| *broken.entry(violation.invariant).or_default() += 1);
        if self.violations.is_empty() {
            return writeln!(f, "every invariant holds");
        }
        writeln!(f, "BROKEN: {broken:?}")?;
        for violation in self.violations.iter().take(20) {
            writeln!(f, "  {violation}")?;
        }
        match self.violations.iter().find_map(|violation| violation.job) {
            Some(job) => writeln!(f, "{}", history.story(job)),
            None => Ok(()),
        }
    }
}
