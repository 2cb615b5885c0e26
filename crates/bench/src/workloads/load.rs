//! Latency beside a load of half of what each subject drains in the same round: from the committed enqueue of a job to its
//! beginning.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jobs::{NewJob, Store, StoreOptions};
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::drain::{STATEMENTS, drained_by_product, prepared, queue, timed};
use super::latency::{PAUSE, by_library, keep_of};
use super::{PATIENCE, Run};
use crate::cluster::Schema;
use crate::noop::{NoopRunner, PROBE};
use crate::report::{BASE, PRODUCT, Place};
use crate::{Result, raw, store};

/// How often a load is fed.
const TICK: Duration = Duration::from_millis(20);
const METRIC: &str = "at half the drain rate";

/// Runs the workload.
///
/// # Errors
/// When anything of it fails.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    for round in 0..run.scale.rounds {
        let place = Place {
            workload: "load",
            round,
        };
        // By turns: whoever comes next finds the machine as the one before left it.
        for turn in 0..3 {
            match (round + turn) % 3 {
                0 => product(run, place).await?,
                1 => statements(run, place).await?,
                _ => base(run, place).await?,
            }
        }
    }
    Ok(())
}

/// Half of a rate, in jobs a second.
fn half(jobs: u64, taken: Duration) -> f64 {
    jobs as f64 / taken.as_secs_f64() / 2.0
}

fn jobs_of(run: &Run<'_>) -> u64 {
    run.scale.drains.first().copied().unwrap_or_default()
}

async fn product(run: &mut Run<'_>, place: Place<'_>) -> Result<()> {
    let jobs = jobs_of(run);
    let database = prepared(run.bench, Schema::Product, jobs, 0).await?;
    let half = half(jobs, drained_by_product(&database, jobs).await?);
    // What the drain has left is none of the load's.
    store::seal(&database).await?;
    let mut runner = NoopRunner::start(&database.url, &[], None).await?;
    let store = Store::new(&StoreOptions::new(database.url.clone(), 2, "bench"))?;
    let taken = beside(
        feed(database.pool.clone(), Schema::Product, half, None),
        by_library(&mut runner, &store, run.scale.probes),
    );
    let taken = taken.await?;
    store.close().await;
    runner.stop().await?;
    keep_of(run, place, PRODUCT, METRIC, &taken);
    run.bench.remove(database).await
}

/// The product's claims and finishes without its runner, and without seals.
async fn statements(run: &mut Run<'_>, place: Place<'_>) -> Result<()> {
    let jobs = jobs_of(run);
    let database = prepared(run.bench, Schema::Product, jobs, 0).await?;
    let half = half(jobs, timed(store::work(&database.url, jobs)).await?);
    let store = Store::new(&StoreOptions::new(database.url.clone(), 2, "bench"))?;
    let url = database.url.clone();
    let working =
        |tell| async move { store::work_and_tell(&url, &[crate::seed::NOOP, PROBE], tell).await };
    let enqueue = async |id| {
        let job = NewJob::new(PROBE.parse()?, json!({ "id": id }));
        store.submit(job, "bench").await?;
        Ok(())
    };
    let load = feed(database.pool.clone(), Schema::Product, half, None);
    let taken = probed(run, load, working, enqueue).await?;
    store.close().await;
    keep_of(run, place, STATEMENTS, METRIC, &taken);
    run.bench.remove(database).await
}

async fn base(run: &mut Run<'_>, place: Place<'_>) -> Result<()> {
    let jobs = jobs_of(run);
    let database = prepared(run.bench, Schema::Raw, jobs, 0).await?;
    let pool = database.pool.clone();
    let half = half(jobs, timed(raw::work(&pool, jobs, Arc::default())).await?);
    let done = Arc::new(AtomicU64::new(0));
    let of_task = (pool.clone(), Arc::clone(&done));
    let working = |tell| async move {
        let (pool, done) = of_task;
        raw::work_and_tell(&pool, u64::MAX, done, Some(tell)).await
    };
    let enqueue = async |id| Ok(raw::enqueue(&pool, &[json!({ raw::PROBE: id })]).await?);
    let load = feed(pool.clone(), Schema::Raw, half, Some(done));
    let taken = probed(run, load, working, enqueue).await?;
    keep_of(run, place, BASE, METRIC, &taken);
    run.bench.remove(database).await
}

/// Milliseconds from the end of each enqueue until whoever works tells of its beginning.
async fn probed<Working>(
    run: &Run<'_>,
    load: impl Future<Output = Result<()>> + Send + 'static,
    working: impl FnOnce(UnboundedSender<Instant>) -> Working,
    enqueue: impl AsyncFn(usize) -> Result<()>,
) -> Result<Vec<f64>>
where
    Working: Future<Output = Result<()>> + Send + 'static,
{
    let (tell, mut told): (_, UnboundedReceiver<Instant>) = mpsc::unbounded_channel();
    let mut busy = JoinSet::new();
    busy.spawn(working(tell));
    let probes = async {
        let mut taken = Vec::new();
        for id in 0..run.scale.probes {
            enqueue(id).await?;
            let committed = Instant::now();
            let begun = timeout(PATIENCE, told.recv()).await?;
            let begun = begun.ok_or("the worker has ended")?;
            taken.push(begun.saturating_duration_since(committed).as_secs_f64() * 1000.0);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(taken)
    };
    let taken = beside(load, probes).await?;
    busy.shutdown().await;
    Ok(taken)
}

/// What is measured beside a load: without the load it is nothing.
async fn beside<T>(
    load: impl Future<Output = Result<()>> + Send + 'static,
    measured: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut loading = JoinSet::new();
    loading.spawn(load);
    tokio::select! {
        measured = measured => measured,
        ended = loading.join_next() => {
            ended.transpose()?.transpose()?;
            Err("the load has ended".into())
        }
    }
}

/// Records so many jobs a second, and tells the product's runner of them. Who cannot keep up with what it is given beside the
/// giving, and says how much is done, is never a second of it behind.
async fn feed(
    pool: PgPool,
    schema: Schema,
    per_second: f64,
    done: Option<Arc<AtomicU64>>,
) -> Result<()> {
    let (begun, mut fed) = (Instant::now(), 0);
    loop {
        let mut due = (begun.elapsed().as_secs_f64() * per_second) as u64;
        if let Some(done) = &done {
            due = due.min(done.load(Ordering::Relaxed) + per_second as u64);
        }
        queue(&pool, schema, due.saturating_sub(fed)).await?;
        if schema == Schema::Product {
            sqlx::query("notify ops_jobs").execute(&pool).await?;
        }
        fed = fed.max(due);
        tokio::time::sleep(TICK).await;
    }
}
