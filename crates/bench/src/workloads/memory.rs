//! Memory: the most that each service ever had, at full load. There is nothing to compare it with.

use std::time::Duration;

use tokio::time::timeout;

use super::http::NO_RUNNER;
use super::{PATIENCE, Run, drain};
use crate::Result;
use crate::cluster::Schema;
use crate::load::load;
use crate::report::{PRODUCT, Place, Unit};
use crate::seed;
use crate::serve::{Served, Service};

/// Runs the workload.
///
/// # Errors
/// When anything of it fails.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    for round in 0..run.scale.rounds {
        let place = Place {
            workload: "memory",
            round,
        };
        of_control_plane(run, place).await?;
        of_runner(run, place).await?;
    }
    Ok(())
}

async fn of_control_plane(run: &mut Run<'_>, place: Place<'_>) -> Result<()> {
    let database = run.bench.database(Schema::Product).await?;
    let served =
        Served::start(run.program, Service::ControlPlane, &database.url, NO_RUNNER).await?;
    load(
        &served.create(Service::ControlPlane),
        64,
        run.scale.load * 4,
    )
    .await?;
    let most = served.process.peak_memory()?;
    run.report.keep(
        place,
        "control plane, creates by 64",
        PRODUCT,
        most,
        Unit::Megabytes,
    );
    served.process.kill().await?;
    run.bench.remove(database).await
}

async fn of_runner(run: &mut Run<'_>, place: Place<'_>) -> Result<()> {
    let jobs = run.scale.memory;
    let database = drain::prepared(run.bench, Schema::Product, jobs, 0).await?;
    let served = Served::start(run.program, Service::Runner, &database.url, "").await?;
    let done = async {
        while seed::is_anything_left(&database.pool).await? {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Result::Ok(())
    };
    timeout(PATIENCE, done).await??;
    let most = served.process.peak_memory()?;
    run.report.keep(
        place,
        &format!("runner, draining {jobs}"),
        PRODUCT,
        most,
        Unit::Megabytes,
    );
    served.process.kill().await?;
    run.bench.remove(database).await
}
