//! Schedules as people and programs make, change, pause and remove them. What is due is fired in `firing.rs`.

use serde_json::Value;
use sqlx::postgres::PgDatabaseError;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::persist::Again;
use crate::error::StoreError;
use crate::schedule::plan::jitter;
use crate::schedule::{Grid, Schedule, ScheduleName, ScheduleTerms};

/// A page ends early once its payloads have so many bytes: whoever reads it holds it in memory whole.
const MOST_BYTES: i64 = 8 << 20;

/// One page of schedules, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SchedulePage {
    /// The schedules.
    pub schedules: Vec<Schedule>,
    /// The last of them, if there is a next page.
    pub next: Option<ScheduleName>,
}

/// A row of `ops_schedules`.
pub(super) struct ScheduleRow {
    pub(super) name: String,
    pub(super) cron: String,
    pub(super) timezone: String,
    pub(super) job_type: String,
    pub(super) payload: Value,
    pub(super) queue: String,
    pub(super) priority: i16,
    pub(super) labels: Value,
    pub(super) ttl_seconds: Option<i32>,
    pub(super) max_attempts: Option<i32>,
    pub(super) timeout_seconds: Option<i32>,
    pub(super) catch_up: String,
    pub(super) catch_up_limit: i32,
    pub(super) grace_seconds: i32,
    pub(super) overlap: String,
    pub(super) jitter_seconds: i32,
    pub(super) enabled: bool,
    pub(super) paused_at: Option<OffsetDateTime>,
    pub(super) paused_by: Option<String>,
    pub(super) pause_reason: Option<String>,
    pub(super) resumed_at: Option<OffsetDateTime>,
    pub(super) next_fire_at: Option<OffsetDateTime>,
    pub(super) due_at: Option<OffsetDateTime>,
    pub(super) grid_since: OffsetDateTime,
    pub(super) waiting_instant: Option<OffsetDateTime>,
    pub(super) open_jobs: Vec<Uuid>,
    pub(super) fault: Option<String>,
    pub(super) revision: i64,
    pub(super) created_by: String,
    pub(super) created_at: OffsetDateTime,
    pub(super) updated_by: String,
    pub(super) updated_at: OffsetDateTime,
    pub(super) now: OffsetDateTime,
}

impl TryFrom<ScheduleRow> for Schedule {
    type Error = StoreError;

    fn try_from(row: ScheduleRow) -> Result<Self, StoreError> {
        let labels = serde_json::from_value(row.labels);
        Ok(Self {
            terms: ScheduleTerms {
                job_type: word(&row.job_type, "job_type", &row.name)?,
                queue: word(&row.queue, "queue", &row.name)?,
                catch_up: word(&row.catch_up, "catch_up", &row.name)?,
                overlap: word(&row.overlap, "overlap", &row.name)?,
                labels: labels.map_err(|error| StoreError::Internal(Box::new(error)))?,
                cron: row.cron,
                timezone: row.timezone,
                payload: row.payload,
                priority: row.priority,
                ttl_seconds: row.ttl_seconds,
                max_attempts: row.max_attempts,
                timeout_seconds: row.timeout_seconds,
                catch_up_limit: row.catch_up_limit,
                grace_seconds: row.grace_seconds,
                jitter_seconds: row.jitter_seconds,
            },
            name: word(&row.name, "name", &row.name)?,
            enabled: row.enabled,
            paused_at: row.paused_at,
            paused_by: row.paused_by,
            pause_reason: row.pause_reason,
            resumed_at: row.resumed_at,
            next_fire_at: row.next_fire_at,
            due_at: row.due_at,
            grid_since: row.grid_since,
            waiting_instant: row.waiting_instant,
            fault: row.fault,
            revision: row.revision,
            created_by: row.created_by,
            created_at: row.created_at,
            updated_by: row.updated_by,
            updated_at: row.updated_at,
        })
    }
}

/// Reads a word of a column that the schema keeps within a known set.
fn word<T: std::str::FromStr>(text: &str, column: &str, name: &str) -> Result<T, StoreError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|why| {
        let told = format!("ops_schedules.{column} of schedule {name} makes no sense: it {why}");
        StoreError::Internal(told.into())
    })
}

/// What came of a change that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// The schedule as it is now.
    Yes(Box<Schedule>),
    /// It has changed since the revision that was named; this is its revision now.
    Outdated(i64),
}

impl Store {
    /// What the database's clock shows.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn now(&self) -> Result<OffsetDateTime, StoreError> {
        let ask = || async {
            let now = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#);
            Ok(now.fetch_one(&self.pool).await?)
        };
        self.persist(Again::Always, ask).await
    }

    /// Makes a schedule; `None` when there is one of this name.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when its pattern or zone is none.
    pub async fn create_schedule(
        &self,
        name: &ScheduleName,
        terms: &ScheduleTerms,
        enabled: bool,
        actor: &str,
    ) -> Result<Option<Schedule>, StoreError> {
        let now = self.now().await?;
        let (next, due) = first_after(name, terms, now)?;
        let made = sqlx::query!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            insert into ops_schedules (
              name, cron, timezone, job_type, payload, queue, priority, labels, ttl_seconds, max_attempts,
              timeout_seconds, catch_up, catch_up_limit, grace_seconds, overlap, jitter_seconds, enabled,
              next_fire_at, due_at, grid_since, created_by, updated_by
            )
            select
              $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $1, $1
            from acting where actor is not null
            on conflict (name) do nothing
            "#,
            actor,
            name.as_str(),
            terms.cron,
            terms.timezone,
            terms.job_type.as_str(),
            terms.payload,
            terms.queue.as_str(),
            terms.priority,
            labels_of(terms),
            terms.ttl_seconds,
            terms.max_attempts,
            terms.timeout_seconds,
            terms.catch_up.as_str(),
            terms.catch_up_limit,
            terms.grace_seconds,
            terms.overlap.as_str(),
            terms.jitter_seconds,
            enabled,
            next,
            due,
            now,
        )
        .execute(&self.pool)
        .await?;
        if made.rows_affected() == 0 {
            return Ok(None);
        }
        self.schedule(name).await
    }

    /// Gives a schedule other terms; `None` when there is none of this name. What was due under the old ones is decided
    /// before. With a revision, only where it is still of that revision.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when its pattern or zone is none.
    pub async fn change_schedule(
        &self,
        name: &ScheduleName,
        terms: &ScheduleTerms,
        enabled: Option<bool>,
        revision: Option<i64>,
        actor: &str,
    ) -> Result<Option<Changed>, StoreError> {
        loop {
            let Some(old) = self.schedule(name).await? else {
                return Ok(None);
            };
            if revision.is_some_and(|revision| revision != old.revision) {
                return Ok(Some(Changed::Outdated(old.revision)));
            }
            self.settle(name, actor).await?;
            let now = self.now().await?;
            let same_grid =
                (&old.terms.cron, &old.terms.timezone) == (&terms.cron, &terms.timezone);
            let (next, due) = first_after(name, terms, now)?;
            let changed = self.replace_terms(
                name,
                terms,
                enabled,
                &old,
                (!same_grid).then_some((next, due)),
                actor,
            );
            if changed.await? {
                let new = self.schedule(name).await?;
                return Ok(new.map(|new| Changed::Yes(Box::new(new))));
            }
        }
    }

    async fn replace_terms(
        &self,
        name: &ScheduleName,
        terms: &ScheduleTerms,
        enabled: Option<bool>,
        old: &Schedule,
        cursor: Option<(Option<OffsetDateTime>, Option<OffsetDateTime>)>,
        actor: &str,
    ) -> Result<bool, StoreError> {
        let (next, due) = cursor.unwrap_or_default();
        let changed = sqlx::query!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            update ops_schedules s
            set cron = $4, timezone = $5, job_type = $6, payload = $7, queue = $8, priority = $9, labels = $10,
              ttl_seconds = $11, max_attempts = $12, timeout_seconds = $13, catch_up = $14, catch_up_limit = $15,
              grace_seconds = $16, overlap = $17, jitter_seconds = $18, enabled = coalesce($19, s.enabled),
              next_fire_at = case when $20 then $21 else s.next_fire_at end,
              due_at = case when $20 then $22 else s.due_at end
            from acting a
            where s.name = $2 and s.revision = $3 and a.actor is not null
            "#,
            actor,
            name.as_str(),
            old.revision,
            terms.cron,
            terms.timezone,
            terms.job_type.as_str(),
            terms.payload,
            terms.queue.as_str(),
            terms.priority,
            labels_of(terms),
            terms.ttl_seconds,
            terms.max_attempts,
            terms.timeout_seconds,
            terms.catch_up.as_str(),
            terms.catch_up_limit,
            terms.grace_seconds,
            terms.overlap.as_str(),
            terms.jitter_seconds,
            enabled,
            cursor.is_some(),
            next,
            due,
        )
        .execute(&self.pool)
        .await?;
        Ok(changed.rows_affected() == 1)
    }

    /// Pauses a schedule, with who and why; `None` when there is none of this name. A paused one stays as it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pause_schedule(
        &self,
        name: &ScheduleName,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<Option<Schedule>, StoreError> {
        let paused = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_pause_schedule($2, $3) from acting where actor is not null
            "#,
            actor,
            name.as_str(),
            reason,
        )
        .fetch_one(&self.pool)
        .await;
        match found(paused)? {
            Some(_) => self.schedule(name).await,
            None => Ok(None),
        }
    }

    /// Lets a paused schedule fire again; `None` when there is none of this name. What passed is recorded as paused before.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn resume_schedule(
        &self,
        name: &ScheduleName,
        actor: &str,
    ) -> Result<Option<Schedule>, StoreError> {
        self.settle(name, actor).await?;
        let resumed = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_resume_schedule($2) from acting where actor is not null
            "#,
            actor,
            name.as_str(),
        )
        .fetch_one(&self.pool)
        .await;
        match found(resumed)? {
            Some(_) => self.schedule(name).await,
            None => Ok(None),
        }
    }

    /// Records a job of a schedule now, outside its grid; `None` when there is none of this name.
    ///
    /// # Errors
    /// When the database does not answer, or refuses the job.
    pub async fn fire_by_hand(
        &self,
        name: &ScheduleName,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<Option<Uuid>, StoreError> {
        let fired = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_fire_schedule($2, $3) as "job_id!" from acting where actor is not null
            "#,
            actor,
            name.as_str(),
            reason,
        )
        .fetch_one(&self.pool)
        .await;
        found(fired)
    }

    /// Removes a schedule; `false` when there was none. What was due and not decided is recorded as paused; the ledger stays.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_schedule(
        &self,
        name: &ScheduleName,
        actor: &str,
    ) -> Result<bool, StoreError> {
        if self
            .pause_schedule(name, actor, Some("the schedule was deleted"))
            .await?
            .is_none()
        {
            return Ok(false);
        }
        self.settle(name, actor).await?;
        let deleted = sqlx::query!("delete from ops_schedules where name = $1", name.as_str());
        Ok(deleted.execute(&self.pool).await?.rows_affected() == 1)
    }

    /// The schedule, or `None`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>, StoreError> {
        let mut found = self.list_schedules(Some(name.as_str()), "", 1).await?;
        Ok(found.pop())
    }

    /// A page of schedules by name, those after `after`, at most `limit`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn schedules(&self, after: &str, limit: i64) -> Result<SchedulePage, StoreError> {
        let schedules = self.list_schedules(None, after, limit).await?;
        let Some(last) = schedules.last() else {
            return Ok(SchedulePage::default());
        };
        let ask = || async {
            let more = sqlx::query_scalar!(
                r#"select exists (select from ops_schedules where name collate "C" > $1) as "more!""#,
                last.name.as_str(),
            );
            Ok(more.fetch_one(&self.pool).await?)
        };
        let more = self.persist(Again::Always, ask).await?;
        let next = more.then(|| last.name.clone());
        Ok(SchedulePage { schedules, next })
    }

    async fn list_schedules(
        &self,
        name: Option<&str>,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Schedule>, StoreError> {
        let ask = || async {
            let rows = sqlx::query_as!(
                ScheduleRow,
                r#"
                with page as materialized (
                  select
                    s.name as of,
                    sum(octet_length(s.payload::text))
                      over (order by s.name collate "C" rows between unbounded preceding and 1 preceding) as bytes_before
                  from ops_schedules s
                  where ($1::text is null or s.name = $1) and s.name collate "C" > $2
                  order by s.name collate "C"
                  limit $3
                )
                select s.*, clock_timestamp() as "now!"
                from page p
                join ops_schedules s on s.name = p.of
                where coalesce(p.bytes_before, 0) < $4
                order by s.name collate "C"
                "#,
                name,
                after,
                limit,
                MOST_BYTES,
            );
            Ok(rows.fetch_all(&self.pool).await?)
        };
        let rows = self.persist(Again::Always, ask).await?;
        rows.into_iter().map(Schedule::try_from).collect()
    }
}

/// The first instant of the terms after this one, and when it is due.
fn first_after(
    name: &ScheduleName,
    terms: &ScheduleTerms,
    now: OffsetDateTime,
) -> Result<(Option<OffsetDateTime>, Option<OffsetDateTime>), StoreError> {
    let grid = Grid::new(&terms.cron, &terms.timezone);
    let grid = grid.map_err(|why| StoreError::Refused(why.to_string()))?;
    let most = u32::try_from(terms.jitter_seconds).unwrap_or(0);
    let next = grid.next_after(now);
    Ok((
        next,
        next.map(|next| next + jitter(name.as_str(), next, most)),
    ))
}

fn labels_of(terms: &ScheduleTerms) -> Value {
    let labels = terms.labels.iter();
    labels
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect()
}

/// What a function of the schema answered; `None` where it found no schedule.
fn found<T>(answer: Result<T, sqlx::Error>) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_not_found(error: &sqlx::Error) -> bool {
    let refusal = error
        .as_database_error()
        .and_then(|db| db.try_downcast_ref::<PgDatabaseError>());
    refusal.is_some_and(|refusal| refusal.code() == "P0002")
}
