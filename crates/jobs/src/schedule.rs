//! Work that nobody starts by hand: the record of a schedule, and what may become of its instants. Pure; the store fires.

mod grid;
pub(crate) mod plan;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::name::Name;

pub use grid::{Grid, NoGrid};

/// What a schedule is called: `[a-z0-9][a-z0-9_.-]{0,63}`, but not `preview`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct ScheduleName(String);

impl ScheduleName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ScheduleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<ScheduleName> for String {
    fn from(name: ScheduleName) -> Self {
        name.0
    }
}

impl FromStr for ScheduleName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b);
        let starts_well = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if text == "preview" {
            Err("must not be preview: that is a route".to_owned())
        } else if starts_well && text.len() <= 64 && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must match [a-z0-9][a-z0-9_.-]{0,63}".to_owned())
        }
    }
}

/// Makes an enum of words with its texts: as SQL, JSON and people have them.
macro_rules! words {
    ($(#[$of:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// The word for it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}

words! {
    /// What becomes of instants that no tick came upon in time.
    CatchUp {
        /// None is made up for.
        Skip = "skip",
        /// The newest is.
        One = "one",
        /// All are, up to a limit.
        All = "all",
    }
}

words! {
    /// What becomes of an instant while a job of the schedule has not ended.
    Overlap {
        /// It makes no job.
        Skip = "skip",
        /// It waits, if no other does.
        Queue = "queue",
        /// It makes a job all the same.
        Allow = "allow",
    }
}

words! {
    /// How an instant ended.
    FireOutcome {
        /// A job was recorded for it.
        Fired = "fired",
        /// Another job of the schedule had not ended.
        Skipped = "skipped",
        /// No tick came in time.
        Missed = "missed",
        /// The schedule was paused.
        Paused = "paused",
    }
}

/// What a schedule does, already parsed: nothing in it can be wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleTerms {
    /// The pattern.
    pub cron: String,
    /// The zone of its wall clock.
    pub timezone: String,
    /// What its jobs do.
    pub job_type: Name,
    /// What their handler is given.
    pub payload: Value,
    /// Their queue.
    pub queue: Name,
    /// Their priority.
    pub priority: i16,
    /// Their labels, beside `schedule` and `scheduled_for`.
    pub labels: BTreeMap<String, String>,
    /// Their time to live.
    pub ttl_seconds: Option<i32>,
    /// Their attempts; `None`: the job type decides.
    pub max_attempts: Option<i32>,
    /// Their time limit; `None`: the job type decides.
    pub timeout_seconds: Option<i32>,
    /// What becomes of late instants.
    pub catch_up: CatchUp,
    /// How many of them are made up for at most.
    pub catch_up_limit: i32,
    /// From when on an instant is late, in seconds.
    pub grace_seconds: i32,
    /// What becomes of an instant while a job has not ended.
    pub overlap: Overlap,
    /// By how much a job may be recorded later than its instant, in seconds.
    pub jitter_seconds: i32,
}

impl ScheduleTerms {
    /// A pattern in UTC that makes jobs of this type, everything else by default.
    pub fn new(cron: &str, job_type: Name) -> Self {
        Self {
            cron: cron.to_owned(),
            timezone: "UTC".to_owned(),
            job_type,
            payload: Value::Object(serde_json::Map::new()),
            queue: Name::default_queue(),
            priority: 0,
            labels: BTreeMap::new(),
            ttl_seconds: None,
            max_attempts: None,
            timeout_seconds: None,
            catch_up: CatchUp::Skip,
            catch_up_limit: 100,
            grace_seconds: 300,
            overlap: Overlap::Allow,
            jitter_seconds: 0,
        }
    }
}

/// A schedule as it stands in `ops_schedules`.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// What it is called.
    pub name: ScheduleName,
    /// What it does.
    pub terms: ScheduleTerms,
    /// Whether it fires; else it is paused.
    pub enabled: bool,
    /// When it was last paused.
    pub paused_at: Option<OffsetDateTime>,
    /// By whom.
    pub paused_by: Option<String>,
    /// Why.
    pub pause_reason: Option<String>,
    /// When it was last resumed.
    pub resumed_at: Option<OffsetDateTime>,
    /// The next instant that is not decided; `None`: the next tick computes it.
    pub next_fire_at: Option<OffsetDateTime>,
    /// When that is due: itself and its jitter.
    pub due_at: Option<OffsetDateTime>,
    /// Since when its pattern and zone hold.
    pub grid_since: OffsetDateTime,
    /// The instant that waits for a job to end.
    pub waiting_instant: Option<OffsetDateTime>,
    /// Why the last tick could not fire it.
    pub fault: Option<String>,
    /// Grows with each change.
    pub revision: i64,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: OffsetDateTime,
    /// Who changed it last.
    pub updated_by: String,
    /// When.
    pub updated_at: OffsetDateTime,
}

/// A row of the ledger: what became of an instant, or of several after a long time without a tick.
#[derive(Clone, Debug, PartialEq)]
pub struct Fire {
    /// The instant; of several the first.
    pub instant: OffsetDateTime,
    /// The last of them.
    pub through: OffsetDateTime,
    /// How many.
    pub instants: i32,
    /// How it ended.
    pub outcome: FireOutcome,
    /// Why.
    pub reason: Option<String>,
    /// The job that was recorded.
    pub job_id: Option<Uuid>,
    /// Fired by hand.
    pub manual: bool,
    /// Who decided.
    pub actor: String,
    /// When.
    pub at: OffsetDateTime,
}
