//! What a load test must keep to, and whether it did. The worst measured round decides; warm-ups only count where nothing
//! excuses them: an answer of 5xx, a leaked process.

use clap::Args;
use serde::Serialize;

use super::leftovers::{Leaked, Temporary};
use super::round::Round;
use crate::figures::Percentiles;

/// The limits as flags; each wins over its setting.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    /// The p95 from recorded to ended, of the worst round; else LOAD_TEST_MAX_TOTAL_P95_MS
    #[arg(long, value_name = "MS")]
    max_total_p95_ms: Option<u64>,
    /// The p95 from recorded to started, of the worst round; else LOAD_TEST_MAX_WAIT_P95_MS
    #[arg(long, value_name = "MS")]
    max_wait_p95_ms: Option<u64>,
    /// More temporary bytes than before; else LOAD_TEST_MAX_TEMPORARY_BYTES
    #[arg(long, value_name = "BYTES")]
    max_temporary_bytes: Option<u64>,
    /// More temporary files than before; else LOAD_TEST_MAX_TEMPORARY_FILES
    #[arg(long, value_name = "COUNT")]
    max_temporary_files: Option<u64>,
}

/// What a load test must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Limits {
    pub(crate) total_p95_ms: u64,
    pub(crate) wait_p95_ms: u64,
    pub(crate) temporary_bytes: u64,
    pub(crate) temporary_files: u64,
}

/// One thing that was to be kept to; what was measured and what is allowed, as a person reads them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) measured: String,
    pub(super) allowed: String,
    pub(super) ok: bool,
    /// Where to look when it was not kept to.
    pub(super) look: String,
}

impl Flags {
    pub(super) fn or(self, set: Limits) -> Limits {
        Limits {
            total_p95_ms: self.max_total_p95_ms.unwrap_or(set.total_p95_ms),
            wait_p95_ms: self.max_wait_p95_ms.unwrap_or(set.wait_p95_ms),
            temporary_bytes: self.max_temporary_bytes.unwrap_or(set.temporary_bytes),
            temporary_files: self.max_temporary_files.unwrap_or(set.temporary_files),
        }
    }
}

/// Every check, in the order in which they are worth a look.
pub(super) fn checks(
    limits: Limits,
    rounds: &[Round],
    leaked: Option<&[Leaked]>,
    (before, after): (Temporary, Temporary),
) -> Vec<Check> {
    vec![
        answers(rounds),
        successes(rounds),
        processes(leaked),
        tail("total p95", limits.total_p95_ms, rounds, Round::total),
        tail("wait p95", limits.wait_p95_ms, rounds, Round::wait),
        growth(
            "temporary bytes",
            limits.temporary_bytes,
            before.bytes,
            after.bytes,
        ),
        growth(
            "temporary files",
            limits.temporary_files,
            before.files,
            after.files,
        ),
    ]
}

/// No answer of 5xx, and none that did not come; of warm-ups neither.
fn answers(rounds: &[Round]) -> Check {
    let all = rounds.iter().flat_map(Round::refusals);
    let bad: u32 = all
        .filter(|(status, _)| *status == 0 || *status >= 500)
        .map(|(_, count)| count)
        .sum();
    Check {
        name: "5xx",
        measured: bad.to_string(),
        allowed: "0".to_owned(),
        ok: bad == 0,
        look: "`store_failed` and `request` lines of the services' logs".to_owned(),
    }
}

/// Every job of a measured round succeeded.
fn successes(rounds: &[Round]) -> Check {
    let sent: Vec<_> = measured(rounds).flat_map(|round| &round.sent).collect();
    let not: Vec<_> = sent
        .iter()
        .filter(|sent| sent.outcome != "succeeded")
        .collect();
    let look = match not.first() {
        Some(sent) => match &sent.id {
            Some(id) => format!(
                "job {id}, which is {}: `opsctl jobs events {id}`",
                sent.outcome
            ),
            None => format!("a job that was not recorded: {}", sent.outcome),
        },
        None => String::new(),
    };
    Check {
        name: "not succeeded",
        measured: format!("{} of {}", not.len(), sent.len()),
        allowed: "0".to_owned(),
        ok: not.is_empty() && !sent.is_empty(),
        look,
    }
}

fn processes(leaked: Option<&[Leaked]>) -> Check {
    let look = leaked
        .and_then(<[Leaked]>::first)
        .map(|one| format!("process {} of job {}, which has ended", one.pid, one.job_id));
    Check {
        name: "leaked processes",
        measured: leaked.map_or_else(|| "not looked at".to_owned(), |all| all.len().to_string()),
        allowed: "0".to_owned(),
        ok: look.is_none(),
        look: look.unwrap_or_default(),
    }
}

fn tail(
    name: &'static str,
    limit: u64,
    rounds: &[Round],
    of: impl Fn(&Round) -> Option<Percentiles>,
) -> Check {
    let worst = measured(rounds)
        .filter_map(of)
        .map(|of| of.p95)
        .max_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "a limit in milliseconds")]
    let ok = worst.is_some_and(|worst| worst <= limit as f64);
    Check {
        name,
        measured: worst.map_or_else(|| "nothing".to_owned(), |worst| format!("{worst:.0} ms")),
        allowed: format!("{limit} ms"),
        ok,
        look: "slots and depth of the queue: `opsctl runners`, `opsctl jobs list --status queued`"
            .to_owned(),
    }
}

fn growth(name: &'static str, limit: u64, before: u64, after: u64) -> Check {
    let more = after.saturating_sub(before);
    Check {
        name,
        measured: format!("{more} more ({before}, then {after})"),
        allowed: format!("{limit} more"),
        ok: more <= limit,
        look: "what is new in the folder of temporary files; RUNNER_DEBUG_ARTIFACTS keeps runs"
            .to_owned(),
    }
}

fn measured(rounds: &[Round]) -> impl Iterator<Item = &Round> {
    rounds.iter().filter(|round| !round.is_warm_up)
}

#[cfg(test)]
mod tests {
    use super::super::round::Sent;
    use super::*;

    const LIMITS: Limits = Limits {
        total_p95_ms: 100,
        wait_p95_ms: 50,
        temporary_bytes: 10,
        temporary_files: 1,
    };

    fn sent(outcome: &str, total: f64) -> Sent {
        Sent {
            id: Some("j".to_owned()),
            outcome: outcome.to_owned(),
            wait_ms: Some(total / 2.0),
            total_ms: Some(total),
            refusals: Default::default(),
        }
    }

    fn round(is_warm_up: bool, sent: Vec<Sent>) -> Round {
        Round { is_warm_up, sent }
    }

    fn wrong(rounds: &[Round], leaked: Option<&[Leaked]>, after: Temporary) -> Vec<&'static str> {
        let checks = checks(LIMITS, rounds, leaked, (Temporary::default(), after));
        checks
            .iter()
            .filter(|check| !check.ok)
            .map(|check| check.name)
            .collect()
    }

    #[test]
    fn what_is_kept_to_is_right_up_to_the_limit() {
        let rounds = [round(false, vec![sent("succeeded", 100.0)])];
        let after = Temporary {
            files: 1,
            bytes: 10,
        };
        assert!(wrong(&rounds, Some(&[]), after).is_empty());
        assert!(wrong(&rounds, None, after).is_empty());
    }

    #[test]
    fn the_worst_measured_round_decides_and_warm_ups_may_be_slow() {
        let slow = || vec![sent("succeeded", 900.0)];
        let fast = || vec![sent("succeeded", 1.0)];
        let none = Temporary::default();
        let warm = [round(true, slow()), round(false, fast())];
        assert!(wrong(&warm, Some(&[]), none).is_empty());
        let cold = [round(false, slow()), round(false, fast())];
        assert_eq!(wrong(&cold, Some(&[]), none), ["total p95", "wait p95"]);
    }

    #[test]
    fn every_fault_has_its_name_in_the_order_of_weight() {
        let mut refused = sent("refused 503", 1.0);
        refused.refusals.insert(503, 1);
        let rounds = [round(false, vec![refused])];
        let leaked = Leaked {
            pid: 7,
            job_id: "j".to_owned(),
        };
        let after = Temporary {
            files: 2,
            bytes: 11,
        };
        assert_eq!(
            wrong(&rounds, Some(&[leaked]), after),
            [
                "5xx",
                "not succeeded",
                "leaked processes",
                "temporary bytes",
                "temporary files"
            ]
        );
    }

    #[test]
    fn rounds_in_which_nothing_ended_prove_nothing() {
        let wrong = wrong(&[round(false, Vec::new())], Some(&[]), Temporary::default());
        assert_eq!(wrong, ["not succeeded", "total p95", "wait p95"]);
    }

    #[test]
    fn a_flag_wins_over_its_setting() {
        let flags = Flags {
            max_wait_p95_ms: Some(7),
            ..Flags::default()
        };
        assert_eq!(
            flags.or(LIMITS),
            Limits {
                wait_p95_ms: 7,
                ..LIMITS
            }
        );
    }
}
