//! The product's own claims and finishes, sent as barely as raw SQL: no slots, no handlers, no tasks, no renewals. What is
//! between this and the base is what the database does for the guard, the fences and the leases; what is between the product
//! and this is the runner.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jobs::{
    ClaimRequest, Lease, LeasedJob, Outcome, RunnerIdentity, Store, StoreOptions, TypeTerms,
};
use serde_json::Value;
use sqlx::types::time::OffsetDateTime;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::Result;
use crate::cluster::Database;
use crate::noop::PROBE;
use crate::seed::NOOP;
use crate::workloads::PATIENCE;

/// So many jobs a claim, and at most so many a finish, as in [`crate::raw`].
const BATCH: usize = 500;
/// So many jobs at once in tasks, as many as the product's runner has slots here.
const SLOTS: usize = 2000;
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

/// The same, each job in a task that runs a handler in another and finishes by itself: the least of a runner whose handlers may
/// block or panic. It keeps no lease, knows no output, no deadline and no stop.
///
/// # Errors
/// When the database fails.
pub async fn work_in_tasks(url: &str, target: u64) -> Result<()> {
    let store = Store::new(&StoreOptions::new(url.to_owned(), 6, "bench"))?;
    let claimant = Claimant::new(store.clone(), &[NOOP])?;
    let (finisher, slots) = (Arc::new(store.clone()), Arc::new(Semaphore::new(SLOTS)));
    let (mut tasks, mut done) = (JoinSet::new(), 0);
    while done < target {
        let few = u32::try_from(BATCH)?;
        let mut free = Arc::clone(&slots).acquire_many_owned(few).await?;
        let at_work = SLOTS - BATCH - slots.available_permits();
        let claimed = claimant.claim(at_work, BATCH).await?;
        if claimed.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for leased in claimed {
            let slot = free.split(1).ok_or("more was claimed than asked for")?;
            tasks.spawn(run(Arc::clone(&finisher), leased, slot));
        }
        while let Some(ended) = tasks.try_join_next() {
            ended??;
            done += 1;
        }
    }
    store.close().await;
    Ok(())
}

async fn run(store: Arc<Store>, leased: LeasedJob, slot: OwnedSemaphorePermit) -> Result<()> {
    let mut handler = JoinSet::new();
    handler.spawn(async move { drop(leased.payload) });
    handler.join_next().await.ok_or("no handler")??;
    let finished = store.finish(leased.lease, Outcome::Succeeded(Value::Null));
    finished.await.map_err(|unfinished| unfinished.error)?;
    drop(slot);
    Ok(())
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
