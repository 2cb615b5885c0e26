//! Counts: the same drain with and without `FEATURE_METRICS`, so that what counting costs is told as a ratio of its own.

use super::Run;
use super::drain::{drained_by, prepared};
use crate::Result;
use crate::cluster::Schema;
use crate::report::{BASE, PRODUCT, Place, Unit};

/// Runs the workload for the first size; the base is the product that counts nothing.
///
/// # Errors
/// When anything of it fails.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    let jobs = run.scale.drains.first().copied().unwrap_or_default();
    let metric = format!("{jobs} jobs");
    for round in 0..run.scale.rounds {
        let place = Place {
            workload: "counts",
            round,
        };
        for turn in 0..2 {
            // Whoever goes first finds the machine as the round before left it: by turns.
            let (flag, subject) = if (turn + round).is_multiple_of(2) {
                ("1", PRODUCT)
            } else {
                ("0", BASE)
            };
            let database = prepared(run.bench, Schema::Product, jobs, 0).await?;
            let taken = drained_by(&database, jobs, &[("FEATURE_METRICS", flag)]).await?;
            run.bench.remove(database).await?;
            let rate = jobs as f64 / taken.as_secs_f64();
            run.report
                .keep(place, &metric, subject, rate, Unit::PerSecond);
        }
    }
    Ok(())
}
