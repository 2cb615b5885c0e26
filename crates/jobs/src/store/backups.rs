//! What was backed up and what drills came to, and what a restored copy begins as. Makes no backup: the operator's command does.

use sqlx::AssertSqlSafe;
use time::OffsetDateTime;

use super::Store;
use crate::error::StoreError;

/// A backup that was made and verified.
#[derive(Clone, Debug)]
pub struct BackupRecord {
    /// The instant of its snapshot.
    pub started_at: OffsetDateTime,
    /// Its path.
    pub file: String,
    /// Its size.
    pub bytes: i64,
    /// SHA-256 of it.
    pub sha256: [u8; 32],
    /// The newest migration in it.
    pub schema_version: i64,
    /// How many jobs it holds.
    pub jobs: i64,
    /// How many events.
    pub events: i64,
    /// How many objects were copied beside it.
    pub objects: i64,
    /// The host that made it.
    pub host: String,
}

/// A restore that was done to prove a backup.
#[derive(Clone, Debug)]
pub struct DrillRecord {
    /// When it began.
    pub started_at: OffsetDateTime,
    /// The dump, where there was one.
    pub file: Option<String>,
    /// How old the backup's snapshot was, in seconds.
    pub backup_age_seconds: Option<f64>,
    /// How long the restore took, in seconds.
    pub restore_seconds: Option<f64>,
    /// How many jobs the copy had.
    pub jobs: Option<i64>,
    /// How many events.
    pub events: Option<i64>,
    /// What was wrong; nothing: it is proved.
    pub problems: Vec<String>,
    /// The host that did it.
    pub host: String,
}

/// How a restored copy stands before anybody resumes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoredCopy {
    /// Whether no job is claimed and no schedule fires.
    pub held: bool,
    /// Jobs that are said to run.
    pub running: i64,
    /// Whether the next fence is above every one that is in it.
    pub fence_is_above: bool,
}

/// What is said to a copy in the transaction that fills it, so that it is never seen otherwise; prints jobs taken back and fence.
pub fn after_restore(why: &str) -> String {
    format!(
        "set search_path = public, pg_temp;\nselect 'restored', lost, fence from ops_after_restore('{}');\n",
        why.replace('\'', "''")
    )
}

impl Store {
    /// Puts a backup on record that stands under its name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn record_backup(&self, backup: &BackupRecord) -> Result<(), StoreError> {
        sqlx::query!(
            r#"
            insert into ops_backups (started_at, file, bytes, sha256, schema_version, jobs, events, objects, host)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            "#,
            backup.started_at,
            backup.file,
            backup.bytes,
            backup.sha256.as_slice(),
            backup.schema_version,
            backup.jobs,
            backup.events,
            backup.objects,
            backup.host,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Puts a drill on record, whatever it came to.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn record_drill(&self, drill: &DrillRecord) -> Result<(), StoreError> {
        sqlx::query!(
            r#"
            insert into ops_drills (started_at, ok, file, backup_age_seconds, restore_seconds, jobs, events, problems, host)
            values ($1, cardinality($7::text[]) = 0, $2, $3, $4, $5, $6, $7, $8)
            "#,
            drill.started_at,
            drill.file,
            drill.backup_age_seconds,
            drill.restore_seconds,
            drill.jobs,
            drill.events,
            &drill.problems,
            drill.host,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Makes of a database that was filled from a dump what a restored copy begins as.
    ///
    /// # Errors
    /// When the database does not answer, or the login does not own it.
    pub async fn become_restored(&self, why: &str) -> Result<(), StoreError> {
        sqlx::raw_sql(AssertSqlSafe(after_restore(why)))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// How a restored copy stands.
    ///
    /// # Errors
    /// When the database does not answer, or is not one of ours.
    pub async fn restored_copy(&self) -> Result<RestoredCopy, StoreError> {
        let copy = sqlx::query_as!(
            RestoredCopy,
            r#"
            select
              (f.paused_at is not null and f.restored_at is not null) as "held!",
              (select count(*) from ops_jobs where status = 'running') as "running!",
              (select s.last_value from ops_fence s) >= (select coalesce(max(j.fence), 0) from ops_jobs j) as "fence_is_above!"
            from ops_fleet f
            "#
        );
        Ok(copy.fetch_one(&self.pool).await?)
    }
}
