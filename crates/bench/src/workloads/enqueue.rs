//! Enqueue: recording jobs, one by one, by 16 clients at once, and in bulk, by SQL and by the library.

use std::time::Instant;

use jobs::{NewJob, Store, StoreOptions};
use serde_json::json;
use sqlx::PgPool;
use tokio::task::JoinSet;

use super::Run;
use crate::Result;
use crate::cluster::Schema;
use crate::raw;
use crate::report::{BASE, PRODUCT, Place, Unit};
use crate::seed::NOOP;

/// The clients that record at once.
const MANY: u64 = 16;
/// Jobs of one statement in bulk.
const CHUNK: u64 = 1_000;

/// Runs the workload.
///
/// # Errors
/// When anything of it fails.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    for round in 0..run.scale.rounds {
        let place = Place {
            workload: "enqueue",
            round,
        };
        let (singles, bulk) = (run.scale.singles, run.scale.bulk);
        let product = run.bench.database(Schema::Product).await?;
        let base = run.bench.database(Schema::Raw).await?;
        for clients in [1, MANY] {
            let metric = format!("SQL, {clients} at once");
            let rate = singly(&product.pool, clients, singles, by_function).await?;
            run.report
                .keep(place, &metric, PRODUCT, rate, Unit::PerSecond);
            let rate = singly(&base.pool, clients, singles, by_raw).await?;
            run.report.keep(place, &metric, BASE, rate, Unit::PerSecond);
        }
        let metric = format!("SQL, {CHUNK} a statement");
        let rate = in_bulk(bulk, async |chunk| {
            crate::seed::queue(&product.pool, chunk).await
        })
        .await?;
        run.report
            .keep(place, &metric, PRODUCT, rate, Unit::PerSecond);
        let rate = in_bulk(bulk, async |chunk| {
            crate::seed::queue_raw(&base.pool, chunk).await
        })
        .await?;
        run.report.keep(place, &metric, BASE, rate, Unit::PerSecond);
        let store = Store::new(&StoreOptions::new(product.url.clone(), 4, "bench"))?;
        let rate = in_bulk(bulk, async |chunk| {
            let jobs = (0..chunk).map(|id| Ok(NewJob::new(NOOP.parse()?, json!({"id": id}))));
            let jobs: Vec<NewJob> = jobs.collect::<Result<_>>()?;
            store.submit_batch(&jobs, "bench").await?;
            Ok(())
        });
        let rate = rate.await?;
        run.report.keep(
            place,
            "library, 1000 a call",
            PRODUCT,
            rate,
            Unit::PerSecond,
        );
        store.close().await;
        run.bench.remove(product).await?;
        run.bench.remove(base).await?;
        peers(run, place).await?;
    }
    Ok(())
}

async fn peers(run: &mut Run<'_>, place: Place<'_>) -> Result<()> {
    for peer in run.peers {
        let database = run.bench.database(Schema::Empty).await?;
        peer.set_up(&database).await?;
        let (singles, bulk) = (run.scale.singles.to_string(), run.scale.bulk.to_string());
        for (metric, words) in [
            ("SQL, 1 at once", ["enq", &singles, "1"]),
            ("SQL, 16 at once", ["enq", &singles, "16"]),
            ("SQL, 1000 a statement", ["bulk", &bulk, "1000"]),
        ] {
            if let Some(rate) = peer.say(&database, &words).await?.per_s {
                run.report
                    .keep(place, metric, &peer.name, rate, Unit::PerSecond);
            }
        }
        run.bench.remove(database).await?;
    }
    Ok(())
}

async fn by_function(pool: PgPool, id: u64) -> std::result::Result<(), sqlx::Error> {
    sqlx::query("select ops_enqueue('noop', $1)")
        .bind(json!({"id": id}))
        .execute(&pool)
        .await
        .map(drop)
}

async fn by_raw(pool: PgPool, id: u64) -> std::result::Result<(), sqlx::Error> {
    raw::enqueue(&pool, &[json!({"id": id})]).await
}

async fn singly<Recorded>(
    pool: &PgPool,
    clients: u64,
    jobs: u64,
    record: impl Fn(PgPool, u64) -> Recorded + Copy + Send + 'static,
) -> Result<f64>
where
    Recorded: Future<Output = std::result::Result<(), sqlx::Error>> + Send,
{
    // Connections and plans are there before the clock runs.
    record(pool.clone(), 0).await?;
    let (begun, each, mut tasks) = (Instant::now(), jobs / clients, JoinSet::new());
    for _ in 0..clients {
        let pool = pool.clone();
        tasks.spawn(async move {
            for id in 0..each {
                record(pool.clone(), id).await?;
            }
            Ok::<_, sqlx::Error>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok((each * clients) as f64 / begun.elapsed().as_secs_f64())
}

async fn in_bulk(jobs: u64, record: impl AsyncFn(u64) -> Result<()>) -> Result<f64> {
    let (begun, mut left) = (Instant::now(), jobs);
    while left > 0 {
        let chunk = left.min(CHUNK);
        record(chunk).await?;
        left -= chunk;
    }
    Ok(jobs as f64 / begun.elapsed().as_secs_f64())
}
