//! Retention: how long ended jobs are kept, and their removal a batch at a time. What is removed is the database's to decide.

use std::time::{Duration, Instant};

use serde::Serialize;
use time::OffsetDateTime;

use super::persist::Again;
use super::{Store, seconds};
use crate::error::StoreError;
use crate::name::Name;
use crate::state::Status;

/// Jobs a transaction.
const BATCH: i32 = 200;
/// Between two transactions, so that claims and finishes come in.
const PAUSE: Duration = Duration::from_millis(20);
/// Every type without a word of its own.
const EVERY: &str = "*";

/// How long jobs that ended so are kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RetentionTerm {
    /// Of which type; `*`: every one without a term of its own.
    pub job_type: String,
    /// `succeeded`, `failed` or `aborted`.
    pub status: String,
    /// For so many seconds after the end; `None`: for ever.
    pub keep_seconds: Option<f64>,
    /// Who said so.
    pub set_by: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub set_at: OffsetDateTime,
}

/// Jobs of one type whose time has passed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expired {
    /// Their type.
    pub job_type: String,
    /// How they ended.
    pub status: String,
    /// How many.
    pub jobs: i64,
    /// How many events they have.
    pub events: i64,
    /// When the first of them ended.
    #[serde(with = "time::serde::rfc3339")]
    pub oldest: OffsetDateTime,
}

/// What was removed, on one day or in one go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Jobs.
    pub jobs: u64,
    /// Their events.
    pub events: u64,
    /// Rows of their logs.
    pub log_chunks: u64,
    /// Their files.
    pub files: u64,
}

impl Removed {
    fn add(&mut self, other: &Self) {
        self.jobs += other.jobs;
        self.events += other.events;
        self.log_chunks += other.log_chunks;
        self.files += other.files;
    }
}

/// How long jobs are to be kept from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// For so long after they ended.
    For(Duration),
    /// Always.
    ForEver,
    /// As every type without a term of its own.
    AsOthers,
}

impl Store {
    /// The terms, those for every type first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn retention(&self) -> Result<Vec<RetentionTerm>, StoreError> {
        self.persist(Again::Always, || async {
            let terms = sqlx::query_as!(
                RetentionTerm,
                r#"
                select r.job_type, r.status, extract(epoch from r.keep)::float8 as keep_seconds, r.set_by, r.set_at
                from ops_retention r
                order by r.job_type <> '*', r.job_type, r.status desc
                "#
            );
            Ok(terms.fetch_all(&self.pool).await?)
        })
        .await
    }

    /// Sets how long jobs that end so are kept; of every type without a term of its own where none is named.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where the status is none that ends a job, or what holds for every type is taken away.
    pub async fn set_retention(
        &self,
        job_type: Option<&Name>,
        status: Status,
        keep: Keep,
    ) -> Result<(), StoreError> {
        let job_type = job_type.map_or(EVERY, Name::as_str);
        let keep = match keep {
            Keep::For(keep) => Some(seconds(keep)),
            Keep::ForEver => None,
            Keep::AsOthers if job_type == EVERY => {
                return Err(StoreError::Refused(
                    "there are no others to go by: name a time, or keep them for ever".to_owned(),
                ));
            }
            Keep::AsOthers => {
                sqlx::query!(
                    "delete from ops_retention where job_type = $1 and status = $2",
                    job_type,
                    status.as_str(),
                )
                .execute(&self.pool)
                .await?;
                return Ok(());
            }
        };
        sqlx::query!(
            r#"
            insert into ops_retention (job_type, status, keep)
            values ($1, $2, make_interval(secs => $3))
            on conflict on constraint ops_retention_pkey do update set keep = excluded.keep
            "#,
            job_type,
            status.as_str(),
            keep,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// What would be removed by now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn retention_due(&self) -> Result<Vec<Expired>, StoreError> {
        self.persist(Again::Always, || async {
            let due = sqlx::query_as!(
                Expired,
                r#"
                select
                  job_type as "job_type!", status as "status!", jobs as "jobs!", events as "events!", oldest as "oldest!"
                from ops_retention_due()
                "#
            );
            Ok(due.fetch_all(&self.pool).await?)
        })
        .await
    }

    /// What was removed since the beginning, by the database's own count.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn removals(&self) -> Result<Removed, StoreError> {
        self.persist(Again::Always, || async {
            let row = sqlx::query!(
                r#"
                select
                  coalesce(sum(jobs), 0)::bigint as "jobs!", coalesce(sum(events), 0)::bigint as "events!",
                  coalesce(sum(log_chunks), 0)::bigint as "log_chunks!", coalesce(sum(files), 0)::bigint as "files!"
                from ops_removals
                "#
            );
            let row = row.fetch_one(&self.pool).await?;
            Ok(Removed {
                jobs: row.jobs.unsigned_abs(),
                events: row.events.unsigned_abs(),
                log_chunks: row.log_chunks.unsigned_abs(),
                files: row.files.unsigned_abs(),
            })
        })
        .await
    }

    /// Removes what has been kept for long enough, a batch a transaction with a pause after each, and begins no other after
    /// `budget`. Any number may do so at once; what is left is the next one's.
    ///
    /// # Errors
    /// When the database does not answer; what was removed before stays so.
    pub async fn apply_retention(
        &self,
        actor: &str,
        budget: Duration,
    ) -> Result<Removed, StoreError> {
        let begun = Instant::now();
        let mut removed = Removed::default();
        loop {
            let batch = self.remove_batch(actor).await?;
            removed.add(&batch);
            if batch.jobs == 0 || begun.elapsed() + PAUSE > budget {
                return Ok(removed);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn remove_batch(&self, actor: &str) -> Result<Removed, StoreError> {
        // Asked again only where nothing came of it: what it gives is counted.
        self.persist(Again::Undone, || async {
            let rows = sqlx::query!(
                r#"
                select jobs as "jobs!", events as "events!", log_chunks as "log_chunks!", files as "files!"
                from ops_apply_retention($1, $2)
                "#,
                actor,
                BATCH,
            );
            let mut removed = Removed::default();
            for row in rows.fetch_all(&self.pool).await? {
                removed.add(&Removed {
                    jobs: row.jobs.unsigned_abs(),
                    events: row.events.unsigned_abs(),
                    log_chunks: row.log_chunks.unsigned_abs(),
                    files: row.files.unsigned_abs(),
                });
            }
            Ok(removed)
        })
        .await
    }
}
