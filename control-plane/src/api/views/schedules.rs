//! What schedules look like in JSON, as answered and as asked for. Holds no logic.

use std::collections::BTreeMap;

use jobs::{CatchUp, Fire, FireOutcome, Name, Overlap, Schedule, ScheduleName};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::JobView;

/// A schedule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Schedule)]
pub(crate) struct ScheduleView {
    /// What it is called.
    #[schema(value_type = String)]
    name: ScheduleName,
    /// Five fields, or a word such as `@daily`.
    cron: String,
    /// The IANA time zone of whose wall clock `cron` speaks.
    timezone: String,
    /// What its jobs do.
    #[schema(value_type = String)]
    job_type: Name,
    /// What their handler is given.
    payload: Value,
    /// Their queue.
    #[schema(value_type = String)]
    queue: Name,
    /// Their priority.
    priority: i16,
    /// Their labels, beside `schedule` and `scheduled_for`.
    labels: BTreeMap<String, String>,
    /// Their time to live.
    ttl_seconds: Option<i32>,
    /// Their attempts; null: the job type decides.
    max_attempts: Option<i32>,
    /// Their time limit; null: the job type decides.
    timeout_seconds: Option<i32>,
    /// What becomes of late instants: `skip`, `one` or `all`.
    #[schema(value_type = String)]
    catch_up: CatchUp,
    /// How many of them `all` makes up for at most.
    catch_up_limit: i32,
    /// From when on an instant is late.
    grace_seconds: i32,
    /// What becomes of an instant while a job has not ended: `skip`, `queue` or `allow`.
    #[schema(value_type = String)]
    overlap: Overlap,
    /// By how much a job may be recorded later than its instant.
    jitter_seconds: i32,
    /// Whether it fires; else it is paused.
    enabled: bool,
    /// When it was last paused.
    #[serde(with = "time::serde::rfc3339::option")]
    paused_at: Option<OffsetDateTime>,
    /// By whom.
    paused_by: Option<String>,
    /// Why.
    pause_reason: Option<String>,
    /// When it was last resumed; null while it is paused.
    #[serde(with = "time::serde::rfc3339::option")]
    resumed_at: Option<OffsetDateTime>,
    /// Its next instant that is not decided; null: the next tick computes it.
    #[serde(with = "time::serde::rfc3339::option")]
    next_fire_at: Option<OffsetDateTime>,
    /// When that is due: itself and its jitter.
    #[serde(with = "time::serde::rfc3339::option")]
    due_at: Option<OffsetDateTime>,
    /// The instant that waits for a job to end (overlap `queue`).
    #[serde(with = "time::serde::rfc3339::option")]
    waiting_instant: Option<OffsetDateTime>,
    /// Why the last tick could not fire it.
    fault: Option<String>,
    /// Grows with each change; also its ETag.
    revision: i64,
    /// Who made it.
    created_by: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Who changed it last.
    updated_by: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

impl From<Schedule> for ScheduleView {
    fn from(schedule: Schedule) -> Self {
        let terms = schedule.terms;
        Self {
            name: schedule.name,
            cron: terms.cron,
            timezone: terms.timezone,
            job_type: terms.job_type,
            payload: terms.payload,
            queue: terms.queue,
            priority: terms.priority,
            labels: terms.labels,
            ttl_seconds: terms.ttl_seconds,
            max_attempts: terms.max_attempts,
            timeout_seconds: terms.timeout_seconds,
            catch_up: terms.catch_up,
            catch_up_limit: terms.catch_up_limit,
            grace_seconds: terms.grace_seconds,
            overlap: terms.overlap,
            jitter_seconds: terms.jitter_seconds,
            enabled: schedule.enabled,
            paused_at: schedule.paused_at,
            paused_by: schedule.paused_by,
            pause_reason: schedule.pause_reason,
            resumed_at: schedule.resumed_at,
            next_fire_at: schedule.next_fire_at,
            due_at: schedule.due_at,
            waiting_instant: schedule.waiting_instant,
            fault: schedule.fault,
            revision: schedule.revision,
            created_by: schedule.created_by,
            created_at: schedule.created_at,
            updated_by: schedule.updated_by,
            updated_at: schedule.updated_at,
        }
    }
}

/// A page of schedules.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Schedules)]
pub(crate) struct SchedulesView {
    /// By name.
    pub(crate) schedules: Vec<ScheduleView>,
    /// Asks for the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// What became of an instant; of several, after a long time without a tick.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fire)]
pub(crate) struct FireView {
    /// The instant, by the schedule; of several the first.
    #[serde(with = "time::serde::rfc3339")]
    instant: OffsetDateTime,
    /// The last of them; mostly the same.
    #[serde(with = "time::serde::rfc3339")]
    through: OffsetDateTime,
    /// How many it stands for.
    instants: i32,
    /// `fired`, `skipped`, `missed` or `paused`.
    #[schema(value_type = String)]
    outcome: FireOutcome,
    /// Why; null for what fired as it should.
    reason: Option<String>,
    /// The job.
    job_id: Option<Uuid>,
    /// Fired by hand, outside its cron.
    manual: bool,
    /// Who decided it.
    actor: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

impl From<Fire> for FireView {
    fn from(fire: Fire) -> Self {
        Self {
            instant: fire.instant,
            through: fire.through,
            instants: fire.instants,
            outcome: fire.outcome,
            reason: fire.reason,
            job_id: fire.job_id,
            manual: fire.manual,
            actor: fire.actor,
            at: fire.at,
        }
    }
}

/// A page of a schedule's ledger.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fires)]
pub(crate) struct FiresView {
    /// Newest first.
    pub(crate) fires: Vec<FireView>,
    /// Asks for the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// A job that was fired by hand.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HandFired)]
pub(crate) struct HandFiredView {
    /// Its id.
    pub(crate) job_id: Uuid,
    /// The job.
    pub(crate) job: JobView,
}

/// An instant of a pattern.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instant)]
pub(crate) struct InstantView {
    /// The instant.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) instant: OffsetDateTime,
    /// What the wall clock of the time zone shows then, with its offset.
    pub(crate) local: String,
}

/// The next instants of a pattern.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instants)]
pub(crate) struct InstantsView {
    /// The pattern.
    pub(crate) cron: String,
    /// Its time zone.
    pub(crate) timezone: String,
    /// The pattern in English.
    pub(crate) description: String,
    /// In order.
    pub(crate) instants: Vec<InstantView>,
}

/// A schedule that is asked for.
#[derive(ToSchema)]
#[schema(as = NewSchedule)]
#[expect(
    dead_code,
    reason = "describes a request, which ScheduleRequest parses"
)]
pub(crate) struct ScheduleRequestView {
    /// What it is called; may be left out of a change.
    #[schema(pattern = "^[a-z0-9][a-z0-9_.-]{0,63}$")]
    name: Option<String>,
    /// Minute, hour, day, month, weekday; or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    #[schema(example = "30 2 * * *")]
    cron: String,
    /// An IANA name; `UTC` unless asked otherwise.
    #[schema(example = "Europe/Berlin")]
    timezone: Option<String>,
    /// What its jobs do.
    #[schema(pattern = "^[a-z][a-z0-9_]{0,63}$")]
    job_type: String,
    /// What their handler is given; `{}` unless asked otherwise.
    payload: Option<Value>,
    /// Their queue; `default` unless asked otherwise.
    queue: Option<String>,
    /// Their priority; 0 unless asked otherwise.
    priority: Option<i16>,
    /// Their labels, at most 30.
    labels: Option<BTreeMap<String, String>>,
    /// Their time to live.
    #[schema(minimum = 1, maximum = 31_536_000)]
    ttl_seconds: Option<i32>,
    /// Their attempts; the job type decides unless asked otherwise.
    #[schema(minimum = 1, maximum = 1000)]
    max_attempts: Option<i32>,
    /// Their time limit; the job type decides unless asked otherwise.
    #[schema(minimum = 1, maximum = 2_592_000)]
    timeout_seconds: Option<i32>,
    /// What becomes of late instants: `skip` (unless asked otherwise), `one` or `all`.
    #[schema(pattern = "^(skip|one|all)$")]
    catch_up: Option<String>,
    /// How many of them `all` makes up for at most; 100 unless asked otherwise.
    #[schema(minimum = 1, maximum = 1000)]
    catch_up_limit: Option<i32>,
    /// From when on an instant is late; 300 unless asked otherwise.
    #[schema(minimum = 1, maximum = 86_400)]
    grace_seconds: Option<i32>,
    /// What becomes of an instant while a job has not ended: `skip`, `queue` or `allow` (unless asked otherwise).
    #[schema(pattern = "^(skip|queue|allow)$")]
    overlap: Option<String>,
    /// By how much a job may be recorded later than its instant; 0 unless asked otherwise.
    #[schema(minimum = 0, maximum = 86_400)]
    jitter_seconds: Option<i32>,
    /// Whether it fires. A new one does unless asked otherwise; a change leaves it as it is.
    enabled: Option<bool>,
    /// Change only this revision.
    revision: Option<i64>,
}

/// A pattern to look at.
#[derive(ToSchema)]
#[schema(as = NewPreview)]
#[expect(dead_code, reason = "describes a request, which PreviewRequest parses")]
pub(crate) struct PreviewRequestView {
    /// The pattern.
    #[schema(example = "30 2 * * *")]
    cron: String,
    /// `UTC` unless asked otherwise.
    timezone: Option<String>,
    /// How many instants; 10 unless asked otherwise.
    #[schema(minimum = 1, maximum = 100)]
    count: Option<i32>,
    /// After which instant; now unless asked otherwise.
    after: Option<OffsetDateTime>,
}
