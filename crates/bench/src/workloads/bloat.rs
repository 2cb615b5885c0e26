//! Bloat: a steady load while an old snapshot keeps every dead row and index entry alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use super::Run;
use super::drain::{SUBJECTS, prepared, queue, turns};
use crate::Result;
use crate::cluster::{Database, Schema};
use crate::noop::NoopRunner;
use crate::peer::Peer;
use crate::raw;
use crate::report::{Place, Unit};

/// So many jobs are kept queued ahead of the runner, and so many recorded at a time.
const AHEAD: u64 = 10_000;
const AT_ONCE: u64 = 2_000;

/// Runs the workload.
///
/// # Errors
/// When anything of it fails.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    for round in 0..run.scale.rounds {
        let place = Place {
            workload: "bloat",
            round,
        };
        for (schema, subject) in turns(place).map(|which| SUBJECTS[which]) {
            let database = prepared(run.bench, schema, AHEAD, 0).await?;
            measure(run, place, subject, database, Worker::Ours(schema)).await?;
        }
        for peer in run.peers {
            let database = run.bench.database(Schema::Empty).await?;
            peer.set_up(&database).await?;
            peer.fill(&database, AHEAD).await?;
            database.settle().await?;
            measure(run, place, &peer.name, database, Worker::Peer(peer)).await?;
        }
    }
    Ok(())
}

/// Who works, and how jobs are recorded for it.
#[derive(Clone, Copy)]
enum Worker<'a> {
    Ours(Schema),
    Peer(&'a Peer),
}

impl Worker<'_> {
    async fn record(self, database: &Database, jobs: u64) -> Result<()> {
        match self {
            Self::Ours(schema) => queue(&database.pool, schema, jobs).await,
            Self::Peer(peer) => peer.fill(database, jobs).await,
        }
    }
}

async fn measure(
    run: &mut Run<'_>,
    place: Place<'_>,
    subject: &str,
    database: Database,
    worker: Worker<'_>,
) -> Result<()> {
    let rates = under_a_snapshot(&database, worker, run.scale.held, run.scale.window).await?;
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
    Ok(())
}

async fn under_a_snapshot(
    database: &Database,
    worker: Worker<'_>,
    held: Duration,
    window: Duration,
) -> Result<Vec<f64>> {
    let mut snapshot = PgConnection::connect(&database.url).await?;
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from pg_class")
        .execute(&mut snapshot)
        .await?;
    let mut working = JoinSet::new();
    let counted = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&counted);
    let runner = match worker {
        Worker::Ours(Schema::Raw) => {
            let pool = database.pool.clone();
            working.spawn(async move { raw::work(&pool, u64::MAX, count).await });
            None
        }
        Worker::Peer(peer) => {
            let mut work = peer.work(database, held * 2).await?;
            working.spawn(async move { work.count_into(&count).await });
            None
        }
        Worker::Ours(Schema::Product | Schema::Empty) => {
            Some(NoopRunner::start(&database.url, &[], None).await?)
        }
    };
    let done = || match &runner {
        Some(runner) => runner.seen.count.load(Ordering::Relaxed),
        None => counted.load(Ordering::Relaxed),
    };
    let (begun, mut recorded, mut rates) = (Instant::now(), AHEAD, Vec::new());
    let (mut since, mut before) = (Instant::now(), done());
    while begun.elapsed() < held {
        if recorded.saturating_sub(done()) < AHEAD {
            worker.record(database, AT_ONCE).await?;
            recorded += AT_ONCE;
        } else {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if let Some(ended) = working.try_join_next() {
            ended??;
            return Err("whoever works ended before its time".into());
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
