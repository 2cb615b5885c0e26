//! What was promised, what was found, and whether the one is within the other. Measures nothing itself.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::checker::{Class, Invariant, recoveries};
use crate::history::History;
use crate::profile::{LEASE, POLL, Profile};
use crate::report::Report;
use crate::schedule::Kind;
use crate::terms::GRACE;

/// One promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Of what.
    pub name: String,
    /// What was found.
    pub found: String,
    /// What was promised.
    pub bound: String,
    /// Whether it is within the bound.
    pub holds: bool,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.holds { "pass" } else { "FAIL" };
        let Self {
            name, found, bound, ..
        } = self;
        write!(f, "{verdict}  {name:<52} {found:>24}  ({bound})")
    }
}

/// Every promise of the run.
pub(crate) fn figures(report: &Report, profile: &Profile) -> Vec<Figure> {
    let mut figures = counts(report, profile);
    figures.extend(breaches(report));
    figures.extend(times(report));
    figures
}

fn at_least(name: impl Into<String>, found: usize, least: usize) -> Figure {
    Figure {
        name: name.into(),
        found: found.to_string(),
        bound: format!("at least {least}"),
        holds: found >= least,
    }
}

fn none(name: &str, found: usize) -> Figure {
    Figure {
        name: name.to_owned(),
        found: found.to_string(),
        bound: "0".to_owned(),
        holds: found == 0,
    }
}

/// Of so many, the one that this share of them is not above. Nothing measured is nothing proved.
fn within(name: &str, mut times: Vec<Duration>, percent: usize, bound: Duration) -> Figure {
    times.sort();
    let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
    let found = times.get(at).copied();
    let last = times.last().copied().unwrap_or_default();
    Figure {
        name: name.to_owned(),
        found: found.map_or_else(
            || "none measured".to_owned(),
            |found| {
                format!(
                    "{} ms, max {} of {}",
                    found.as_millis(),
                    last.as_millis(),
                    times.len()
                )
            },
        ),
        bound: format!("at most {} ms", bound.as_millis()),
        holds: found.is_some_and(|found| found <= bound),
    }
}

fn counts(report: &Report, profile: &Profile) -> Vec<Figure> {
    let acknowledged = report.history.acks.iter().filter(|ack| ack.job.is_some());
    let mut figures = vec![at_least(
        "jobs acknowledged",
        acknowledged.count(),
        profile.jobs,
    )];
    for (kind, least) in &profile.faults {
        let name = match kind {
            Kind::Runner => "kills of runners with their hosts",
            Kind::RunnerAlone => "kills of runners alone",
            Kind::ControlPlane => "kills of control planes",
            Kind::Postmaster => "kills of the postmaster",
            Kind::Backend => "kills of its backends",
            Kind::Pause => "pauses of two leases",
            Kind::BlackHole => "black-holed networks",
            Kind::ResetStorm => "reset storms",
        };
        let there = report.faults.get(kind).copied().unwrap_or(0);
        figures.push(at_least(name, there, *least));
    }
    figures
}

fn breaches(report: &Report) -> Vec<Figure> {
    let mut broken: BTreeMap<Invariant, usize> = BTreeMap::new();
    report
        .violations
        .iter()
        .for_each(|violation| *broken.entry(violation.invariant).or_default() += 1);
    let of = |invariants: &[Invariant]| {
        invariants
            .iter()
            .filter_map(|invariant| broken.get(invariant))
            .sum()
    };
    vec![
        none("lost", of(&[Invariant::NoLoss])),
        none("stuck", of(&[Invariant::Settles])),
        none(
            "overlaps, and stale writes accepted",
            of(&[Invariant::Overlap, Invariant::Fence]),
        ),
        none(
            "invalid event sequences",
            of(&[Invariant::Language, Invariant::Fold, Invariant::Time]),
        ),
        none("doubled creations", of(&[Invariant::NoDouble])),
        none(
            "work and events that disagree",
            of(&[Invariant::LedgerIsEvents]),
        ),
        none(
            "attempts beyond the budget or before their time",
            of(&[Invariant::Budget]),
        ),
        none("costs of deploys", of(&[Invariant::Deploy])),
        none("limits exceeded", of(&[Invariant::Limits])),
        none(
            "processes that lived too long",
            of(&[Invariant::NoProcessLeft]),
        ),
        none("logs that are not what was printed", of(&[Invariant::Log])),
        none("leaks", of(&[Invariant::NothingLeft])),
        none("secrets seen", of(&[Invariant::Secret])),
        none("wrong answers", of(&[Invariant::Answers])),
    ]
}

fn times(report: &Report) -> Vec<Figure> {
    let measured = &report.measured;
    let recovery = |class| -> Vec<Duration> {
        recoveries(&report.history)
            .into_iter()
            .filter(|recovery| recovery.class == class)
            .map(|recovery| recovery.took.unsigned_abs())
            .collect()
    };
    let refused = measured.refusals.iter();
    let other = refused.clone().filter(|(_, status)| *status != 503).count();
    vec![
        within(
            "a dead runner's jobs are back, p99",
            recovery(Class::Dead),
            99,
            Duration::from_secs(LEASE + POLL + 1),
        ),
        within(
            "a restarted runner's jobs are back, p99",
            recovery(Class::Restarted),
            99,
            Duration::from_secs(2),
        ),
        within(
            "what a leaving runner hands back runs again, p99",
            recovery(Class::Drained),
            99,
            Duration::from_secs(1),
        ),
        within(
            "full service after PostgreSQL accepts again",
            measured.after_restarts.clone(),
            100,
            Duration::from_secs(3),
        ),
        within(
            "full service after the black hole",
            measured.after_black_hole.clone(),
            100,
            Duration::from_secs(10),
        ),
        within(
            "refusals in the black hole",
            refused.map(|(took, _)| *took).collect(),
            100,
            Duration::from_secs(3),
        ),
        none("answers in the black hole other than 503", other),
        none(
            "processes restarted by the black hole",
            measured.new_processes.len(),
        ),
        within(
            "the last sign of timed-out work after its grace",
            overtime(&report.history),
            100,
            Duration::from_secs(1),
        ),
    ]
}

/// How long after timeout and grace the last process of each job that does not end by itself was seen.
fn overtime(history: &History) -> Vec<Duration> {
    let mut seen: BTreeMap<(uuid::Uuid, i64), (u64, u64)> = BTreeMap::new();
    for record in &history.ledger {
        let run = seen
            .entry((record.job, record.fence))
            .or_insert((record.at, record.at));
        *run = (run.0.min(record.at), run.1.max(record.at));
    }
    let endless = seen.into_iter().filter_map(|((job, _), (from, until))| {
        let name = history.rows.get(&job)?.job_type.as_str();
        let timeout = *history.terms.timeouts.get(name)?;
        let ends = ["endless", "shadowed"].contains(&name);
        ends.then(|| Duration::from_nanos(until - from).saturating_sub(timeout + GRACE))
    });
    endless.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_one_that_no_more_than_its_share_is_above() {
        let times = |count| (1..=count).map(Duration::from_millis).collect::<Vec<_>>();
        let bound = Duration::from_millis(99);
        assert!(within("", times(100), 99, bound).holds);
        assert!(!within("", times(100), 100, bound).holds);
        assert!(!within("", times(200), 99, bound).holds);
    }

    #[test]
    fn what_was_never_measured_or_happened_too_seldom_has_not_passed() {
        assert!(!within("", Vec::new(), 99, Duration::MAX).holds);
        assert!(!at_least("", 9, 10).holds);
        assert!(at_least("", 10, 10).holds);
        assert!(!none("", 1).holds);
    }
}
