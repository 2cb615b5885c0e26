//! Creates over HTTP: the product's control plane beside a bare server that inserts one row a request, beside one that writes
//! the product's rows and events by raw SQL, in one statement at a time with all that wait, and beside one that records
//! nothing, which is what HTTP and the load take of the machine.

use super::Run;
use crate::Result;
use crate::cluster::Schema;
use crate::load::{Loaded, load};
use crate::report::{BASE, PRODUCT, Place, Unit};
use crate::serve::{BARE_TABLE, Served, Service};
use crate::stats::percentile;

/// Where no runner listens: creates trigger nobody.
pub const NO_RUNNER: &str = "http://127.0.0.1:1";
/// The server that writes the same rows and events, in groups, and guards nothing.
const GROUPED: &str = "raw in groups";
/// The server that records nothing.
const NO_DATABASE: &str = "no database";
/// Jobs of one request in a batch.
const BATCH: usize = 500;

/// Runs the workload.
///
/// # Errors
/// When anything of it fails.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    for round in 0..run.scale.rounds {
        let place = Place {
            workload: "http",
            round,
        };
        for (service, schema, subject) in [
            (Service::ControlPlane, Schema::Product, PRODUCT),
            (Service::Bare, Schema::Empty, BASE),
            (Service::Grouped, Schema::Raw, GROUPED),
            (Service::Forgetful, Schema::Empty, NO_DATABASE),
        ] {
            let database = run.bench.database(schema).await?;
            if service == Service::Bare {
                sqlx::raw_sql(BARE_TABLE).execute(&database.pool).await?;
            }
            let served = Served::start(run.program, service, &database.url, NO_RUNNER).await?;
            let request = served.create(service);
            // Connections and plans are there before the clock runs.
            load(&request, 64, run.scale.load / 10).await?;
            for connections in [64, 1] {
                let loaded = load(&request, connections, run.scale.load).await?;
                keep(run, place, connections, subject, &loaded);
            }
            if service == Service::ControlPlane {
                let loaded = load(&served.create_batch(BATCH), 4, run.scale.load).await?;
                let rate = loaded.per_second * BATCH as f64;
                run.report.keep(
                    place,
                    "jobs in batches of 500, 4 connections",
                    subject,
                    rate,
                    Unit::PerSecond,
                );
            }
            served.process.kill().await?;
            run.bench.remove(database).await?;
        }
    }
    Ok(())
}

fn keep(run: &mut Run<'_>, place: Place<'_>, connections: usize, subject: &str, loaded: &Loaded) {
    let metric = format!("creates, {connections} connections");
    run.report
        .keep(place, &metric, subject, loaded.per_second, Unit::PerSecond);
    for (word, fraction) in [("p50", 0.5), ("p99", 0.99)] {
        let value = percentile(&loaded.milliseconds, fraction).unwrap_or_default();
        run.report.keep(
            place,
            &format!("{metric}, {word}"),
            subject,
            value,
            Unit::Milliseconds,
        );
    }
}
