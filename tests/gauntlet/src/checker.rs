//! Judges a history. Pure: reads no file and no database, and shares no code with the product.

mod clients;
mod deadlines;
mod deploy;
mod ends;
mod limits;
mod lives;
mod logs;
mod work;

use std::fmt;

use uuid::Uuid;

use crate::history::History;

pub use ends::{Class, Recovery, recoveries};

/// What must hold of every history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Invariant {
    /// I1: every acknowledged job is there.
    NoLoss,
    /// I2: one job a key, and none that nobody asked for.
    NoDouble,
    /// I3: in the end nothing is queued or running.
    Settles,
    /// I4: the kinds of events form a legal life.
    Language,
    /// I5: the events explain the row.
    Fold,
    /// I6: fences grow within a job, and each belongs to one claim.
    Fence,
    /// I7: no more attempts than allowed, none before its time.
    Budget,
    /// I8: what handlers did and what the events say agree.
    LedgerIsEvents,
    /// I9: no two handlers of one job at once; the sink takes no lower fence.
    Overlap,
    /// I10: the job of a killed runner comes back in time.
    Recovery,
    /// I11: in the window of a deploy no request fails, no attempt is used up, no job fails.
    Deploy,
    /// I12: no more at once than a type or a runner allows.
    Limits,
    /// I13: no process of a job outlives its timeout, its abort, its runner or the system.
    NoProcessLeft,
    /// I15: instants of a job never go back, and none is in the future.
    Time,
    /// I16: the stored output is what the handler printed.
    Log,
    /// I19: no folder, session, lock, thread or file is left.
    NothingLeft,
    /// I20: no secret is seen where it does not belong.
    Secret,
    /// I21: no answer is a 500, each 503 and 429 says when to come back, and each refusal is a problem+json.
    Answers,
    // I14 (gates), I17 (streams), I18 (schedules) and I22 (artifacts) come with their features: a variant here, a file
    // beside the others in `checker/`, and bad histories in `tests.rs`.
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant does not hold.
    pub invariant: Invariant,
    /// Of which job, where it is one.
    pub job: Option<Uuid>,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.invariant)?;
        if let Some(job) = self.job {
            write!(f, " job {job}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Collects what is wrong.
#[derive(Debug, Default)]
struct Verdict(Vec<Violation>);

impl Verdict {
    fn add(&mut self, invariant: Invariant, job: impl Into<Option<Uuid>>, what: impl Into<String>) {
        self.0.push(Violation {
            invariant,
            job: job.into(),
            what: what.into(),
        });
    }
}

/// Everything that is wrong with a history.
pub fn check(history: &History) -> Vec<Violation> {
    let mut verdict = Verdict::default();
    let runs = work::runs(&history.ledger);
    clients::check(history, &mut verdict);
    lives::check(history, &mut verdict);
    work::check(history, &runs, &mut verdict);
    deploy::check(history, &runs, &mut verdict);
    limits::check(history, &runs, &mut verdict);
    deadlines::check(history, &runs, &mut verdict);
    logs::check(history, &runs, &mut verdict);
    ends::check(history, &mut verdict);
    verdict.0
}

#[cfg(test)]
mod tests;
