//! The ledger of instants as it is read, and its retention. Written by `firing.rs` alone, and by `ops_fire_schedule`.

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::persist::Again;
use crate::error::StoreError;
use crate::schedule::{Fire, FireOutcome, ScheduleName};

/// Rows a statement.
const PAGE: i64 = 1000;

/// One page of the ledger, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct FirePage {
    /// The rows.
    pub fires: Vec<Fire>,
    /// Where the next page begins, if there is one.
    pub next: Option<OffsetDateTime>,
}

struct FireRow {
    instant: OffsetDateTime,
    through: OffsetDateTime,
    instants: i32,
    outcome: String,
    reason: Option<String>,
    job_id: Option<Uuid>,
    manual: bool,
    actor: String,
    at: OffsetDateTime,
}

impl TryFrom<FireRow> for Fire {
    type Error = StoreError;

    fn try_from(row: FireRow) -> Result<Self, StoreError> {
        let outcome = row.outcome.parse();
        Ok(Self {
            instant: row.instant,
            through: row.through,
            instants: row.instants,
            outcome: outcome.map_err(|why: String| StoreError::Internal(why.into()))?,
            reason: row.reason,
            job_id: row.job_id,
            manual: row.manual,
            actor: row.actor,
            at: row.at,
        })
    }
}

impl Store {
    /// A page of what became of a schedule's instants, newest first; also of one that is gone.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn fires(
        &self,
        schedule: &ScheduleName,
        outcome: Option<FireOutcome>,
        before: Option<OffsetDateTime>,
        limit: i64,
    ) -> Result<FirePage, StoreError> {
        let ask = || async {
            let rows = sqlx::query_as!(
                FireRow,
                r#"
                select instant, through, instants, outcome, reason, job_id, manual, actor, at
                from ops_schedule_fires
                where schedule = $1
                  and ($2::text is null or outcome = $2)
                  and ($3::timestamptz is null or instant < $3)
                order by instant desc
                limit $4
                "#,
                schedule.as_str(),
                outcome.map(FireOutcome::as_str),
                before,
                limit + 1,
            );
            Ok(rows.fetch_all(&self.pool).await?)
        };
        let rows = self.persist(Again::Always, ask).await?;
        let fires = rows.into_iter().map(Fire::try_from);
        let mut fires = fires.collect::<Result<Vec<_>, _>>()?;
        let wanted = usize::try_from(limit).unwrap_or(0);
        let more = fires.len() > wanted;
        fires.truncate(wanted);
        let next = fires.last().filter(|_| more).map(|fire| fire.instant);
        Ok(FirePage { fires, next })
    }

    /// Forgets a page of what was decided more than 90 days ago. Without locks, which would need the right to change rows:
    /// another tick that takes the same page finds it gone.
    pub(super) async fn forget_fires(&self) -> Result<u64, StoreError> {
        let forgotten = sqlx::query!(
            r#"
            delete from ops_schedule_fires f
            using (
              select schedule, instant
              from ops_schedule_fires
              where at < clock_timestamp() - interval '90 days'
              order by at
              limit $1
            ) old
            where f.schedule = old.schedule and f.instant = old.instant
            "#,
            PAGE,
        )
        .execute(&self.pool)
        .await?;
        Ok(forgotten.rows_affected())
    }
}
