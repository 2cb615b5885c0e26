//! Firing: each due schedule is locked, decided by the database's clock, and written in one transaction a page; whoever
//! else ticks passes it by. What becomes of an instant is decided in `schedule/plan.rs`.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::persist::Again;
use super::pool::Transaction;
use super::schedules::ScheduleRow;
use crate::error::StoreError;
use crate::schedule::plan::{Entry, Pause, Plan, Standing};
use crate::schedule::{FireOutcome, Grid, Schedule, ScheduleName};

/// A tick looks at so many due schedules; the others are the next one's.
const MOST_SCHEDULES: i64 = 500;
/// A tick begins no other page after so long; whoever called it waits.
const BUDGET: Duration = Duration::from_millis(1500);

/// What a tick did with the instants that were due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fired {
    /// Jobs recorded.
    pub fired: u64,
    /// Instants skipped for overlap.
    pub skipped: u64,
    /// Instants that no tick came upon in time.
    pub missed: u64,
    /// Instants while paused.
    pub paused: u64,
}

impl Fired {
    fn count(&mut self, entry: &Entry) {
        let counter = match entry.outcome {
            FireOutcome::Fired => &mut self.fired,
            FireOutcome::Skipped => &mut self.skipped,
            FireOutcome::Missed => &mut self.missed,
            FireOutcome::Paused => &mut self.paused,
        };
        *counter += u64::from(entry.instants.unsigned_abs());
    }
}

impl Store {
    /// Fires what is due, but no schedule of the job types that are closed to the caller. Any number may do so at once, at
    /// any time: each instant is decided once. What is left after a while is the next tick's.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn fire_due(&self, closed: &[&str], actor: &str) -> Result<Fired, StoreError> {
        let begun = Instant::now();
        let mut fired = Fired::default();
        for name in self.due_schedules(closed).await? {
            loop {
                if begun.elapsed() > BUDGET {
                    return Ok(fired);
                }
                if !self.fire_page(&name, actor, &mut fired).await? {
                    break;
                }
            }
        }
        self.forget_fires().await?;
        Ok(fired)
    }

    /// Decides what is due of one schedule, all of it.
    pub(super) async fn settle(&self, name: &ScheduleName, actor: &str) -> Result<(), StoreError> {
        let mut fired = Fired::default();
        while self.fire_page(name.as_str(), actor, &mut fired).await? {}
        Ok(())
    }

    async fn due_schedules(&self, closed: &[&str]) -> Result<Vec<String>, StoreError> {
        let closed: Vec<String> = closed.iter().map(|name| (*name).to_owned()).collect();
        let ask = || async {
            let names = sqlx::query_scalar!(
                r#"
                select s.name
                from ops_schedules s
                where (s.due_at is null or s.due_at <= clock_timestamp() or s.waiting_instant is not null)
                  and not s.job_type = any($1)
                  -- What a restored copy has due, the system that it was copied from has done.
                  and not exists (select from ops_fleet f where f.restored_at is not null)
                order by s.due_at nulls first
                limit $2
                "#,
                &closed,
                MOST_SCHEDULES,
            );
            Ok(names.fetch_all(&self.pool).await?)
        };
        self.persist(Again::Always, ask).await
    }

    /// One page of one schedule; whether there is another. One that cannot be fired says so, and stops no other.
    async fn fire_page(
        &self,
        name: &str,
        actor: &str,
        fired: &mut Fired,
    ) -> Result<bool, StoreError> {
        let page = self.persist(Again::Undone, || self.fire_once(name, actor));
        let fault = match page.await {
            Ok(Page::Done(plan)) => {
                for entry in &plan.entries {
                    fired.count(entry);
                }
                return Ok(plan.more);
            }
            Ok(Page::Nothing) => return Ok(false),
            Ok(Page::Faulty(why)) | Err(StoreError::Refused(why)) => why,
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
            // Whatever is wrong with it, for example a trigger of the users' own that refuses its job.
            Err(error) => match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            },
        };
        tracing::error!(event = "schedule_faulty", schedule = name, fault);
        sqlx::query!(
            "update ops_schedules set fault = $2 where name = $1 and fault is distinct from $2",
            name,
            fault,
        )
        .execute(&self.pool)
        .await?;
        Ok(false)
    }

    async fn fire_once(&self, name: &str, actor: &str) -> Result<Page, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let Some(row) = lock(&mut transaction, name).await? else {
            transaction.commit().await?;
            return Ok(Page::Nothing);
        };
        let (now, jobs) = (row.now, row.open_jobs.clone());
        let schedule = Schedule::try_from(row)?;
        let grid = match Grid::new(&schedule.terms.cron, &schedule.terms.timezone) {
            Ok(grid) => grid,
            Err(why) => {
                transaction.commit().await?;
                return Ok(Page::Faulty(why.to_string()));
            }
        };
        let mut open = still_open(&mut transaction, &jobs).await?;
        let from = schedule.next_fire_at.unwrap_or(schedule.grid_since);
        let decided = decided(&mut transaction, name, from, now).await?;
        let plan = standing(&schedule, now, !open.is_empty(), &decided).plan(&grid);
        if schedule.next_fire_at != plan.next
            || schedule.due_at != plan.due
            || schedule.waiting_instant != plan.waiting
            || schedule.fault.is_some()
        {
            open.extend(write(&mut transaction, name, &plan.entries, actor).await?);
            advance(&mut transaction, &schedule, &plan, &open).await?;
        }
        transaction.commit().await?;
        Ok(Page::Done(plan))
    }
}

enum Page {
    /// It is not due, or another tick is at it.
    Nothing,
    /// Its pattern or its zone is none.
    Faulty(String),
    Done(Plan),
}

fn standing<'a>(
    schedule: &'a Schedule,
    now: OffsetDateTime,
    busy: bool,
    decided: &'a [(OffsetDateTime, OffsetDateTime)],
) -> Standing<'a> {
    let terms = &schedule.terms;
    let why = || {
        let by = schedule.paused_by.as_deref().unwrap_or("somebody");
        match &schedule.pause_reason {
            Some(reason) => format!("paused by {by}: {reason}"),
            None => format!("paused by {by}"),
        }
    };
    Standing {
        name: schedule.name.as_str(),
        now,
        from: schedule.next_fire_at.unwrap_or(schedule.grid_since),
        pause: match (schedule.enabled, schedule.paused_at, schedule.resumed_at) {
            (false, _, _) => Pause::Is(why()),
            (true, Some(from), Some(to)) => Pause::Was(from, to, why()),
            (true, _, _) => Pause::Never,
        },
        waiting: schedule.waiting_instant,
        busy,
        decided,
        catch_up: terms.catch_up,
        limit: usize::try_from(terms.catch_up_limit).unwrap_or(0),
        grace: time::Duration::seconds(i64::from(terms.grace_seconds)),
        overlap: terms.overlap,
        jitter: u32::try_from(terms.jitter_seconds).unwrap_or(0),
    }
}

/// The schedule if it is due, locked; `None` too while another has it.
async fn lock(
    transaction: &mut Transaction,
    name: &str,
) -> Result<Option<ScheduleRow>, StoreError> {
    let row = sqlx::query_as!(
        ScheduleRow,
        r#"
        select s.*, clock_timestamp() as "now!"
        from ops_schedules s
        where s.name = $1
          and (s.due_at is null or s.due_at <= clock_timestamp() or s.waiting_instant is not null)
          and not exists (select from ops_fleet f where f.restored_at is not null)
        for update skip locked
        "#,
        name,
    );
    Ok(row.fetch_optional(&mut **transaction).await?)
}

/// Which of these jobs have not ended.
async fn still_open(transaction: &mut Transaction, jobs: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
    let open = sqlx::query_scalar!(
        "select id from ops_jobs where id = any($1) and status in ('queued', 'running', 'waiting') order by id",
        jobs,
    );
    Ok(open.fetch_all(&mut **transaction).await?)
}

/// What the ledger has from here on: something only where the cursor was set back by hand.
async fn decided(
    transaction: &mut Transaction,
    name: &str,
    from: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<Vec<(OffsetDateTime, OffsetDateTime)>, StoreError> {
    let rows = sqlx::query!(
        r#"
        select f.instant, f.through
        from ops_schedule_fires f
        where f.schedule = $1
          and not f.manual
          and f.instant <= $3
          and f.instant >= coalesce(
            (select max(b.instant) from ops_schedule_fires b where b.schedule = $1 and not b.manual and b.instant < $2), $2
          )
        order by f.instant
        "#,
        name,
        from,
        now,
    );
    let rows = rows.fetch_all(&mut **transaction).await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.instant, row.through))
        .collect())
}

/// Writes the ledger and records the jobs; gives these.
async fn write(
    transaction: &mut Transaction,
    name: &str,
    entries: &[Entry],
    actor: &str,
) -> Result<Vec<Uuid>, StoreError> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let instants: Vec<OffsetDateTime> = entries.iter().map(|entry| entry.instant).collect();
    let throughs: Vec<OffsetDateTime> = entries.iter().map(|entry| entry.through).collect();
    let counts: Vec<i32> = entries.iter().map(|entry| entry.instants).collect();
    let outcomes: Vec<String> = entries
        .iter()
        .map(|entry| entry.outcome.as_str().to_owned())
        .collect();
    let reasons: Vec<Option<String>> = entries.iter().map(|entry| entry.reason.clone()).collect();
    let jobs = sqlx::query_scalar!(
        r#"
        insert into ops_schedule_fires (schedule, instant, through, instants, outcome, reason, job_id, actor)
        select
          $1, e.instant, e.through, e.instants, e.outcome, e.reason,
          case when e.outcome = 'fired' then ops_record_scheduled($1, e.instant, 'schedule:' || $1) end,
          $2
        from unnest($3::timestamptz[], $4::timestamptz[], $5::int[], $6::text[], $7::text[])
          with ordinality as e (instant, through, instants, outcome, reason, ordinal)
        order by e.ordinal
        returning job_id
        "#,
        name,
        actor,
        &instants,
        &throughs,
        &counts,
        &outcomes,
        &reasons as &[Option<String>],
    );
    let jobs = jobs.fetch_all(&mut **transaction).await?;
    Ok(jobs.into_iter().flatten().collect())
}

/// Moves the cursor, if it is where it was.
async fn advance(
    transaction: &mut Transaction,
    schedule: &Schedule,
    plan: &Plan,
    open: &[Uuid],
) -> Result<(), StoreError> {
    // The newest hundred are enough to tell whether one has not ended.
    let open = &open[open.len().saturating_sub(100)..];
    let moved = sqlx::query!(
        r#"
        update ops_schedules
        set next_fire_at = $4, due_at = $5, waiting_instant = $6, open_jobs = $7, fault = null
        where name = $1 and revision = $2 and next_fire_at is not distinct from $3
        "#,
        schedule.name.as_str(),
        schedule.revision,
        schedule.next_fire_at,
        plan.next,
        plan.due,
        plan.waiting,
        open,
    );
    match moved.execute(&mut **transaction).await?.rows_affected() {
        1 => Ok(()),
        _ => Err(StoreError::Internal(
            "a schedule changed while it was locked".into(),
        )),
    }
}
