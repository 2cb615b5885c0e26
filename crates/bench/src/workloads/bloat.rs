//! Bloat: a steady load while an old snapshot keeps every dead row and index entry alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use super::Run;
use super::drain::prepared;
use crate::Result;
use crate::cluster::{Database, Schema};
use crate::noop::NoopRunner;
use crate::report::{BASE, PRODUCT, Place, Unit};
use crate::{raw, seed};

/// So many jobs are kept queued ahead of the runner, and so many recorded at a time.
const AHEAD: u64 = 4_000;
const AT_ONCE: u64 = 2_000;

/// Runs the workload; once, because it takes long.
///
/// # Errors
/// When anything of it fails.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    let place = Place {
        workload: "bloat",
        round: 0,
    };
    for (schema, subject) in [(Schema::Product, PRODUCT), (Schema::Raw, BASE)] {
        let database = prepared(run.bench, schema, AHEAD, 0).await?;
        let rates = under_a_snapshot(&database, schema, run.scale.held, run.scale.window).await?;
        run.bench.remove(database).await?;
        let (first, last) = (rates.first(), rates.last());
        let (first, last) = (
            first.copied().unwrap_or_default(),
            last.copied().unwrap_or_default(),
        );
        run.report
            .keep(place, "first window", subject, first, Unit::PerSecond);
        run.report
            .keep(place, "last window", subject, last, Unit::PerSecond);
        run.report
            .keep(place, "last of first", subject, last / first, Unit::Ratio);
        let all: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        run.report.note(format!(
            "bloat, {subject}, window by window: {}",
            all.join(" ")
        ));
    }
    Ok(())
}

async fn under_a_snapshot(
    database: &Database,
    schema: Schema,
    held: Duration,
    window: Duration,
) -> Result<Vec<f64>> {
    let mut snapshot = PgConnection::connect(&database.url).await?;
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from pg_class")
        .execute(&mut snapshot)
        .await?;
    let mut working = JoinSet::new();
    let counted = Arc::new(AtomicU64::new(0));
    let runner = match schema {
        Schema::Raw => {
            let (pool, count) = (database.pool.clone(), Arc::clone(&counted));
            working.spawn(async move { raw::work(&pool, u64::MAX, count).await });
            None
        }
        Schema::Product | Schema::Empty => Some(NoopRunner::start(&database.url, &[], None).await?),
    };
    let done = || match &runner {
        Some(runner) => runner.seen.count.load(Ordering::Relaxed),
        None => counted.load(Ordering::Relaxed),
    };
    let (begun, mut recorded, mut rates) = (Instant::now(), AHEAD, Vec::new());
    let (mut since, mut before) = (Instant::now(), done());
    while begun.elapsed() < held {
        if recorded.saturating_sub(done()) < AHEAD {
            match schema {
                Schema::Raw => seed::queue_raw(&database.pool, AT_ONCE).await?,
                Schema::Product | Schema::Empty => seed::queue(&database.pool, AT_ONCE).await?,
            }
            recorded += AT_ONCE;
        } else {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if since.elapsed() >= window {
            let now = done();
            rates.push((now - before) as f64 / since.elapsed().as_secs_f64());
            (since, before) = (Instant::now(), now);
        }
    }
    if let Some(runner) = runner {
        runner.stop().await?;
    }
    working.shutdown().await;
    snapshot.close().await?;
    Ok(rates)
}
