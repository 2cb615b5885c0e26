//! One instant of the whole database, which others may look at too: what a backup holds, told by counts and fingerprints.
//! Changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Row as _};
use time::OffsetDateTime;

use super::Store;
use super::pool::Transaction;
use crate::error::StoreError;

/// A dump takes as long as it takes.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Values must have the same text here and in a copy on another server.
const BEGIN: &str = "
set transaction isolation level repeatable read, read only;
set local statement_timeout = 0;
set local idle_in_transaction_session_timeout = 0;
set local timezone = 'UTC';
set local datestyle = 'ISO, YMD';
set local intervalstyle = 'postgres';
set local bytea_output = 'hex';
set local extra_float_digits = 1;
set local search_path = public, pg_temp";

/// One of our tables, at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFigures {
    /// Its name.
    pub name: String,
    /// How many rows it has.
    pub rows: i64,
    /// The sum of its rows' hashes: the same for the same rows in any order.
    pub fingerprint: String,
}

/// An object of the object store that a whole file is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRecord {
    /// Its key.
    pub key: String,
    /// Its size.
    pub size: i64,
    /// SHA-256 of its bytes.
    pub sha256: Vec<u8>,
}

/// A snapshot, for as long as it is held.
#[derive(Debug)]
pub struct Snapshot {
    transaction: Transaction,
    /// Its name, by which others look at the same instant.
    pub id: String,
    /// The instant.
    pub at: OffsetDateTime,
    /// The newest migration in it.
    pub schema_version: i64,
    /// Whether the roles of `opsctl db bootstrap` have their rights in it.
    pub bootstrapped: bool,
    /// The server's major version.
    pub server_major: i32,
}

impl Store {
    /// Holds this instant until it is let go of. Needs a session of its own.
    ///
    /// # Errors
    /// When the database does not answer, or has none of our tables.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut transaction = self.pool.begin().await?;
        transaction.allow(LONGEST);
        sqlx::raw_sql(BEGIN).execute(&mut *transaction).await?;
        let row = sqlx::query!(
            r#"
            select
              pg_export_snapshot() as "id!",
              now() as "at!",
              current_setting('server_version_num')::int / 10000 as "server_major!",
              coalesce((
                select bool_and(has_table_privilege(r.rolname, 'ops_jobs', 'insert'))
                from pg_roles r where r.rolname = 'ops_runner'
              ), false) as "bootstrapped!"
            "#
        )
        .fetch_one(&mut *transaction)
        .await?;
        let schema_version = sqlx::query_scalar(
            "select coalesce(max(version), 0) from ops_schema_migrations where success",
        )
        .fetch_one(&mut *transaction)
        .await?;
        Ok(Snapshot {
            transaction,
            id: row.id,
            at: row.at,
            schema_version,
            bootstrapped: row.bootstrapped,
            server_major: row.server_major,
        })
    }
}

impl Snapshot {
    /// Counts and hashes every row of our tables.
    ///
    /// # Errors
    /// When the database does not answer, or a table cannot be read.
    pub async fn tables(&mut self) -> Result<Vec<TableFigures>, StoreError> {
        let names = sqlx::query!(
            r#"
            select c.relname::text as "name!", quote_ident(c.relname) as "quoted!"
            from pg_class c
            where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relname like 'ops\_%'
            order by c.relname
            "#
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        let mut tables = Vec::new();
        for name in names {
            let count = format!(
                "select count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text from public.{} t",
                name.quoted
            );
            let row = sqlx::query(AssertSqlSafe(count))
                .fetch_one(&mut *self.transaction)
                .await?;
            tables.push(TableFigures {
                name: name.name,
                rows: row.try_get(0)?,
                fingerprint: row.try_get(1)?,
            });
        }
        Ok(tables)
    }

    /// The objects that whole files are in.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn objects(&mut self) -> Result<Vec<ObjectRecord>, StoreError> {
        let objects = sqlx::query_as!(
            ObjectRecord,
            r#"
            select f.object as "key!", f.size as "size!", f.sha256 as "sha256!"
            from ops_files f
            where f.object is not null and f.sha256 is not null
            order by f.object
            "#
        );
        Ok(objects.fetch_all(&mut *self.transaction).await?)
    }

    /// Lets go of it.
    ///
    /// # Errors
    /// When the database does not answer; it is gone then too.
    pub async fn end(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }
}
