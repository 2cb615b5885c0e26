//! The fleet's switch: whether jobs are claimed at all, who paused that, when and why. Moves no job.

use std::fmt;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Store;
use super::persist::Again;
use crate::error::StoreError;

/// Who keeps jobs from being claimed, since when, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Who.
    pub by: String,
    /// Why, where that was said.
    pub reason: Option<String>,
}

impl Pause {
    /// Since when, in RFC 3339.
    pub fn since(&self) -> String {
        // The database keeps no instant that cannot be written so.
        self.at.format(&Rfc3339).unwrap_or_default()
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "paused by {} since {}", self.by, self.since())?;
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// A pause or a resumption of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FleetChange {
    /// Its number; the newest has the highest.
    pub seq: i64,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// `paused` or `resumed`; of one runner `drained`, `undrained` or `forgotten`.
    pub change: String,
    /// The runner, where it is about one.
    pub runner_id: Option<String>,
    /// Who.
    pub actor: String,
    /// Why, where that was said.
    pub reason: Option<String>,
}

/// So many changes are told of, the newest.
const CHANGES: i64 = 50;

impl Store {
    /// The pause that holds, or `None` while jobs are claimed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pause(&self) -> Result<Option<Pause>, StoreError> {
        self.persist(Again::Always, || self.pause_once()).await
    }

    async fn pause_once(&self) -> Result<Option<Pause>, StoreError> {
        let pause = sqlx::query_as!(
            Pause,
            r#"
            select f.paused_at as "at!", f.paused_by as "by!", f.reason
            from ops_fleet f
            where f.paused_at is not null
            "#
        );
        Ok(pause.fetch_optional(&self.pool).await?)
    }

    /// The newest pauses and resumptions, the newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn fleet_changes(&self) -> Result<Vec<FleetChange>, StoreError> {
        self.persist(Again::Always, || self.fleet_changes_once())
            .await
    }

    async fn fleet_changes_once(&self) -> Result<Vec<FleetChange>, StoreError> {
        let changes = sqlx::query_as!(
            FleetChange,
            "select c.seq, c.at, c.change, c.runner_id, c.actor, c.reason from ops_fleet_changes c order by c.seq desc limit $1",
            CHANGES,
        );
        Ok(changes.fetch_all(&self.pool).await?)
    }

    /// From its return on no job is claimed until the fleet is resumed; jobs that run go on. A paused fleet stays as it was
    /// paused.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pause_fleet(&self, actor: &str, reason: Option<&str>) -> Result<(), StoreError> {
        let pause = || async {
            sqlx::query_scalar!(
                r#"
                with acting as materialized (select set_config('ops.actor', $1, true) as actor)
                select ops_pause_fleet($2) from acting where actor is not null
                "#,
                actor,
                reason,
            )
            .fetch_one(&self.pool)
            .await?;
            Ok(())
        };
        self.persist(Again::Always, pause).await
    }

    /// Lets jobs be claimed again.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn resume_fleet(&self, actor: &str, reason: Option<&str>) -> Result<(), StoreError> {
        let resume = || async {
            sqlx::query_scalar!(
                r#"
                with acting as materialized (select set_config('ops.actor', $1, true) as actor)
                select ops_resume_fleet($2) from acting where actor is not null
                "#,
                actor,
                reason,
            )
            .fetch_one(&self.pool)
            .await?;
            Ok(())
        };
        self.persist(Again::Always, resume).await
    }
}
