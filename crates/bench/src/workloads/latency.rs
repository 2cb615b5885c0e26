//! Latency: from the committed enqueue, or from the call, to the first instruction of the handler.

use std::time::{Duration, Instant};

use jobs::{NewJob, Store, StoreOptions};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::timeout;

use super::{PATIENCE, Run};
use crate::Result;
use crate::cluster::{Database, Schema};
use crate::load::Client;
use crate::noop::{NoopRunner, PROBE};
use crate::report::{PRODUCT, Place, Unit};
use crate::serve::{Served, Service};
use crate::stats::percentile;
use crate::store::Claimant;

/// A job type that no runner takes.
const ALONE: &str = "alone";
/// Between two probes.
pub(super) const PAUSE: Duration = Duration::from_millis(10);
/// The longest that a dropped wake-up may cost here.
const POLL: &str = "1";

/// Runs the workload.
///
/// # Errors
/// When anything of it fails.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    for round in 0..run.scale.rounds {
        let place = Place {
            workload: "latency",
            round,
        };
        let database = run.bench.database(Schema::Product).await?;
        let probes = run.scale.probes;
        let mut runner = NoopRunner::start(
            &database.url,
            &[("RUNNER_POLL_INTERVAL_SECONDS", POLL)],
            None,
        )
        .await?;
        let store = Store::new(&StoreOptions::new(database.url.clone(), 4, "bench"))?;
        let taken = commits(&database.pool, probes).await?;
        keep(run, place, "idle, one commit alone", &taken);
        let (created, claimed) = creates_and_claims(&store, probes).await?;
        keep(run, place, "idle, one create alone", &created);
        keep(run, place, "idle, one claim alone", &claimed);
        let taken = by_library(&mut runner, &store, probes).await?;
        keep(run, place, "idle, library", &taken);
        grouped_and_not(run, place, &mut runner, &store).await?;
        let taken = by_sql(&mut runner, &database.pool, probes).await?;
        keep(run, place, "idle, SQL and notify", &taken);
        let taken = by_trigger(run, &mut runner, &database, probes).await?;
        keep(run, place, "idle, trigger_runner, from the call", &taken);
        let taken = unannounced(&mut runner, &database.pool, probes.div_ceil(50)).await?;
        keep(run, place, "idle, every wake-up dropped", &taken);
        store.close().await;
        runner.stop().await?;
        run.bench.remove(database).await?;
        peers(run, place).await?;
    }
    Ok(())
}

fn keep(run: &mut Run<'_>, place: Place<'_>, metric: &str, milliseconds: &[f64]) {
    keep_of(run, place, PRODUCT, metric, milliseconds);
}

pub(super) fn keep_of(
    run: &mut Run<'_>,
    place: Place<'_>,
    subject: &str,
    metric: &str,
    milliseconds: &[f64],
) {
    for (word, fraction) in [("p50", 0.5), ("p99", 0.99)] {
        let value = percentile(milliseconds, fraction).unwrap_or_default();
        run.report.keep(
            place,
            &format!("{metric}, {word}"),
            subject,
            value,
            Unit::Milliseconds,
        );
    }
}

/// From `since` to the next probe's beginning.
async fn until_begun(runner: &mut NoopRunner, since: Instant) -> Result<f64> {
    let begun = timeout(PATIENCE, runner.probes.recv())
        .await?
        .ok_or("the runner has ended")?;
    Ok(begun.saturating_duration_since(since).as_secs_f64() * 1000.0)
}

pub(super) async fn by_library(
    runner: &mut NoopRunner,
    store: &Store,
    probes: usize,
) -> Result<Vec<f64>> {
    let mut taken = Vec::new();
    for id in 0..probes {
        store
            .submit(NewJob::new(PROBE.parse()?, json!({"id": id})), "bench")
            .await?;
        taken.push(until_begun(runner, Instant::now()).await?);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(taken)
}

/// From the call to the handler, for enqueues that may share a statement with others and for those that do not, by turns. The
/// hint of either goes the same way.
async fn grouped_and_not(
    run: &mut Run<'_>,
    place: Place<'_>,
    runner: &mut NoopRunner,
    store: &Store,
) -> Result<()> {
    let mut taken = [Vec::new(), Vec::new()];
    for id in 0..2 * run.scale.probes {
        let job = NewJob::new(PROBE.parse()?, json!({"id": id}));
        // In the order 0 1 1 0, so that neither always comes after the other.
        let is_alone = id % 4 == 1 || id % 4 == 2;
        let called = Instant::now();
        if is_alone {
            store.submit_batch(&[job], "bench").await?;
        } else {
            store.submit(job, "bench").await?;
        }
        taken[usize::from(is_alone)].push(until_begun(runner, called).await?);
        tokio::time::sleep(PAUSE).await;
    }
    let [grouped, alone] = taken;
    keep(run, place, "idle, library, from the call", &grouped);
    keep(
        run,
        place,
        "idle, library, from the call, no groups",
        &alone,
    );
    let median = |taken: &[f64]| percentile(taken, 0.5).unwrap_or_default();
    run.report.keep(
        place,
        "idle, library, p50 with groups, of without",
        PRODUCT,
        median(&grouped) / median(&alone),
        Unit::Ratio,
    );
    Ok(())
}

async fn by_sql(runner: &mut NoopRunner, pool: &PgPool, probes: usize) -> Result<Vec<f64>> {
    let mut taken = Vec::new();
    for _ in 0..probes {
        enqueue(pool).await?;
        let committed = Instant::now();
        sqlx::query("notify ops_jobs").execute(pool).await?;
        taken.push(until_begun(runner, committed).await?);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(taken)
}

/// What the machine takes for a commit just now, of which every claim has one.
async fn commits(pool: &PgPool, probes: usize) -> Result<Vec<f64>> {
    sqlx::raw_sql("create table bench_commits (id int)")
        .execute(pool)
        .await?;
    let mut taken = Vec::new();
    for _ in 0..probes {
        let begun = Instant::now();
        sqlx::query("insert into bench_commits values (1)")
            .execute(pool)
            .await?;
        taken.push(begun.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(taken)
}

/// What the create of one job takes, and its claim, each with its commit: of a type that the runner leaves alone.
async fn creates_and_claims(store: &Store, probes: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let claimant = Claimant::new(store.clone(), &[ALONE])?;
    let (mut created, mut claimed) = (Vec::new(), Vec::new());
    for id in 0..probes {
        let job = NewJob::new(ALONE.parse()?, json!({"id": id}));
        let begun = Instant::now();
        store.submit_quietly(job, "bench").await?;
        created.push(begun.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(PAUSE).await;
        let begun = Instant::now();
        if claimant.claim(0, 1).await?.len() != 1 {
            return Err("a job that was there was not claimed".into());
        }
        claimed.push(begun.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(PAUSE).await;
    }
    Ok((created, claimed))
}

async fn enqueue(pool: &PgPool) -> Result<()> {
    sqlx::query("select ops_enqueue('probe')")
        .execute(pool)
        .await?;
    Ok(())
}

/// Nobody tells the runner: it finds the job when it looks.
async fn unannounced(runner: &mut NoopRunner, pool: &PgPool, probes: usize) -> Result<Vec<f64>> {
    let mut taken = Vec::new();
    for _ in 0..probes {
        enqueue(pool).await?;
        taken.push(until_begun(runner, Instant::now()).await?);
    }
    Ok(taken)
}

async fn by_trigger(
    run: &Run<'_>,
    runner: &mut NoopRunner,
    database: &Database,
    probes: usize,
) -> Result<Vec<f64>> {
    let served = Served::start(
        run.program,
        Service::ControlPlane,
        &database.url,
        runner.url(),
    )
    .await?;
    let mut client = Client::connect(&served.trigger()).await?;
    let mut taken = Vec::new();
    for _ in 0..probes {
        let called = Instant::now();
        client.send().await?;
        taken.push(until_begun(runner, called).await?);
        tokio::time::sleep(PAUSE).await;
    }
    served.process.kill().await?;
    Ok(taken)
}

async fn peers(run: &mut Run<'_>, place: Place<'_>) -> Result<()> {
    for peer in run.peers {
        let database = run.bench.database(Schema::Empty).await?;
        peer.set_up(&database).await?;
        let said = peer
            .say(&database, &["lat", &run.scale.probes.to_string(), "60"])
            .await?;
        for (word, value) in [("p50", said.p50_ms), ("p99", said.p99_ms)] {
            if let Some(value) = value {
                run.report.keep(
                    place,
                    &format!("idle, from the call, {word}"),
                    &peer.name,
                    value,
                    Unit::Milliseconds,
                );
            }
        }
        run.bench.remove(database).await?;
    }
    Ok(())
}
