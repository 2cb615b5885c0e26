//! What is published to Notion, what came of it, and how that fares as a whole. Knows nothing of Notion's API.

use std::str::FromStr;
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

/// What is to be done at Notion next.
#[derive(Clone, Debug, PartialEq)]
pub enum NotionWork {
    /// Nothing that is due, or that anybody may do just now.
    Nothing,
    /// Look, after so long, whether the token and the database are good for publishing.
    Check(Duration),
    /// Publish this.
    Publish(Box<ClaimedOutcome>),
}

/// The outcome of a job, lent for two minutes to be published.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimedOutcome {
    /// The first request may be made after so long.
    pub wait: Duration,
    /// The job.
    pub job_id: Uuid,
    /// Which attempt to publish it this is: the fence of its record.
    pub attempt: i32,
    /// The number of the event that ended the job.
    pub seq: i32,
    /// The job's page, where it is known.
    pub page_id: Option<String>,
    /// Whether a page may be there all the same, so that it is looked for first.
    pub look: bool,
    /// The job's type.
    pub job_type: String,
    /// Its queue.
    pub queue: String,
    /// How it ended.
    pub status: String,
    /// At which attempt.
    pub job_attempt: i32,
    /// Why it failed, where it did.
    pub error: Option<String>,
    /// When it was recorded.
    pub created_at: OffsetDateTime,
    /// When it ended.
    pub finished_at: OffsetDateTime,
}

/// How publishing an outcome went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotionOutcome {
    /// What came of it.
    pub came: NotionCame,
    /// What Notion answered last; `None`: nothing.
    pub status: Option<i32>,
    /// Why it failed.
    pub error: Option<String>,
    /// After how many seconds Notion is to be called again, by its own word.
    pub retry_after: Option<i32>,
}

/// What came of publishing an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotionCame {
    /// It stands on this page.
    Published(String),
    /// Notion is busy or away: nobody calls it for a while.
    Busy,
    /// The same, and a page may have been made.
    Unknown,
    /// Somebody else was at the page.
    Conflict,
    /// The page that was known is not there any more.
    Gone,
    /// The token or the database turned out to be no good: others may have better ones.
    Held,
    /// Notion will never take it.
    Refused,
}

impl NotionCame {
    /// Its word in SQL.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Published(_) => "published",
            Self::Busy => "busy",
            Self::Unknown => "unknown",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Held => "held",
            Self::Refused => "refused",
        }
    }
}

/// What a check of the token and the database came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotionCheck {
    /// They are good for publishing.
    Right,
    /// They are not: what is wrong, and what to do.
    Faulty(String),
    /// Notion did not say.
    Busy {
        /// Why.
        error: String,
        /// After how many seconds it is to be called again, by its own word.
        retry_after: Option<i32>,
    },
}

/// What became of an outcome that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotionRecord {
    /// It is published.
    Published,
    /// It is tried again later.
    Retry,
    /// It is given up until somebody asks for it again.
    Dead,
    /// It was no longer the caller's, and goes once more where that might have written over something newer.
    Late,
}

impl NotionRecord {
    /// Its word, in SQL and logs alike.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Retry => "retry",
            Self::Dead => "dead",
            Self::Late => "late",
        }
    }
}

impl FromStr for NotionRecord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "published" => Ok(Self::Published),
            "retry" => Ok(Self::Retry),
            "dead" => Ok(Self::Dead),
            "late" => Ok(Self::Late),
            _ => Err("must be published, retry, dead or late".to_owned()),
        }
    }
}

/// How publishing fares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NotionHealth {
    /// Whether ends of jobs are noted.
    pub noting: bool,
    /// How many jobs wait to be published.
    pub pending: i64,
    /// Since when the oldest of them has waited.
    pub oldest_pending_at: Option<OffsetDateTime>,
    /// How many Notion has refused for good.
    pub dead: i64,
    /// How many outcomes were published.
    pub published: i64,
    /// When the last of them was.
    pub last_published_at: Option<OffsetDateTime>,
    /// Why a request last failed.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<OffsetDateTime>,
    /// Until when nobody calls Notion, where that is in the future.
    pub waits_until: Option<OffsetDateTime>,
    /// What programs publish with, of those that looked for work in the last hour.
    pub keys: Vec<NotionKey>,
    /// Those that were refused, newest first, a few of them.
    pub refused: Vec<RefusedOutcome>,
}

/// What programs publish with.
#[derive(Clone, Debug, PartialEq)]
pub struct NotionKey {
    /// A part of a digest of the token, the database's id and the address.
    pub key: String,
    /// The database in Notion.
    pub database_id: String,
    /// When it was last found good.
    pub checked_at: Option<OffsetDateTime>,
    /// What is wrong with it, and what to do.
    pub fault: Option<String>,
    /// Since when.
    pub fault_at: Option<OffsetDateTime>,
}

/// An outcome that Notion has refused for good.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedOutcome {
    /// The job.
    pub job_id: Uuid,
    /// What Notion answered.
    pub status: Option<i32>,
    /// Why, by its own word.
    pub error: Option<String>,
    /// When.
    pub at: Option<OffsetDateTime>,
}
