//! A database of its own for each test, with the schema in it, and the superuser's connection that a person in psql has.

use jobs::{Store, StoreOptions};
use local_postgres::testing::TestDatabase;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, Row};

/// A database that goes with this value.
#[derive(Debug)]
pub struct Database {
    /// Its address.
    pub url: String,
    /// What a person types into psql goes here.
    pub psql: PgPool,
    _database: TestDatabase,
}

impl Database {
    /// A database with the whole schema.
    pub async fn migrated() -> Self {
        let key = format!("jobs_{}", jobs::schema_fingerprint());
        Self::of(&key, async |url| migrate(&url).await).await
    }

    /// A database with nothing in it.
    pub async fn empty() -> Self {
        Self::of("empty", async |_| Ok(())).await
    }

    async fn of<Build>(key: &str, build: Build) -> Self
    where
        Build: AsyncFnOnce(String) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
    {
        let database = local_postgres::testing::database(key, build).await.expect("a test database");
        let psql = PgPoolOptions::new().max_connections(4).connect(&database.url).await.expect("a connection");
        Self { url: database.url.clone(), psql, _database: database }
    }

    /// How many rows a query counts.
    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.psql).await.expect("a count")
    }
}

/// Every row of every table of the schema, as text.
pub async fn rows(psql: &PgPool) -> String {
    let tables: Vec<String> = sqlx::query_scalar("select tablename::text from pg_tables where schemaname = 'public' order by 1")
        .fetch_all(psql)
        .await
        .expect("the tables");
    let mut text = String::new();
    for table in tables {
        let query = format!("select to_jsonb(t)::text from {table} t");
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(psql).await.expect("rows");
        for row in rows {
            text.push_str(&format!("{table}: {}\n", row.get::<String, _>(0)));
        }
    }
    text
}

/// Brings the schema into an empty database.
///
/// # Errors
/// When the database does not answer.
pub async fn migrate(url: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let store = Store::new(&StoreOptions::new(url.to_owned(), 1, "tests"))?;
    store.migrate().await?;
    store.close().await;
    Ok(())
}
