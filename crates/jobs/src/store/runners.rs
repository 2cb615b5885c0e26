//! The runners' own account of themselves.

use serde::Serialize;
use time::OffsetDateTime;

use super::Store;
use super::persist::Again;
use crate::error::StoreError;
use crate::lease::RunnerIdentity;

/// What a runner says of itself.
#[derive(Clone, Copy, Debug)]
pub struct RunnerReport<'a> {
    /// Who it is.
    pub runner: &'a RunnerIdentity,
    /// Its version.
    pub version: &'a str,
    /// The job types that it takes.
    pub job_types: &'a [String],
    /// Jobs at once.
    pub slots_total: i32,
    /// Jobs at work.
    pub slots_used: i32,
    /// Whether it takes no more because it is shutting down.
    pub draining: bool,
}

/// A runner as the fleet knows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Runner {
    /// `RUNNER_ID`.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The job types that it takes.
    pub job_types: Vec<String>,
    /// Jobs at once.
    pub slots_total: i32,
    /// Jobs at work when last seen.
    pub slots_used: i32,
    /// Whether it is shutting down.
    pub draining: bool,
    /// When it started.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it was last heard of.
    #[serde(with = "time::serde::rfc3339")]
    pub last_seen_at: OffsetDateTime,
    /// How long ago that was, in seconds, by the database's clock.
    pub silent_seconds: f64,
}

impl Store {
    /// Writes the runner's row.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn report_runner(&self, report: RunnerReport<'_>) -> Result<(), StoreError> {
        self.persist(Again::Always, || self.report_once(report))
            .await
    }

    async fn report_once(&self, report: RunnerReport<'_>) -> Result<(), StoreError> {
        sqlx::query!(
            r#"
            insert into ops_runners as r (id, boot_id, version, job_types, slots_total, slots_used, draining)
            values ($1, $2, $3, $4, $5, $6, $7)
            on conflict (id) do update
            set boot_id = excluded.boot_id,
              version = excluded.version,
              job_types = excluded.job_types,
              slots_total = excluded.slots_total,
              slots_used = excluded.slots_used,
              draining = excluded.draining,
              started_at = case when r.boot_id = excluded.boot_id then r.started_at else clock_timestamp() end,
              last_seen_at = clock_timestamp()
            "#,
            report.runner.id,
            report.runner.boot_id,
            report.version,
            report.job_types,
            report.slots_total,
            report.slots_used,
            report.draining,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Takes the runner's row away, as its last act.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sign_off(&self, runner: &RunnerIdentity) -> Result<(), StoreError> {
        sqlx::query!(
            "delete from ops_runners where id = $1 and boot_id = $2",
            runner.id,
            runner.boot_id
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// All runners that the fleet remembers, most recently seen first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn runners(&self) -> Result<Vec<Runner>, StoreError> {
        let rows = sqlx::query_as!(
            Runner,
            r#"
            select
              id, version, job_types, slots_total, slots_used, draining, started_at, last_seen_at,
              extract(epoch from clock_timestamp() - last_seen_at)::float8 as "silent_seconds!"
            from ops_runners
            order by last_seen_at desc, id
            limit 1000
            "#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }
}
