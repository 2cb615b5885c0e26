//! Drain: one runner, everything queued beforehand, until the database says that all is done.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::time::timeout;

use super::{PATIENCE, Run};
use crate::Result;
use crate::cluster::{Bench, Database, Schema};
use crate::noop::NoopRunner;
use crate::raw;
use crate::report::{BASE, PRODUCT, Place, Unit};
use crate::{seed, store};

/// The product's claims and finishes without its runner.
pub(super) const STATEMENTS: &str = "statements alone";
/// The same with a task for each job, and one for its handler.
const TASKS: &str = "statements and tasks";

/// Runs the workload for each size.
///
/// # Errors
/// When anything of it fails.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    for round in 0..run.scale.rounds {
        let place = Place {
            workload: "drain",
            round,
        };
        for &jobs in &run.scale.drains {
            let metric = format!("{jobs} jobs");
            round_of(run, place, &metric, jobs).await?;
            for subject in [STATEMENTS, TASKS] {
                let database = prepared(run.bench, Schema::Product, jobs, 0).await?;
                let taken = if subject == STATEMENTS {
                    timed(store::work(&database.url, jobs)).await?
                } else {
                    timed(store::work_in_tasks(&database.url, jobs)).await?
                };
                let rate = jobs as f64 / taken.as_secs_f64();
                run.bench.remove(database).await?;
                run.report
                    .keep(place, &metric, subject, rate, Unit::PerSecond);
            }
        }
    }
    Ok(())
}

/// The same for the first size, among finished jobs, and alone. What has been drained stays there for the next round, so
/// that there are a few more finished ones in each.
///
/// # Errors
/// When anything of it fails.
pub async fn run_retained(run: &mut Run<'_>) -> Result<()> {
    let jobs = run.scale.drains.first().copied().unwrap_or_default();
    let retained = run.scale.retained;
    let (among, alone) = (format!("{jobs} jobs"), format!("{jobs} jobs, alone"));
    let filled = [
        prepared(run.bench, Schema::Product, 0, retained).await?,
        prepared(run.bench, Schema::Raw, 0, retained).await?,
    ];
    for round in 0..run.scale.rounds {
        let place = Place {
            workload: "retained",
            round,
        };
        let mut with = SUBJECTS.map(|(_, subject)| (subject, 0.0));
        for which in turns(place) {
            let ((schema, subject), database) = (SUBJECTS[which], &filled[which]);
            queue(&database.pool, schema, jobs).await?;
            database.settle().await?;
            let rate = rate(database, schema, jobs).await?;
            if schema == Schema::Product {
                // Else the next round would pay for it.
                store::seal(database).await?;
            }
            run.report
                .keep(place, &among, subject, rate, Unit::PerSecond);
            with[which].1 = rate;
        }
        peers(run, place, &among, jobs, retained).await?;
        let without = round_of(run, place, &alone, jobs).await?;
        for ((subject, with), (_, without)) in with.into_iter().zip(without) {
            let metric = format!("{among}, of alone");
            run.report
                .keep(place, &metric, subject, with / without, Unit::Ratio);
        }
    }
    for database in filled {
        run.bench.remove(database).await?;
    }
    Ok(())
}

/// Product and base.
pub(super) const SUBJECTS: [(Schema, &str); 2] = [(Schema::Product, PRODUCT), (Schema::Raw, BASE)];

/// Whoever goes first finds the machine as the round before left it: by turns.
pub(super) fn turns(place: Place<'_>) -> [usize; 2] {
    if place.round.is_multiple_of(2) {
        [0, 1]
    } else {
        [1, 0]
    }
}

/// Gives the rates of the product and of the base, in this order.
async fn round_of(
    run: &mut Run<'_>,
    place: Place<'_>,
    metric: &str,
    jobs: u64,
) -> Result<[(&'static str, f64); 2]> {
    let mut rates = SUBJECTS.map(|(_, subject)| (subject, 0.0));
    for which in turns(place) {
        let (schema, subject) = SUBJECTS[which];
        let database = prepared(run.bench, schema, jobs, 0).await?;
        let rate = rate(&database, schema, jobs).await?;
        run.bench.remove(database).await?;
        run.report
            .keep(place, metric, subject, rate, Unit::PerSecond);
        rates[which].1 = rate;
    }
    peers(run, place, metric, jobs, 0).await?;
    Ok(rates)
}

async fn peers(
    run: &mut Run<'_>,
    place: Place<'_>,
    metric: &str,
    jobs: u64,
    retained: u64,
) -> Result<()> {
    for peer in run.peers {
        let database = run.bench.database(Schema::Empty).await?;
        peer.set_up(&database).await?;
        if retained == 0 || peer.retain(&database, retained).await? {
            peer.fill(&database, jobs).await?;
            database.settle().await?;
            let rate = peer.drain(&database, jobs, PATIENCE).await?;
            run.report
                .keep(place, metric, &peer.name, rate, Unit::PerSecond);
        }
        run.bench.remove(database).await?;
    }
    Ok(())
}

/// A database with jobs queued, settled.
///
/// # Errors
/// When it cannot be made.
pub async fn prepared(bench: &Bench, schema: Schema, jobs: u64, retained: u64) -> Result<Database> {
    let database = bench.database(schema).await?;
    seed::retain(&database.pool, retained, schema == Schema::Product).await?;
    queue(&database.pool, schema, jobs).await?;
    database.settle().await?;
    Ok(database)
}

/// Queues jobs, each schema's own way.
pub(super) async fn queue(pool: &PgPool, schema: Schema, jobs: u64) -> Result<()> {
    match schema {
        Schema::Raw => seed::queue_raw(pool, jobs).await,
        Schema::Product | Schema::Empty => seed::queue(pool, jobs).await,
    }
}

async fn rate(database: &Database, schema: Schema, jobs: u64) -> Result<f64> {
    let seconds = match schema {
        Schema::Raw => timed(raw::work(&database.pool, jobs, Arc::new(AtomicU64::new(0)))).await?,
        Schema::Product | Schema::Empty => drained_by_product(database, jobs).await?,
    };
    Ok(jobs as f64 / seconds.as_secs_f64())
}

/// How long it takes.
///
/// # Errors
/// Its own, and when it does not come to an end.
pub async fn timed(work: impl Future<Output = Result<()>>) -> Result<Duration> {
    let begun = Instant::now();
    timeout(PATIENCE, work).await??;
    Ok(begun.elapsed())
}

/// How long a runner takes, from the moment that it serves until nothing is left in the database.
///
/// # Errors
/// When it does not come to an end.
pub async fn drained_by_product(database: &Database, jobs: u64) -> Result<Duration> {
    drained_by(database, jobs, &[]).await
}

/// The same by a runner with these settings.
///
/// # Errors
/// As [`drained_by_product`].
pub async fn drained_by(
    database: &Database,
    jobs: u64,
    settings: &[(&str, &str)],
) -> Result<Duration> {
    let runner = NoopRunner::start(&database.url, settings, None).await?;
    let begun = Instant::now();
    timeout(PATIENCE, runner.seen.reaches(jobs)).await?;
    while seed::is_anything_left(&database.pool).await? {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let taken = begun.elapsed();
    runner.stop().await?;
    Ok(taken)
}
