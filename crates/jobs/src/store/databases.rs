//! Databases of one server, for restores: looked at, made, dropped, and put in each other's place. For the operator's command.

use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;

use super::Store;
use crate::error::StoreError;

/// Programs that are cut off come back at once; the door is closed before.
const SWAP_PATIENCE: Duration = Duration::from_secs(10);

/// What a database is like, without a look at what is in its tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseFacts {
    /// Its name.
    pub name: String,
    /// The server's major version.
    pub server_major: i32,
    /// Tables of ours and of others.
    pub tables: i64,
    /// Whether `opsctl db bootstrap` has made its roles on this server.
    pub has_roles: bool,
}

/// A name as SQL takes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Store {
    /// The database that this store is on.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn database_facts(&self) -> Result<DatabaseFacts, StoreError> {
        let facts = sqlx::query_as!(
            DatabaseFacts,
            r#"
            select
              current_database()::text as "name!",
              current_setting('server_version_num')::int / 10000 as "server_major!",
              (
                select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
                where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') and n.nspname not like 'pg\_%' and n.nspname <> 'information_schema'
                  and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
              ) as "tables!",
              exists (select from pg_roles where rolname = 'ops_runner') as "has_roles!"
            "#
        );
        Ok(facts.fetch_one(&self.pool).await?)
    }

    /// Makes an empty database on the same server.
    ///
    /// # Errors
    /// When the login may make none, or the name is taken.
    pub async fn create_database(&self, name: &str) -> Result<(), StoreError> {
        self.administer(format!(
            "create database {} template template0",
            quoted(name)
        ))
        .await
    }

    /// Drops a database of the same server, with all connections to it; that there is none is fine.
    ///
    /// # Errors
    /// When the login may not.
    pub async fn drop_database(&self, name: &str) -> Result<(), StoreError> {
        self.administer(format!(
            "drop database if exists {} with (force)",
            quoted(name)
        ))
        .await
    }

    /// Databases whose names begin so.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn databases(&self, beginning: &str) -> Result<Vec<String>, StoreError> {
        let names = sqlx::query_scalar!(
            r#"select datname::text as "name!" from pg_database where starts_with(datname, $1) order by 1"#,
            beginning,
        );
        Ok(names.fetch_all(&self.pool).await?)
    }

    /// Gives a database of the same server, on which this store is not, another name. Whoever is connected to it is cut off.
    ///
    /// # Errors
    /// When the login may not, or others hold on to it; it then has its name still.
    pub async fn rename_database(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let begun = Instant::now();
        let (old, new) = (quoted(from), quoted(to));
        self.administer(format!("alter database {old} with allow_connections false"))
            .await?;
        let renamed = loop {
            sqlx::query!(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1",
                from
            )
            .fetch_all(&self.pool)
            .await?;
            match self
                .administer(format!("alter database {old} rename to {new}"))
                .await
            {
                Err(_) if begun.elapsed() < SWAP_PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => break other,
            }
        };
        let name = if renamed.is_ok() { new } else { old };
        self.administer(format!("alter database {name} with allow_connections true"))
            .await?;
        renamed
    }

    async fn administer(&self, statement: String) -> Result<(), StoreError> {
        // Names cannot be bound; they are quoted.
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
