//! Depth: the rate of the first jobs of a long queue, beside the rate of as many alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Run;
use super::drain::{prepared, timed};
use crate::Result;
use crate::cluster::{Database, Schema};
use crate::noop::NoopRunner;
use crate::raw;
use crate::report::{BASE, PRODUCT, Place, Unit};

/// Runs the workload.
///
/// # Errors
/// When anything of it fails.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    // The largest: claims run ahead of the handlers that are counted, and of few jobs that is much.
    let measured = run.scale.drains.last().copied().unwrap_or_default();
    for round in 0..run.scale.rounds {
        let place = Place {
            workload: "depth",
            round,
        };
        for (schema, subject) in [(Schema::Product, PRODUCT), (Schema::Raw, BASE)] {
            let mut rates = [0.0; 2];
            for (rate, behind) in rates.iter_mut().zip([0, run.scale.behind]) {
                let database = prepared(run.bench, schema, measured + behind, 0).await?;
                *rate = rate_of_first(&database, schema, measured).await?;
                run.bench.remove(database).await?;
            }
            let [alone, deep] = rates;
            run.report
                .keep(place, "alone", subject, alone, Unit::PerSecond);
            run.report
                .keep(place, "with many behind", subject, deep, Unit::PerSecond);
            run.report.keep(
                place,
                "with many behind, of alone",
                subject,
                deep / alone,
                Unit::Ratio,
            );
        }
    }
    Ok(())
}

/// How many handlers a second, until so many have run.
async fn rate_of_first(database: &Database, schema: Schema, jobs: u64) -> Result<f64> {
    if schema == Schema::Raw {
        let count = Arc::new(AtomicU64::new(0));
        let taken = timed(raw::work(&database.pool, jobs, Arc::clone(&count))).await?;
        return Ok(count.load(Ordering::Relaxed) as f64 / taken.as_secs_f64());
    }
    let runner = NoopRunner::start(&database.url, &[], None).await?;
    let reached = async {
        runner.seen.reaches(jobs).await;
        Ok(())
    };
    let taken = timed(reached).await?;
    runner.stop().await?;
    Ok(jobs as f64 / taken.as_secs_f64())
}
