//! What becomes of the instants that are due: decided from what a schedule says and how things stand, a bounded number at
//! a time. Pure: the store gives the instant that the database's clock shows, and writes what is decided here.

use time::{Duration, OffsetDateTime};

use super::{CatchUp, FireOutcome, Grid, Overlap};

/// So many due instants are looked at in one plan.
pub(crate) const MOST_INSTANTS: usize = 10_000;
/// Not more than this may be made up for (`catch_up_limit`), so that the newest of them lie within one plan and what follows.
const LARGEST_LIMIT: usize = 1000;
/// So many jobs are recorded by one plan.
const MOST_JOBS: usize = 100;
/// A longer run of instants with one fate stands in one row of the ledger.
const LONGEST_RUN: usize = 100;

/// How things stand with a schedule.
#[derive(Clone, Debug)]
pub(crate) struct Standing<'a> {
    pub(crate) name: &'a str,
    pub(crate) now: OffsetDateTime,
    /// The first instant that is not decided, or where to look for it.
    pub(crate) from: OffsetDateTime,
    pub(crate) pause: Pause,
    pub(crate) waiting: Option<OffsetDateTime>,
    /// Whether a job of it has not ended.
    pub(crate) busy: bool,
    /// What of the ledger lies at `from` or after it, in order: the first and the last instant of each row.
    pub(crate) decided: &'a [(OffsetDateTime, OffsetDateTime)],
    pub(crate) catch_up: CatchUp,
    pub(crate) limit: usize,
    pub(crate) grace: Duration,
    pub(crate) overlap: Overlap,
    pub(crate) jitter: u32,
}

/// Whether it is paused, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    Never,
    /// From the first to the second, with why.
    Was(OffsetDateTime, OffsetDateTime, String),
    /// With why.
    Is(String),
}

/// A row for the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) instant: OffsetDateTime,
    pub(crate) through: OffsetDateTime,
    pub(crate) instants: i32,
    pub(crate) outcome: FireOutcome,
    pub(crate) reason: Option<String>,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) entries: Vec<Entry>,
    pub(crate) next: Option<OffsetDateTime>,
    pub(crate) due: Option<OffsetDateTime>,
    pub(crate) waiting: Option<OffsetDateTime>,
    /// More is due than was decided.
    pub(crate) more: bool,
}

/// How much later than its instant a job is recorded: from 0 to `most` seconds, the same for every program that asks.
pub(crate) fn jitter(schedule: &str, instant: OffsetDateTime, most: u32) -> Duration {
    // FNV-1a over the name and the instant, then mixed, because its low bits are poor.
    let instant = instant.unix_timestamp().to_be_bytes();
    let hash = schedule
        .bytes()
        .chain(instant)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let seconds = (mixed >> 32) % (u64::from(most) + 1);
    Duration::seconds(i64::try_from(seconds).unwrap_or(0))
}

/// The fate of one instant, before jobs that have not ended are looked at.
enum Fate {
    /// A job, with a remark where it is late.
    Job(Option<String>),
    No(FireOutcome, String),
}

impl Standing<'_> {
    pub(crate) fn due_at(&self, instant: OffsetDateTime) -> OffsetDateTime {
        instant + jitter(self.name, instant, self.jitter)
    }

    /// Decides what is due.
    pub(crate) fn plan(&self, grid: &Grid) -> Plan {
        let (due, after, more) = self.due(grid);
        // Where more is due than one plan looks at, the newest of it lie ahead; what may be among them is left.
        let settled = if more {
            due.len() - LARGEST_LIMIT
        } else {
            due.len()
        };
        let fates = self.fates(&due, more);
        let mut ledger = Ledger::default();
        let (mut busy, mut waiting) = (self.busy, self.waiting);
        self.release(&mut waiting, &mut busy, &mut ledger);
        let mut next = after;
        let mut stopped = false;
        for (place, (instant, fate)) in due.iter().zip(fates).enumerate() {
            if place == settled || ledger.jobs == MOST_JOBS {
                (next, stopped) = (Some(*instant), true);
                break;
            }
            let Some(fate) = fate else { continue };
            match fate {
                Fate::No(outcome, reason) => ledger.note(place, *instant, outcome, Some(reason)),
                Fate::Job(remark) => match (self.overlap, busy, waiting) {
                    (Overlap::Allow, _, _) | (Overlap::Skip | Overlap::Queue, false, None) => {
                        ledger.note(place, *instant, FireOutcome::Fired, remark);
                        busy = true;
                    }
                    (Overlap::Queue, _, None) => waiting = Some(*instant),
                    (Overlap::Skip, _, _) => {
                        let why = "a job of the schedule had not ended (overlap skip)".to_owned();
                        ledger.note(place, *instant, FireOutcome::Skipped, Some(why));
                    }
                    (Overlap::Queue, _, Some(first)) => {
                        let why =
                            format!("the instant {} waits already (overlap queue)", shown(first));
                        ledger.note(place, *instant, FireOutcome::Skipped, Some(why));
                    }
                },
            }
        }
        Plan {
            entries: ledger.entries(),
            next,
            due: next.map(|next| self.due_at(next)),
            waiting,
            more: stopped,
        }
    }

    /// The instants that are due in order, the first that is not, and whether more are due than were looked at.
    fn due(&self, grid: &Grid) -> (Vec<OffsetDateTime>, Option<OffsetDateTime>, bool) {
        let mut due = Vec::new();
        let mut next = grid.next_from(self.from);
        while let Some(instant) = next.filter(|instant| self.due_at(*instant) <= self.now) {
            if due.len() == MOST_INSTANTS {
                return (due, next, true);
            }
            due.push(instant);
            next = grid.next_after(instant);
        }
        (due, next, false)
    }

    /// What becomes of each; `None` for what the ledger has already.
    fn fates(&self, due: &[OffsetDateTime], more: bool) -> Vec<Option<Fate>> {
        let paused: Vec<Option<&String>> =
            due.iter().map(|instant| self.paused(*instant)).collect();
        let open: Vec<bool> = due
            .iter()
            .zip(&paused)
            .map(|(instant, paused)| paused.is_none() && !self.is_decided(*instant))
            .collect();
        let newest = open.iter().rposition(|open| *open).filter(|_| !more);
        let late = |instant: OffsetDateTime| self.now - self.due_at(instant) > self.grace;
        let late_ones = due
            .iter()
            .zip(&open)
            .filter(|(instant, open)| **open && late(**instant));
        let mut surplus = match self.catch_up {
            CatchUp::All if more => usize::MAX,
            CatchUp::All => late_ones.count().saturating_sub(self.limit),
            CatchUp::Skip | CatchUp::One => 0,
        };
        let mut fates = Vec::with_capacity(due.len());
        for (place, instant) in due.iter().enumerate() {
            if self.is_decided(*instant) {
                fates.push(None);
                continue;
            }
            if let Some(why) = paused[place] {
                fates.push(Some(Fate::No(FireOutcome::Paused, why.clone())));
                continue;
            }
            let late = late(*instant);
            let fate = match self.catch_up {
                CatchUp::All if late && surplus > 0 => {
                    surplus -= 1;
                    missed(format!(
                        "no tick came within {} s, and only the newest {} late instants are made up for (catch_up all)",
                        self.grace.whole_seconds(),
                        self.limit
                    ))
                }
                CatchUp::All => Fate::Job(self.remark(late)),
                CatchUp::One if Some(place) == newest => Fate::Job(self.remark(late)),
                CatchUp::One => missed(
                    "a newer instant was due at the same tick, and stands for it (catch_up one)"
                        .to_owned(),
                ),
                CatchUp::Skip if Some(place) == newest && !late => Fate::Job(None),
                CatchUp::Skip if late => missed(format!(
                    "no tick came within {} s (catch_up skip)",
                    self.grace.whole_seconds()
                )),
                CatchUp::Skip => {
                    missed("a newer instant was due at the same tick (catch_up skip)".to_owned())
                }
            };
            fates.push(Some(fate));
        }
        fates
    }

    fn remark(&self, late: bool) -> Option<String> {
        late.then(|| {
            format!(
                "made up for: no tick came within {} s",
                self.grace.whole_seconds()
            )
        })
    }

    fn paused(&self, instant: OffsetDateTime) -> Option<&String> {
        match &self.pause {
            Pause::Is(why) => Some(why),
            Pause::Was(from, to, why) if (*from..*to).contains(&instant) => Some(why),
            Pause::Was(..) | Pause::Never => None,
        }
    }

    fn is_decided(&self, instant: OffsetDateTime) -> bool {
        let behind = self.decided.partition_point(|(from, _)| *from <= instant);
        let last = behind.checked_sub(1).map(|place| self.decided[place].1);
        self.waiting == Some(instant) || last.is_some_and(|through| through >= instant)
    }

    /// Lets the instant that waits fire once no job is in its way; a paused schedule lets go of it.
    fn release(&self, waiting: &mut Option<OffsetDateTime>, busy: &mut bool, ledger: &mut Ledger) {
        let Some(instant) = *waiting else { return };
        match &self.pause {
            Pause::Is(why) => {
                ledger.note(usize::MAX, instant, FireOutcome::Paused, Some(why.clone()));
            }
            Pause::Was(..) | Pause::Never if *busy && self.overlap != Overlap::Allow => return,
            Pause::Was(..) | Pause::Never => {
                let why = "it waited for a job of the schedule to end (overlap queue)".to_owned();
                ledger.note(usize::MAX, instant, FireOutcome::Fired, Some(why));
                *busy = true;
            }
        }
        *waiting = None;
    }
}

fn missed(why: String) -> Fate {
    Fate::No(FireOutcome::Missed, why)
}

fn shown(instant: OffsetDateTime) -> String {
    let text = instant.format(&time::format_description::well_known::Rfc3339);
    text.unwrap_or_else(|_| instant.to_string())
}

/// The rows in the making: neighbours with one fate together.
#[derive(Default)]
struct Ledger {
    runs: Vec<Run>,
    jobs: usize,
}

struct Run {
    /// The place of the last among the due instants: only neighbours go together.
    last: usize,
    instants: Vec<OffsetDateTime>,
    outcome: FireOutcome,
    reason: Option<String>,
}

impl Ledger {
    fn note(
        &mut self,
        place: usize,
        instant: OffsetDateTime,
        outcome: FireOutcome,
        reason: Option<String>,
    ) {
        self.jobs += usize::from(outcome == FireOutcome::Fired);
        let joins = matches!(outcome, FireOutcome::Missed | FireOutcome::Paused);
        match self.runs.last_mut() {
            Some(run)
                if joins
                    && run.last.checked_add(1) == Some(place)
                    && (run.outcome, &run.reason) == (outcome, &reason) =>
            {
                run.last = place;
                run.instants.push(instant);
            }
            _ => self.runs.push(Run {
                last: place,
                instants: vec![instant],
                outcome,
                reason,
            }),
        }
    }

    fn entries(self) -> Vec<Entry> {
        self.runs.into_iter().flat_map(Run::entries).collect()
    }
}

impl Run {
    fn entries(self) -> Vec<Entry> {
        let whole = self.instants.len() > LONGEST_RUN;
        let ranges: Vec<&[OffsetDateTime]> = self
            .instants
            .chunks(if whole { self.instants.len() } else { 1 })
            .collect();
        let entry = |range: &[OffsetDateTime]| {
            Some(Entry {
                instant: *range.first()?,
                through: *range.last()?,
                instants: i32::try_from(range.len()).unwrap_or(i32::MAX),
                outcome: self.outcome,
                reason: self.reason.clone(),
            })
        };
        ranges.into_iter().filter_map(entry).collect()
    }
}

#[cfg(test)]
mod tests;
