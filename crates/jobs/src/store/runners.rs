//! The runners' own account of themselves, and the guard that lets one process at a time bear a RUNNER_ID.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::drains::RUNNER_PROTOCOL;
use super::persist::Again;
use super::{Store, seconds};
use crate::error::StoreError;
use crate::lease::{RunnerIdentity, TypeTerms};

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
    /// How often it looks for due jobs by itself; `None`: never.
    pub poll: Option<Duration>,
    /// The terms of its job types; their limits over the fleet are told.
    pub types: &'a [TypeTerms],
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
    /// Whether it takes no more: it is shutting down, or was drained.
    pub draining: bool,
    /// Since when it is drained.
    #[serde(with = "time::serde::rfc3339::option")]
    pub drain_requested_at: Option<OffsetDateTime>,
    /// By whom.
    pub drain_requested_by: Option<String>,
    /// Why, where that was said.
    pub drain_reason: Option<String>,
    /// How it speaks with the database; `None` where its release does not say.
    pub protocol: Option<i32>,
    /// Whether the database serves that.
    pub fits: bool,
    /// When it started.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it was last heard of.
    #[serde(with = "time::serde::rfc3339")]
    pub last_seen_at: OffsetDateTime,
    /// How long ago that was, in seconds, by the database's clock.
    pub silent_seconds: f64,
}

/// Whether a name is this runner's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is.
    Admitted,
    /// Another process bore it when it was last heard of.
    Taken {
        /// Which start of the runner that was.
        boot_id: Uuid,
        /// When it last wrote its row.
        last_seen_at: OffsetDateTime,
    },
}

impl Store {
    /// Takes the name of a runner for this start of it, unless another start may be alive: one that wrote its row within
    /// `silence` and is not `dead`, the one that is known to have ended. What the earlier starts ran is taken back then.
    ///
    /// # Errors
    /// When the database does not answer; then it is not admitted.
    pub async fn admit_runner(
        &self,
        report: RunnerReport<'_>,
        dead: Option<Uuid>,
        silence: Duration,
    ) -> Result<Admission, StoreError> {
        if self.write_row(report, dead, Some(silence)).await? {
            return Ok(Admission::Admitted);
        }
        let other = sqlx::query!(
            "select boot_id, last_seen_at from ops_runners where id = $1",
            report.runner.id
        )
        .fetch_optional(&self.pool)
        .await?;
        match other {
            Some(other) => Ok(Admission::Taken {
                boot_id: other.boot_id,
                last_seen_at: other.last_seen_at,
            }),
            // It has signed off between the two statements.
            None => Box::pin(self.admit_runner(report, dead, silence)).await,
        }
    }

    /// Writes the runner's row; `false` when another process has taken its name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn report_runner(&self, report: RunnerReport<'_>) -> Result<bool, StoreError> {
        self.persist(Again::Always, || self.write_row(report, None, None))
            .await
    }

    async fn write_row(
        &self,
        report: RunnerReport<'_>,
        dead: Option<Uuid>,
        silence: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let limits: BTreeMap<&str, i32> = report
            .types
            .iter()
            .filter_map(|terms| Some((terms.job_type.as_str(), terms.concurrency?)))
            .collect();
        let written = sqlx::query!(
            r#"
            insert into ops_runners as r (id, boot_id, version, job_types, slots_total, slots_used, draining, poll_seconds, type_limits, protocol)
            values ($1, $2, $3, $4, $5, $6, $7, $10, $11, $12)
            on conflict (id) do update
            set boot_id = excluded.boot_id,
              version = excluded.version,
              job_types = excluded.job_types,
              slots_total = excluded.slots_total,
              slots_used = excluded.slots_used,
              -- Drained, it stays so, over restarts too; the row says it as the runner would.
              draining = excluded.draining or r.drain_requested_at is not null,
              poll_seconds = excluded.poll_seconds,
              type_limits = excluded.type_limits,
              protocol = excluded.protocol,
              started_at = case when r.boot_id = excluded.boot_id then r.started_at else clock_timestamp() end,
              last_seen_at = clock_timestamp()
            where r.boot_id = excluded.boot_id
              or r.boot_id = $8
              or r.last_seen_at < clock_timestamp() - make_interval(secs => $9)
            "#,
            report.runner.id,
            report.runner.boot_id,
            report.version,
            report.job_types,
            report.slots_total,
            report.slots_used,
            report.draining,
            dead,
            silence.map(seconds),
            report.poll.map_or(0.0, seconds),
            json!(limits),
            RUNNER_PROTOCOL,
        )
        .execute(&self.pool)
        .await?;
        Ok(written.rows_affected() == 1)
    }

    /// Takes the runner's row away, as its last act; where it is drained the row stays, for its next start.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sign_off(&self, runner: &RunnerIdentity) -> Result<(), StoreError> {
        sqlx::query!(
            r#"
            with gone as (
              delete from ops_runners where id = $1 and boot_id = $2 and drain_requested_at is null
            )
            update ops_runners
            set slots_used = 0
            where id = $1 and boot_id = $2 and drain_requested_at is not null
            "#,
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
              r.id, r.version, r.job_types, r.slots_total, r.slots_used, r.draining,
              r.drain_requested_at, r.drain_requested_by, r.drain_reason, r.protocol,
              coalesce(r.protocol, 1) between f.protocol_min and f.protocol_max as "fits!",
              r.started_at, r.last_seen_at,
              extract(epoch from clock_timestamp() - r.last_seen_at)::float8 as "silent_seconds!"
            from ops_runners r, ops_fleet f
            order by r.last_seen_at desc, r.id
            limit 1000
            "#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows)
    }
}
