//! What `opsctl doctor` asks of the database beside what others ask: whether connections are sessions, and where a text
//! stands. Changes nothing.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use super::Store;
use crate::error::StoreError;

impl Store {
    /// Whether a connection keeps one session, as without a pooler, or with one that lends whole sessions. Where the store
    /// was told of a pooler for transactions it is not looked at.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keeps_sessions(&self) -> Result<bool, StoreError> {
        let Some(options) = &self.direct else {
            return Ok(false);
        };
        let mut first = PgConnection::connect_with(options).await?;
        let mut second = PgConnection::connect_with(options).await?;
        let before = session_of(&mut first).await?;
        // A pooler has just been given that session back, and lends it to the next: then the first gets another one.
        let mut transaction = second.begin().await?;
        session_of(&mut transaction).await?;
        let after = session_of(&mut first).await?;
        transaction.rollback().await?;
        // Said goodbye or not, both are done with.
        let _ = first.close().await;
        let _ = second.close().await;
        Ok(before == after)
    }

    /// The tables in which any of these texts stands: in rows of these jobs, where a table has a job in each row, else in any.
    ///
    /// # Errors
    /// When the database does not answer, or not in time.
    pub async fn tables_that_hold(
        &self,
        texts: &[String],
        jobs: &[Uuid],
    ) -> Result<Vec<String>, StoreError> {
        let tables: Vec<(String, Option<String>)> = sqlx::query_as(
            r"
            select c.relname::text, (
              select a.attname::text from pg_attribute a
              where a.attrelid = c.oid and a.atttypid = 'uuid'::regtype and not a.attisdropped
                and (a.attname = 'job_id' or c.relname = 'ops_jobs' and a.attname = 'id')
              limit 1
            )
            from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where n.nspname = 'public' and c.relname like 'ops\_%' and c.relkind in ('r', 'p')
            order by 1
            ",
        )
        .fetch_all(&self.pool)
        .await?;
        let patterns: Vec<String> = texts.iter().map(|text| format!("%{text}%")).collect();
        let mut found = Vec::new();
        for (table, job) in tables {
            let of_jobs = job.map_or_else(
                || "$2::uuid[] is not null".to_owned(),
                |column| format!("t.{column} = any ($2)"),
            );
            // The name comes from the catalogue, and begins with ours.
            let sql = format!(
                "select exists (select from {table} t where {of_jobs} and to_jsonb(t)::text like any ($1))"
            );
            let holds: bool = sqlx::query_scalar(AssertSqlSafe(sql))
                .bind(&patterns)
                .bind(jobs)
                .fetch_one(&self.pool)
                .await?;
            if holds {
                found.push(table);
            }
        }
        Ok(found)
    }
}

async fn session_of(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(connection)
        .await
}
