//! Runners one by one: which of them are given no job although the fleet is not paused, and why. Moves no job.

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Store;
use super::persist::Again;
use crate::error::StoreError;
use crate::lease::RunnerIdentity;

/// How a runner of this release speaks with the database. It changes with what a release before could not understand; the
/// migration that brings that about says which ones it serves.
pub const RUNNER_PROTOCOL: i32 = 1;

/// Why a runner is given no job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Somebody drained it.
    Drained {
        /// Since when.
        at: OffsetDateTime,
        /// Who.
        by: String,
        /// Why, where that was said.
        reason: Option<String>,
    },
    /// It does not speak what the database serves.
    Incompatible {
        /// The oldest protocol that is served.
        min: i32,
        /// The newest.
        max: i32,
    },
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drained { at, by, reason } => {
                let since = at.format(&Rfc3339).unwrap_or_default();
                write!(f, "drained by {by} since {since}")?;
                match reason {
                    Some(reason) => write!(f, " ({reason})"),
                    None => Ok(()),
                }
            }
            Self::Incompatible { min, max } => write!(
                f,
                "of a release that does not fit: it speaks protocol {RUNNER_PROTOCOL}, the database serves {min} to {max}"
            ),
        }
    }
}

/// A runner as it was asked to be, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steered {
    /// It is; so many jobs were taken back with it.
    Done {
        /// Jobs that its runner was running.
        taken_back: u64,
    },
    /// The database does not know it.
    Unknown,
    /// It was heard of a moment ago, so it cannot be forgotten.
    Alive,
}

impl Store {
    /// Why a runner is given no job although the fleet is not paused; `None` where it is given some.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn closed_to(&self, runner: &RunnerIdentity) -> Result<Option<Closed>, StoreError> {
        let ask = || async {
            let row = sqlx::query!(
                r#"
                select
                  f.protocol_min, f.protocol_max,
                  r.drain_requested_at as "at?", r.drain_requested_by as "by?", r.drain_reason as "reason?"
                from ops_fleet f
                left join ops_runners r on r.id = $1
                "#,
                runner.id,
            );
            let Some(row) = row.fetch_optional(&self.pool).await? else {
                return Ok(None);
            };
            if !(row.protocol_min..=row.protocol_max).contains(&RUNNER_PROTOCOL) {
                return Ok(Some(Closed::Incompatible {
                    min: row.protocol_min,
                    max: row.protocol_max,
                }));
            }
            let drained = row.at.zip(row.by);
            Ok(drained.map(|(at, by)| Closed::Drained {
                at,
                by,
                reason: row.reason,
            }))
        };
        self.persist(Again::Always, ask).await
    }

    /// From its return on the runner is given no job until it is undrained, over restarts too.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn drain_runner(
        &self,
        id: &str,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<Steered, StoreError> {
        let drain = || async {
            let drained = sqlx::query_scalar!(
                r#"
                with acting as materialized (select set_config('ops.actor', $1, true) as actor)
                select ops_drain_runner(r.id, $3)
                from acting a, ops_runners r
                where a.actor is not null and r.id = $2
                "#,
                actor,
                id,
                reason,
            );
            let drained = drained.fetch_optional(&self.pool).await?;
            Ok(drained.map_or(Steered::Unknown, |_| Steered::Done { taken_back: 0 }))
        };
        self.persist(Again::Always, drain).await
    }

    /// Lets a drained runner be given jobs again.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn undrain_runner(
        &self,
        id: &str,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<Steered, StoreError> {
        let undrain = || async {
            let undrained = sqlx::query_scalar!(
                r#"
                with acting as materialized (select set_config('ops.actor', $1, true) as actor)
                select ops_undrain_runner(r.id, $3)
                from acting a, ops_runners r
                where a.actor is not null and r.id = $2
                "#,
                actor,
                id,
                reason,
            );
            let undrained = undrained.fetch_optional(&self.pool).await?;
            Ok(undrained.map_or(Steered::Unknown, |_| Steered::Done { taken_back: 0 }))
        };
        self.persist(Again::Always, undrain).await
    }

    /// Removes a runner that is silent, and takes back what it ran, as from any runner that is lost.
    ///
    /// # Errors
    /// When the database does not answer. If that was after the runner was removed, the next sweep takes its jobs back.
    pub async fn forget_runner(
        &self,
        id: &str,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<Steered, StoreError> {
        let forgotten = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_forget_runner(r.id, $3)
            from acting a, ops_runners r
            where a.actor is not null and r.id = $2 and r.last_seen_at <= clock_timestamp() - interval '1 minute'
            "#,
            actor,
            id,
            reason,
        );
        if forgotten.fetch_optional(&self.pool).await?.is_none() {
            let is_known = sqlx::query_scalar!(
                r#"select exists (select from ops_runners where id = $1) as "known!""#,
                id
            );
            let is_known = is_known.fetch_one(&self.pool).await?;
            return Ok(if is_known {
                Steered::Alive
            } else {
                Steered::Unknown
            });
        }
        let swept = self.recover(actor).await?;
        Ok(Steered::Done {
            taken_back: swept.recovered,
        })
    }
}
