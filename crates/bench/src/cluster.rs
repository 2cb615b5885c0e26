//! The cluster that everything of a run is measured on, and a fresh database for each measurement.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use jobs::{Store, StoreOptions};
use local_postgres::{Cluster, Mode, Options, Place, testing};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::Result;

/// What a database holds when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// The product's.
    Product,
    /// The product's tables and indexes without one trigger: the same rows and events, written by raw SQL.
    Raw,
    /// Nothing: for the bare server and for peers, who bring their own.
    Empty,
}

impl Schema {
    fn template(self) -> &'static str {
        match self {
            Self::Product => "bench_product",
            Self::Raw => "bench_raw",
            Self::Empty => "template1",
        }
    }
}

/// A database that lasts as long as its measurement.
#[derive(Debug)]
pub struct Database {
    /// Its address.
    pub url: String,
    /// A superuser's connections.
    pub pool: PgPool,
    name: String,
}

/// A private server.
#[derive(Debug)]
pub struct Bench {
    cluster: Cluster,
    made: AtomicU32,
}

const WITHOUT_TRIGGERS: &str = "
do $$
declare t record;
begin
  for t in select tgname, tgrelid::regclass as relation from pg_trigger where not tgisinternal loop
    execute format('drop trigger %I on %s', t.tgname, t.relation);
  end loop;
end $$";

impl Bench {
    /// Starts the server and makes the templates. Its data are on disk, because what is measured is durable; `folder` keeps
    /// them between runs, else they are removed at the end.
    ///
    /// # Errors
    /// When there is no PostgreSQL, or no place for it.
    pub async fn start(mode: Mode, folder: Option<PathBuf>) -> Result<Self> {
        let options = Options {
            mode,
            place: folder.map_or(Place::Ephemeral, Place::At),
            ..testing::Settings::from_environment().options
        };
        let bench = Self {
            cluster: Cluster::start(options).await?,
            made: AtomicU32::new(0),
        };
        for schema in [Schema::Product, Schema::Raw] {
            bench.make_template(schema).await?;
        }
        Ok(bench)
    }

    async fn make_template(&self, schema: Schema) -> Result<()> {
        let name = schema.template();
        self.cluster.drop_database(name).await?;
        self.cluster.create_database(name).await?;
        let url = self.cluster.url(name);
        let store = Store::new(&StoreOptions::new(url.clone(), 1, "bench"))?;
        store.migrate().await?;
        store.close().await;
        if schema == Schema::Raw {
            let pool = connect(&url, 1).await?;
            sqlx::raw_sql(WITHOUT_TRIGGERS).execute(&pool).await?;
            pool.close().await;
        }
        Ok(())
    }

    /// A fresh database.
    ///
    /// # Errors
    /// When PostgreSQL does not make one.
    pub async fn database(&self, schema: Schema) -> Result<Database> {
        let name = format!("bench_{}", self.made.fetch_add(1, Ordering::Relaxed));
        self.cluster.drop_database(&name).await?;
        let admin = connect(&self.cluster.url("postgres"), 1).await?;
        let words = format!("create database {name} template {}", schema.template());
        sqlx::raw_sql(sqlx::AssertSqlSafe(words))
            .execute(&admin)
            .await?;
        admin.close().await;
        let url = self.cluster.url(&name);
        let pool = connect(&url, 24).await?;
        Ok(Database { url, pool, name })
    }

    /// Removes a database with whatever is connected to it.
    ///
    /// # Errors
    /// When PostgreSQL does not.
    pub async fn remove(&self, database: Database) -> Result<()> {
        database.pool.close().await;
        Ok(self.cluster.drop_database(&database.name).await?)
    }

    /// Stops the server.
    ///
    /// # Errors
    /// When it cannot be stopped.
    pub async fn stop(self) -> Result<()> {
        Ok(self.cluster.stop().await?)
    }
}

impl Database {
    /// Leaves nothing to do for later: statistics are fresh, and everything is on disk.
    ///
    /// # Errors
    /// When PostgreSQL refuses.
    pub async fn settle(&self) -> Result<()> {
        sqlx::raw_sql("vacuum analyze").execute(&self.pool).await?;
        sqlx::raw_sql("checkpoint").execute(&self.pool).await?;
        Ok(())
    }
}

async fn connect(url: &str, connections: u32) -> Result<PgPool> {
    Ok(PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(connections.min(4))
        .connect(url)
        .await?)
}
