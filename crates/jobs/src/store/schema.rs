//! The schema's version: what is applied, what this program expects, and how to go from one to the other.

use serde::Serialize;
use sqlx::migrate::{MigrationType, Migrator};
use sqlx::{Connection as _, PgConnection};

use super::persist::Again;
use super::{Pooler, Store};
use crate::error::StoreError;

/// Our own table, so that programs that share the database keep theirs.
const TABLE: &str = "ops_schema_migrations";

const FORGET: &str = "deallocate all";

const COMMENTS: &str = "
comment on table ops_schema_migrations is 'Which migrations were applied; kept by opsctl db.';
comment on column ops_schema_migrations.version is 'The number of the migration.';
comment on column ops_schema_migrations.description is 'Its name.';
comment on column ops_schema_migrations.installed_on is 'When it was applied.';
comment on column ops_schema_migrations.success is 'Whether it was applied whole.';
comment on column ops_schema_migrations.checksum is 'SHA-384 of its file, which never changes.';
comment on column ops_schema_migrations.execution_time is 'How long it took, in nanoseconds.';
";

/// One migration, as this program knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// How the database's schema stands to the one that this program expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SchemaStatus {
    /// The newest version in the database; 0 for none.
    pub current: i64,
    /// The version that this program needs.
    pub expected: i64,
    /// Every migration that this program knows.
    pub migrations: Vec<Migration>,
}

impl SchemaStatus {
    /// Whether the program may work on this database.
    pub fn is_expected(&self) -> bool {
        self.current == self.expected && self.migrations.iter().all(|migration| migration.applied)
    }
}

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../../migrations");
    migrator.dangerous_set_table_name(TABLE);
    migrator
}

/// The schema version that this program needs.
pub fn expected_version() -> i64 {
    migrator()
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

/// Changes with any migration, applied or not: names the test template that a build needs.
pub fn schema_fingerprint() -> String {
    let sum = migrator()
        .iter()
        .flat_map(|migration| migration.checksum.iter().copied())
        .fold(0_u64, |sum, byte| {
            sum.wrapping_mul(1_099_511_628_211) ^ u64::from(byte)
        });
    format!("{sum:016x}")
}

impl Store {
    /// How the schema stands.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn schema_status(&self) -> Result<SchemaStatus, StoreError> {
        self.persist(Again::Always, || self.schema_status_once())
            .await
    }

    async fn schema_status_once(&self) -> Result<SchemaStatus, StoreError> {
        let exists =
            sqlx::query_scalar!(r#"select to_regclass($1) is not null as "exists!""#, TABLE)
                .fetch_one(&self.pool)
                .await?;
        // The table is not part of the migrations, so this query is not checked at compile time.
        let applied: Vec<i64> = if exists {
            sqlx::query_scalar(
                "select version from ops_schema_migrations where success order by version",
            )
            .fetch_all(&self.pool)
            .await?
        } else {
            Vec::new()
        };
        let migrations: Vec<Migration> = migrator()
            .iter()
            .filter(|migration| migration.migration_type != MigrationType::ReversibleDown)
            .map(|migration| Migration {
                version: migration.version,
                name: migration.description.to_string(),
                applied: applied.contains(&migration.version),
            })
            .collect();
        Ok(SchemaStatus {
            current: applied.iter().copied().max().unwrap_or(0),
            expected: migrations
                .iter()
                .map(|migration| migration.version)
                .max()
                .unwrap_or(0),
            migrations,
        })
    }

    /// Applies the migrations that are missing.
    ///
    /// # Errors
    /// When one fails: it is rolled back whole, those before it stay.
    pub async fn migrate(&self) -> Result<SchemaStatus, StoreError> {
        self.move_to(None).await?;
        // The migrator makes this table; it has no words for it.
        sqlx::raw_sql(COMMENTS).execute(&self.pool).await?;
        self.schema_status().await
    }

    /// Takes back every migration newer than `target`; 0 takes all back, and with them every job.
    ///
    /// # Errors
    /// When one fails: it is rolled back whole, those taken back before it stay so.
    pub async fn rollback_to(&self, target: i64) -> Result<SchemaStatus, StoreError> {
        self.move_to(Some(target)).await?;
        self.schema_status().await
    }

    /// Up to the newest version, or down to `target`.
    async fn move_to(&self, target: Option<i64>) -> Result<(), StoreError> {
        let mut migrator = migrator();
        // Closed at the end: what the migrator leaves in a session is nobody else's.
        let mut lent = self.pool.lend().await?;
        let connection = lent.raw()?;
        match self.pool.pooler() {
            Pooler::None => moved(&migrator, target, connection).await,
            // The migrator's lock, and statements that are sent in two steps, need one session throughout, and only a
            // transaction has that here. So it is all or none, under a lock that ends with it.
            Pooler::Transaction => {
                migrator.set_locking(false);
                let mut transaction = connection.begin().await?;
                sqlx::raw_sql(
                    "select pg_advisory_xact_lock(hashtextextended('ops_migrations', 0))",
                )
                .execute(&mut *transaction)
                .await?;
                // The migrator names its statements; what an earlier one left in the session that is ours now would be in
                // its way, and what this one leaves in the next one's.
                sqlx::raw_sql(FORGET).execute(&mut *transaction).await?;
                moved(&migrator, target, &mut transaction).await?;
                sqlx::raw_sql(FORGET).execute(&mut *transaction).await?;
                Ok(transaction.commit().await?)
            }
        }
    }
}

async fn moved(
    migrator: &Migrator,
    target: Option<i64>,
    connection: &mut PgConnection,
) -> Result<(), StoreError> {
    match target {
        None => migrator.run_direct(None, connection, false).await,
        Some(target) => migrator.undo(connection, target).await,
    }
    .map_err(migration_failed)
}

fn migration_failed(error: sqlx::migrate::MigrateError) -> StoreError {
    match error {
        sqlx::migrate::MigrateError::Execute(error) => error.into(),
        other => StoreError::Internal(Box::new(other)),
    }
}
