//! Commands: how many processes a runner starts, watches over and reaps a second, beside a bare loop that does no more, and
//! one that gives each a folder and pipes of its own as a job has them.

use std::fs;
use std::time::Duration;

use super::Run;
use super::drain::timed;
use crate::Result;
use crate::child;
use crate::cluster::Schema;
use crate::noop::NoopRunner;
use crate::report::{BASE, PRODUCT, Place, Unit};
use crate::seed;

const PROGRAM: &str = "/bin/true";
/// The loop with folders and pipes.
const IN_FOLDERS: &str = "in folders";
const DECLARED: &str = "[job_types.true]\ncommand = [\"/bin/true\"]\n";
const QUEUE: &str = "insert into ops_jobs (job_type, created_by) select 'true', 'bench' from generate_series(1, $1)";

/// Runs the workload.
///
/// # Errors
/// When anything of it fails.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    for round in 0..run.scale.rounds {
        let place = Place {
            workload: "spawn",
            round,
        };
        let times = run.scale.spawns;
        let bare = tokio::task::spawn_blocking(move || child::spawn_and_reap(PROGRAM, times));
        let taken = timed(async { bare.await? }).await?;
        let rate = times as f64 / taken.as_secs_f64();
        run.report
            .keep(place, "commands", BASE, rate, Unit::PerSecond);
        let folder = tempfile::tempdir()?;
        let path = folder.path().to_owned();
        let work = move || child::spawn_in_folders(PROGRAM, times, &path);
        let in_folders = tokio::task::spawn_blocking(work);
        let taken = timed(async { in_folders.await? }).await?;
        let rate = times as f64 / taken.as_secs_f64();
        run.report
            .keep(place, "commands", IN_FOLDERS, rate, Unit::PerSecond);
        let rate = product(run, times).await?;
        run.report
            .keep(place, "commands", PRODUCT, rate, Unit::PerSecond);
    }
    Ok(())
}

async fn product(run: &Run<'_>, times: u64) -> Result<f64> {
    let database = run.bench.database(Schema::Product).await?;
    sqlx::query(QUEUE)
        .bind(i64::try_from(times)?)
        .execute(&database.pool)
        .await?;
    database.settle().await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("runner.toml");
    fs::write(&file, DECLARED)?;
    let runner =
        NoopRunner::start(&database.url, &[("RUNNER_CONCURRENCY", "32")], Some(&file)).await?;
    let done = async {
        while seed::is_anything_left(&database.pool).await? {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Result::Ok(())
    };
    let rate = times as f64 / timed(done).await?.as_secs_f64();
    runner.stop().await?;
    let (succeeded, _) = seed::counts(&database.pool).await?;
    if succeeded != i64::try_from(times)? {
        return Err(format!("{succeeded} of {times} commands succeeded").into());
    }
    run.bench.remove(database).await?;
    Ok(rate)
}
