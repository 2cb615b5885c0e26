//! Publishing to Notion: what is to be done next, what came of it, how it fares, and what is to be done again by hand.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::persist::Again;
use super::webhooks::found;
use crate::error::StoreError;
use crate::notion::{
    ClaimedOutcome, NotionCame, NotionCheck, NotionHealth, NotionKey, NotionOutcome, NotionRecord,
    NotionWork, RefusedOutcome,
};

/// So many of those that were refused are told of.
const REFUSED: i64 = 20;

struct WorkRow {
    what: String,
    wait_ms: i32,
    job_id: Option<Uuid>,
    attempt: Option<i32>,
    seq: Option<i32>,
    page_id: Option<String>,
    look: Option<bool>,
    job_type: Option<String>,
    queue: Option<String>,
    status: Option<String>,
    job_attempt: Option<i32>,
    error: Option<String>,
    created_at: Option<OffsetDateTime>,
    finished_at: Option<OffsetDateTime>,
}

impl WorkRow {
    fn outcome(self) -> Option<ClaimedOutcome> {
        Some(ClaimedOutcome {
            wait: milliseconds(self.wait_ms),
            job_id: self.job_id?,
            attempt: self.attempt?,
            seq: self.seq?,
            page_id: self.page_id,
            look: self.look?,
            job_type: self.job_type?,
            queue: self.queue?,
            status: self.status?,
            job_attempt: self.job_attempt?,
            error: self.error,
            created_at: self.created_at?,
            finished_at: self.finished_at?,
        })
    }
}

fn milliseconds(count: i32) -> Duration {
    Duration::from_millis(count.unsigned_abs().into())
}

struct HealthRow {
    noting: bool,
    pending: i64,
    oldest_pending_at: Option<OffsetDateTime>,
    dead: i64,
    published: i64,
    last_published_at: Option<OffsetDateTime>,
    last_error: Option<String>,
    last_error_at: Option<OffsetDateTime>,
    waits_until: Option<OffsetDateTime>,
}

impl Store {
    /// What a program that publishes with `key` to this database is to do next. Asking also has ends of jobs noted, for 26
    /// hours.
    ///
    /// # Errors
    /// When the database does not answer: what was taken then is the next one's once its time is over.
    pub async fn claim_notion(
        &self,
        sender: &str,
        key: &str,
        database_id: &str,
    ) -> Result<NotionWork, StoreError> {
        let row = sqlx::query_as!(
            WorkRow,
            r#"
            select
              what as "what!", wait_ms as "wait_ms!", job_id, attempt, seq, page_id, look, job_type, queue, status,
              job_attempt, error, created_at, finished_at
            from ops_claim_notion($1, $2, $3)
            "#,
            sender,
            key,
            database_id,
        );
        match row.fetch_optional(&self.pool).await? {
            None => Ok(NotionWork::Nothing),
            Some(row) if row.what == "check" => Ok(NotionWork::Check(milliseconds(row.wait_ms))),
            Some(row) => match row.outcome() {
                Some(outcome) => Ok(NotionWork::Publish(Box::new(outcome))),
                None => Err(StoreError::Internal(
                    "an outcome for Notion lacks a part".into(),
                )),
            },
        }
    }

    /// A turn for one more request to Notion: after how long it may be made.
    ///
    /// # Errors
    /// When the database does not answer: then it may not be made.
    pub async fn reserve_notion(&self) -> Result<Duration, StoreError> {
        let wait = sqlx::query_scalar!(r#"select ops_reserve_notion() as "wait_ms!""#);
        Ok(milliseconds(wait.fetch_one(&self.pool).await?))
    }

    /// Records what a check came to.
    ///
    /// # Errors
    /// When the database does not answer: then it is made again.
    pub async fn record_notion_check(
        &self,
        key: &str,
        check: &NotionCheck,
    ) -> Result<(), StoreError> {
        let (came, error, retry_after) = match check {
            NotionCheck::Right => ("right", None, None),
            NotionCheck::Faulty(error) => ("faulty", Some(error), None),
            NotionCheck::Busy { error, retry_after } => ("busy", Some(error), *retry_after),
        };
        let ask = || async {
            let recorded = sqlx::query_scalar!(
                r#"select ops_check_notion($1, $2, $3, $4) as "came!""#,
                key,
                came,
                error,
                retry_after,
            );
            Ok(recorded.fetch_one(&self.pool).await?)
        };
        self.persist(Again::Always, ask).await?;
        Ok(())
    }

    /// Records how publishing an outcome went; it counts only while the outcome is still the caller's.
    ///
    /// # Errors
    /// When the database does not answer: then the page is looked for, and written again.
    pub async fn record_notion(
        &self,
        sender: &str,
        database_id: &str,
        claimed: &ClaimedOutcome,
        outcome: &NotionOutcome,
    ) -> Result<NotionRecord, StoreError> {
        let page_id = match &outcome.came {
            NotionCame::Published(page_id) => Some(page_id),
            NotionCame::Busy
            | NotionCame::Unknown
            | NotionCame::Conflict
            | NotionCame::Gone
            | NotionCame::Held
            | NotionCame::Refused => None,
        };
        let ask = || async {
            let recorded = sqlx::query_scalar!(
                r#"select ops_record_notion($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) as "record!""#,
                sender,
                claimed.job_id,
                claimed.attempt,
                claimed.seq,
                outcome.came.as_str(),
                outcome.status,
                outcome.error,
                page_id,
                database_id,
                outcome.retry_after,
            );
            Ok(recorded.fetch_one(&self.pool).await?)
        };
        let record: String = self.persist(Again::Always, ask).await?;
        record.parse().map_err(|why| {
            StoreError::Internal(format!("a word of Notion makes no sense: it {why}").into())
        })
    }

    /// How publishing fares; all is empty before any program has asked for it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn notion_health(&self) -> Result<NotionHealth, StoreError> {
        self.persist(Again::Always, || self.notion_health_once())
            .await
    }

    async fn notion_health_once(&self) -> Result<NotionHealth, StoreError> {
        let row = sqlx::query_as!(
            HealthRow,
            r#"
            select
              n.asked_at > clock_timestamp() - interval '26 hours' as "noting!",
              (select count(*) from ops_notion_pages p where p.state = 'pending') as "pending!",
              (select min(p.noted_at) from ops_notion_pages p where p.state = 'pending') as oldest_pending_at,
              (select count(*) from ops_notion_pages p where p.state = 'dead') as "dead!",
              n.published, n.last_published_at, n.last_error, n.last_error_at,
              case when n.next_request_at > clock_timestamp() then n.next_request_at end as waits_until
            from ops_notion n
            "#
        );
        let Some(row) = row.fetch_optional(&self.pool).await? else {
            return Ok(NotionHealth::default());
        };
        let keys = sqlx::query_as!(
            NotionKey,
            r#"
            select k.key, k.database_id, k.checked_at, k.fault, k.fault_at
            from ops_notion_keys k
            where k.seen_at > clock_timestamp() - interval '1 hour'
            order by k.key
            "#
        );
        let refused = sqlx::query_as!(
            RefusedOutcome,
            r#"
            select p.job_id, p.last_status as status, p.last_error as error, p.ended_at as at
            from ops_notion_pages p
            where p.state = 'dead'
            order by p.ended_at desc
            limit $1
            "#,
            REFUSED,
        );
        Ok(NotionHealth {
            noting: row.noting,
            pending: row.pending,
            oldest_pending_at: row.oldest_pending_at,
            dead: row.dead,
            published: row.published,
            last_published_at: row.last_published_at,
            last_error: row.last_error,
            last_error_at: row.last_error_at,
            waits_until: row.waits_until,
            keys: keys.fetch_all(&self.pool).await?,
            refused: refused.fetch_all(&self.pool).await?,
        })
    }

    /// Has everything published again that Notion had refused, or one job that has ended, whatever became of it; gives how
    /// many, or `None` where no such job has ended. Faulty tokens and databases are looked at again at once.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn retry_notion(&self, job: Option<Uuid>) -> Result<Option<i32>, StoreError> {
        let retried = sqlx::query_scalar!(r#"select ops_retry_notion($1) as "retried!""#, job);
        found(retried.fetch_one(&self.pool).await)
    }
}
