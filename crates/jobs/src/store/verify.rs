//! Reads every job with its events, a page at a time, and hands them to the fold. Changes nothing.

use sqlx::AssertSqlSafe;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::pool::Transaction;
use super::row::{EventRow, parsed};
use crate::error::StoreError;
use crate::job::Event;
use crate::verify::{Finding, Fold, Standing};

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Jobs.
    pub jobs: u64,
    /// Events.
    pub events: u64,
    /// Seals.
    pub seals: u64,
    /// Findings.
    pub findings: u64,
}

/// Jobs, and events, that are held in memory at once.
const PAGE: i64 = 500;

struct StandingRow {
    id: Uuid,
    status: String,
    attempt: i32,
    runner_id: Option<String>,
    fence: i64,
    started_at: Option<OffsetDateTime>,
    finished_at: Option<OffsetDateTime>,
    dead_lettered_at: Option<OffsetDateTime>,
    event_seq: i32,
}

impl StandingRow {
    fn parsed(self) -> Result<(Uuid, Standing), StoreError> {
        let standing = Standing {
            status: parsed(&self.status, "status", self.id)?,
            attempt: self.attempt,
            runner_id: self.runner_id,
            fence: self.fence,
            started_at: self.started_at,
            finished_at: self.finished_at,
            dead_lettered_at: self.dead_lettered_at,
            event_seq: self.event_seq,
        };
        Ok((self.id, standing))
    }
}

impl Store {
    /// Folds the events of every job and tells `found` whatever they do not explain; then compares them with their seals. A page is read in one snapshot, so
    /// that jobs may change meanwhile; those that are recorded meanwhile may be passed over.
    ///
    /// # Errors
    /// When the database does not answer; nothing is known of the rest then.
    pub async fn verify(&self, found: impl FnMut(Finding)) -> Result<Verified, StoreError> {
        self.verify_at(None, found).await
    }

    /// The same, of one instant that somebody holds ([`crate::Snapshot`]).
    ///
    /// # Errors
    /// As [`Store::verify`]; also when that snapshot is not held any more.
    pub async fn verify_at(
        &self,
        instant: Option<&str>,
        mut found: impl FnMut(Finding),
    ) -> Result<Verified, StoreError> {
        let mut verified = Verified::default();
        let mut after = None;
        loop {
            let mut snapshot = self.page_of(instant).await?;
            let rows = standings(&mut snapshot, after).await?;
            let whole = i64::try_from(rows.len()).unwrap_or(i64::MAX) < PAGE;
            let last = rows.last().map(|(id, _)| *id);
            let until = if whole {
                Uuid::max()
            } else {
                last.unwrap_or(Uuid::max())
            };
            let mut page = Pages {
                rows,
                folds: None,
                next: 0,
                verified: &mut verified,
                found: &mut found,
            };
            page.read(&mut snapshot, after.unwrap_or(Uuid::nil()), until)
                .await?;
            snapshot.commit().await?;
            if whole {
                break;
            }
            after = Some(until);
        }
        let mut findings = 0;
        verified.seals = self
            .verify_seals(instant, |finding| {
                findings += 1;
                found(finding);
            })
            .await?;
        verified.findings += findings;
        Ok(verified)
    }

    /// A transaction in one snapshot: its own, or the one that is named.
    pub(super) async fn page_of(&self, instant: Option<&str>) -> Result<Transaction, StoreError> {
        let mut page = self.pool.begin().await?;
        sqlx::raw_sql("set transaction isolation level repeatable read, read only")
            .execute(&mut *page)
            .await?;
        if let Some(instant) = instant {
            // The name is the server's own, and cannot be bound.
            let named = format!("set transaction snapshot '{}'", instant.replace('\'', ""));
            sqlx::raw_sql(AssertSqlSafe(named))
                .execute(&mut *page)
                .await?;
        }
        Ok(page)
    }
}

/// One page of rows, walked beside the events of the same range of ids; both come in the order of the ids.
struct Pages<'a, Found> {
    rows: Vec<(Uuid, Standing)>,
    folds: Option<(Uuid, Fold)>,
    next: usize,
    verified: &'a mut Verified,
    found: &'a mut Found,
}

impl<Found: FnMut(Finding)> Pages<'_, Found> {
    async fn read(
        &mut self,
        connection: &mut Transaction,
        after: Uuid,
        until: Uuid,
    ) -> Result<(), StoreError> {
        let mut cursor = (after, i32::MAX);
        loop {
            let events = events(connection, cursor, until).await?;
            for event in &events {
                self.take(event);
            }
            match events.last() {
                Some(last) if i64::try_from(events.len()).unwrap_or(0) == PAGE => {
                    cursor = (last.job_id, last.seq);
                }
                _ => break,
            }
        }
        self.finish_fold();
        self.rows_until(None);
        Ok(())
    }

    fn take(&mut self, event: &Event) {
        self.verified.events += 1;
        if self
            .folds
            .as_ref()
            .is_none_or(|(id, _)| *id != event.job_id)
        {
            self.finish_fold();
            self.rows_until(Some(event.job_id));
            self.folds = Some((event.job_id, Fold::new(event.job_id)));
        }
        if let Some((_, fold)) = &mut self.folds {
            fold.take(event);
        }
    }

    /// The job whose events are all read now.
    fn finish_fold(&mut self) {
        let Some((id, fold)) = self.folds.take() else {
            return;
        };
        let row = self.rows.get(self.next).filter(|(row, _)| *row == id);
        let findings = fold.compare(row.map(|(_, standing)| standing));
        if row.is_some() {
            self.next += 1;
            self.verified.jobs += 1;
        }
        self.tell(findings);
    }

    /// The rows before this id have no event at all.
    fn rows_until(&mut self, id: Option<Uuid>) {
        while let Some((row, standing)) = self.rows.get(self.next)
            && id.is_none_or(|id| *row < id)
        {
            let findings = Fold::new(*row).compare(Some(standing));
            self.next += 1;
            self.verified.jobs += 1;
            self.tell(findings);
        }
    }

    fn tell(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            self.verified.findings += 1;
            (self.found)(finding);
        }
    }
}

async fn standings(
    connection: &mut Transaction,
    after: Option<Uuid>,
) -> Result<Vec<(Uuid, Standing)>, StoreError> {
    let rows = sqlx::query_as!(
        StandingRow,
        r#"
        select id, status, attempt, runner_id, fence, started_at, finished_at, dead_lettered_at, event_seq
        from ops_jobs
        where $1::uuid is null or id > $1
        order by id
        limit $2
        "#,
        after,
        PAGE,
    )
    .fetch_all(&mut **connection)
    .await?;
    rows.into_iter().map(StandingRow::parsed).collect()
}

async fn events(
    connection: &mut Transaction,
    (job_id, seq): (Uuid, i32),
    until: Uuid,
) -> Result<Vec<Event>, StoreError> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        select job_id, seq, at, kind, attempt, runner_id, actor, data
        from ops_job_events
        where (job_id, seq) > ($1, $2) and job_id <= $3
        order by job_id, seq
        limit $4
        "#,
        job_id,
        seq,
        until,
        PAGE,
    )
    .fetch_all(&mut **connection)
    .await?;
    Ok(rows.into_iter().map(Event::from).collect())
}
