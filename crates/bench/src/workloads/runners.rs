//! Runners: the last drain by several runners at once, beside the same by one, so that what each more of them gives is told.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::drain::{drained_by_product, prepared};
use super::{PATIENCE, Run};
use crate::Result;
use crate::cluster::{Database, Schema};
use crate::noop::NoopRunner;
use crate::report::{BASE, PRODUCT, Place, Unit};
use crate::seed;

/// Between two looks at the database.
const LOOK: Duration = Duration::from_millis(5);

/// Runs the workload for the last size; the base is one runner.
///
/// # Errors
/// When anything of it fails.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    let jobs = run.scale.drains.last().copied().unwrap_or_default();
    for round in 0..run.scale.rounds {
        let place = Place {
            workload: "runners",
            round,
        };
        let database = prepared(run.bench, Schema::Product, jobs, 0).await?;
        let alone = drained_by_product(&database, jobs).await?;
        run.bench.remove(database).await?;
        for count in [2, 4, 8] {
            let metric = format!("{jobs} jobs, {count} runners");
            let database = prepared(run.bench, Schema::Product, jobs, 0).await?;
            let taken = drained_by_several(&database, count).await?;
            run.bench.remove(database).await?;
            for (subject, taken) in [(PRODUCT, taken), (BASE, alone)] {
                let rate = jobs as f64 / taken.as_secs_f64();
                run.report
                    .keep(place, &metric, subject, rate, Unit::PerSecond);
            }
        }
    }
    Ok(())
}

/// How long so many runners take, from the start of the first until nothing is left.
async fn drained_by_several(database: &Database, count: usize) -> Result<Duration> {
    let begun = Instant::now();
    let mut runners = Vec::new();
    for number in 0..count {
        let name = format!("bench-{number}");
        runners.push(NoopRunner::start(&database.url, &[("RUNNER_ID", &name)], None).await?);
    }
    let drained = async {
        while seed::is_anything_left(&database.pool).await? {
            tokio::time::sleep(LOOK).await;
        }
        Result::Ok(begun.elapsed())
    };
    let taken = timeout(PATIENCE, drained).await??;
    for runner in runners {
        runner.stop().await?;
    }
    Ok(taken)
}
