//! The product's own claims and finishes, sent as barely as raw SQL: no slots, no handlers, no tasks, no renewals. What is
//! between this and the base is what the database does for the guard, the fences and the leases; what is between the product
//! and this is the runner.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jobs::{
    ClaimRequest, Lease, LeasedJob, Outcome, RunnerIdentity, Store, StoreOptions, TypeTerms,
};
use serde_json::Value;
use sqlx::types::time::OffsetDateTime;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinSet;

use crate::Result;
use crate::cluster::Database;
use crate::noop::PROBE;
use crate::seed::NOOP;
use crate::workloads::PATIENCE;

/// So many jobs a claim, and at most so many a finish, as in [`crate::raw`].
const BATCH: usize = 500;
/// Longer than any run: nobody renews it.
const LEASE: Duration = PATIENCE;

/// Claims and finishes until `target` jobs are finished.
///
/// # Errors
/// When the database fails.
pub async fn work(url: &str, target: u64) -> Result<()> {
    work_on(url, &[NOOP], target, None).await
}

/// The same for jobs of these types, until it is dropped; tells when a [`PROBE`] begins.
///
/// # Errors
/// When the database fails.
pub async fn work_and_tell(
    url: &str,
    job_types: &[&str],
    begun: UnboundedSender<Instant>,
) -> Result<()> {
    work_on(url, job_types, u64::MAX, Some(begun)).await
}

async fn work_on(
    url: &str,
    job_types: &[&str],
    target: u64,
    begun: Option<UnboundedSender<Instant>>,
) -> Result<()> {
    let store = Store::new(&StoreOptions::new(url.to_owned(), 4, "bench"))?;
    let (give, take) = mpsc::channel(BATCH * 2);
    let mut claiming = JoinSet::new();
    let claimant = Claimant::new(store.clone(), job_types)?;
    claiming.spawn(claim(claimant, give, begun));
    tokio::select! {
        finished = finish(&store, take, target) => finished?,
        Some(ended) = claiming.join_next() => ended??,
    }
    claiming.shutdown().await;
    store.close().await;
    Ok(())
}

/// Seals what has ended until now.
///
/// # Errors
/// When the database does not answer.
pub async fn seal(database: &Database) -> Result<()> {
    let store = Store::new(&StoreOptions::new(database.url.clone(), 2, "bench"))?;
    let now: OffsetDateTime = sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(&database.pool)
        .await?;
    let is_behind = "select exists (select from ops_sweeps where name = 'seal' and reached < $1)";
    while sqlx::query_scalar(is_behind)
        .bind(now)
        .fetch_one(&database.pool)
        .await?
    {
        store
            .seal("sweep:bench", Duration::MAX, || Duration::ZERO)
            .await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    store.close().await;
    Ok(())
}

/// Who claims jobs of some types, and is no runner.
#[derive(Debug)]
pub struct Claimant {
    store: Store,
    runner: RunnerIdentity,
    types: Vec<TypeTerms>,
}

impl Claimant {
    /// One that has claimed nothing yet.
    ///
    /// # Errors
    /// When one of them is no job type.
    pub fn new(store: Store, job_types: &[&str]) -> Result<Self> {
        let types = job_types
            .iter()
            .map(|job_type| Ok(TypeTerms::new(job_type.parse()?)));
        let types = types.collect::<Result<_>>()?;
        Ok(Self {
            store,
            runner: RunnerIdentity {
                id: "bench".to_owned(),
                boot_id: service::ids::uuid_v7(),
            },
            types,
        })
    }

    /// Claims up to so many jobs, beside those that it has at work.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim(&self, at_work: usize, most: usize) -> Result<Vec<LeasedJob>> {
        let request = ClaimRequest {
            runner: &self.runner,
            types: &self.types,
            lease: LEASE,
            at_work,
            stages: false,
        };
        Ok(self.store.claim_due(request, i64::try_from(most)?).await?)
    }
}

async fn claim(
    claimant: Claimant,
    give: mpsc::Sender<Lease>,
    begun: Option<UnboundedSender<Instant>>,
) -> Result<()> {
    loop {
        let at_work = BATCH * 2 - give.capacity();
        let claimed = claimant.claim(at_work, BATCH).await?;
        if claimed.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for leased in claimed {
            if let Some(begun) = &begun
                && leased.job_type.as_str() == PROBE
            {
                // Whoever waits for it may have gone.
                let _ = begun.send(Instant::now());
            }
            give.send(leased.lease).await?;
        }
    }
}

async fn finish(store: &Store, mut take: mpsc::Receiver<Lease>, target: u64) -> Result<()> {
    let (mut count, mut group) = (0, Vec::new());
    while count < target {
        take.recv_many(&mut group, BATCH).await;
        count += group.len() as u64;
        let finishing = group
            .drain(..)
            .map(|lease| store.finish(lease, Outcome::Succeeded(Value::Null)));
        for finished in join_all(finishing).await {
            finished.map_err(|unfinished| unfinished.error)?;
        }
    }
    Ok(())
}
