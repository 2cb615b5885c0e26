//! A database of its own for each test, with the schema in it.

use std::time::Duration;

use jobs::{
    ClaimRequest, Job, LeasedJob, Name, NewJob, RunnerIdentity, Store, StoreOptions, TypeTerms,
};
use local_postgres::testing::TestDatabase;
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

/// A migrated database, a store on it, and a superuser's connection as a person in psql has it.
pub(crate) struct Database {
    pub(crate) store: Store,
    pub(crate) psql: PgPool,
    pub(crate) url: String,
    database: TestDatabase,
}

pub(crate) fn store_on(url: &str, connections: u32) -> Store {
    store_on_as(url, connections, "test")
}

/// A store whose connections bear this name.
pub(crate) fn store_on_as(url: &str, connections: u32, name: &'static str) -> Store {
    Store::new(&StoreOptions::new(url.to_owned(), connections, name))
        .expect("a test database's address")
}

impl Database {
    pub(crate) async fn new() -> Self {
        let database = local_postgres::testing::database(
            &format!("jobs_{}", jobs::schema_fingerprint()),
            async |url| {
                let store = store_on(&url, 1);
                store.migrate().await.expect("the migrations apply");
                store.close().await;
                Ok(())
            },
        )
        .await
        .expect("a test database");
        let psql = PgPoolOptions::new()
            .max_connections(8)
            .connect(&database.url)
            .await
            .expect("a connection");
        Self {
            store: store_on(&database.url, 16),
            psql,
            url: database.url.clone(),
            database,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.database.name
    }

    pub(crate) async fn record(&self, job_type: &str) -> Job {
        self.record_with(NewJob::new(name(job_type), json!({})))
            .await
    }

    pub(crate) async fn record_with(&self, new: NewJob) -> Job {
        self.store
            .submit(new, "key:test")
            .await
            .expect("a recorded job")
            .into_job()
    }

    pub(crate) async fn job(&self, id: Uuid) -> Job {
        self.store
            .get(id)
            .await
            .expect("an answer")
            .expect("the job")
    }

    /// The job's log as text.
    pub(crate) async fn log(&self, id: Uuid) -> String {
        let page = self
            .store
            .log_page(id, 0, i64::MAX)
            .await
            .expect("an answer");
        let pieces = page.expect("the job").pieces;
        pieces.into_iter().map(|piece| piece.body).collect()
    }

    /// The kinds of the job's events, after checking that they are numbered without gaps and in order of time.
    pub(crate) async fn kinds(&self, id: Uuid) -> Vec<String> {
        let events = self.store.events(id, 0, 1000).await.expect("an answer");
        for (index, event) in events.iter().enumerate() {
            assert_eq!(
                usize::try_from(event.seq).expect("positive"),
                index + 1,
                "numbered without gaps: {events:?}"
            );
        }
        assert!(
            events.is_sorted_by_key(|event| event.at),
            "in order of time: {events:?}"
        );
        events.into_iter().map(|event| event.kind).collect()
    }

    /// What a person types.
    pub(crate) async fn type_in(&self, sql: &'static str, id: Uuid) -> Result<u64, sqlx::Error> {
        sqlx::query(sql)
            .bind(id)
            .execute(&self.psql)
            .await
            .map(|done| done.rows_affected())
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// A runner that takes jobs of these types.
pub(crate) struct TestRunner {
    pub(crate) identity: RunnerIdentity,
    pub(crate) types: Vec<TypeTerms>,
    pub(crate) lease: Duration,
    pub(crate) at_work: usize,
}

impl TestRunner {
    pub(crate) fn new(id: &str, types: &[&str]) -> Self {
        Self {
            identity: RunnerIdentity {
                id: id.to_owned(),
                boot_id: Uuid::nil(),
            },
            types: types
                .iter()
                .map(|text| TypeTerms::new(name(text)))
                .collect(),
            lease: Duration::from_secs(30),
            at_work: 0,
        }
    }

    pub(crate) fn request(&self) -> ClaimRequest<'_> {
        ClaimRequest {
            runner: &self.identity,
            types: &self.types,
            lease: self.lease,
            at_work: self.at_work,
            stages: true,
        }
    }

    pub(crate) async fn take(&self, database: &Database, id: Uuid) -> LeasedJob {
        database
            .store
            .claim_by_id(self.request(), id)
            .await
            .expect("a lease")
    }
}
