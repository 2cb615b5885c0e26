//! Every workload, so small that it says nothing of speed: what it counts is right, and it comes to an end.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use bench::cluster::{Bench, Schema};
use bench::report::{BASE, PRODUCT, Report};
use bench::scale::Scale;
use bench::workloads::drain::{drained_by_product, prepared};
use bench::workloads::{Run, Workload};
use bench::{raw, seed, store};
use local_postgres::Mode;

async fn report(workload: Workload) -> Report {
    let bench = Bench::start(Mode::Test, None).await.expect("a cluster");
    let mut report = Report::default();
    let scale = Scale::tiny();
    let mut run = Run {
        bench: &bench,
        scale: &scale,
        peers: &[],
        program: Some(env!("CARGO_BIN_EXE_bench")),
        report: &mut report,
    };
    workload
        .run(&mut run)
        .await
        .unwrap_or_else(|error| panic!("{workload:?}: {error}"));
    bench.stop().await.expect("stopped");
    report
}

fn both(report: &Report, workload: &str, metric: &str) {
    for subject in [PRODUCT, BASE] {
        let values = report.values(workload, metric, subject);
        assert_eq!(values.len(), 1, "{workload}, {metric}, {subject}");
        assert!(values[0].is_finite() && values[0] >= 0.0, "{values:?}");
    }
}

#[tokio::test]
async fn the_product_and_raw_sql_write_the_same_rows_and_events() {
    let bench = Bench::start(Mode::Test, None).await.expect("a cluster");
    let product = prepared(&bench, Schema::Product, 50, 10)
        .await
        .expect("a database");
    drained_by_product(&product, 50).await.expect("drained");
    let base = prepared(&bench, Schema::Raw, 50, 10)
        .await
        .expect("a database");
    raw::work(&base.pool, 50, std::sync::Arc::default())
        .await
        .expect("worked");
    let statements = prepared(&bench, Schema::Product, 50, 10)
        .await
        .expect("a database");
    store::work(&statements.url, 50).await.expect("worked");
    let tasks = prepared(&bench, Schema::Product, 50, 10)
        .await
        .expect("a database");
    store::work_in_tasks(&tasks.url, 50).await.expect("worked");
    for database in [product, base, statements, tasks] {
        let counts = seed::counts(&database.pool).await.expect("counts");
        assert_eq!(counts, (60, 180), "60 jobs with three events each");
        assert!(
            !seed::is_anything_left(&database.pool)
                .await
                .expect("an answer")
        );
        bench.remove(database).await.expect("removed");
    }
    bench.stop().await.expect("stopped");
}

#[tokio::test]
async fn enqueue() {
    let report = report(Workload::Enqueue).await;
    for metric in ["SQL, 1 at once", "SQL, 16 at once", "SQL, 1000 a statement"] {
        both(&report, "enqueue", metric);
    }
}

#[tokio::test]
async fn runners() {
    let report = report(Workload::Runners).await;
    for count in [2, 4, 8] {
        both(&report, "runners", &format!("200 jobs, {count} runners"));
    }
}

#[tokio::test]
async fn drain() {
    both(&report(Workload::Drain).await, "drain", "200 jobs");
}

#[tokio::test]
async fn counts_are_measured_beside_none() {
    both(&report(Workload::Counts).await, "counts", "200 jobs");
}

#[tokio::test]
async fn retained() {
    let report = report(Workload::Retained).await;
    for metric in ["200 jobs", "200 jobs, alone", "200 jobs, of alone"] {
        both(&report, "retained", metric);
    }
}

#[tokio::test]
async fn depth() {
    both(
        &report(Workload::Depth).await,
        "depth",
        "with many behind, of alone",
    );
}

#[tokio::test]
async fn bloat() {
    both(&report(Workload::Bloat).await, "bloat", "last window");
}

#[tokio::test]
async fn http() {
    let report = report(Workload::Http).await;
    both(&report, "http", "creates, 64 connections");
    both(&report, "http", "creates, 1 connections, p99");
    for ceiling in ["raw in groups", "no database"] {
        let values = report.values("http", "creates, 64 connections", ceiling);
        assert_eq!(values.len(), 1, "{ceiling}");
    }
}

#[tokio::test]
async fn latency() {
    let report = report(Workload::Latency).await;
    for metric in [
        "idle, one commit alone, p50",
        "idle, one create alone, p50",
        "idle, one claim alone, p50",
        "idle, library, p50",
        "idle, library, p50 with groups, of without",
        "idle, SQL and notify, p50",
        "idle, trigger_runner, from the call, p50",
        "idle, every wake-up dropped, p50",
    ] {
        assert_eq!(
            report.values("latency", metric, PRODUCT).len(),
            1,
            "{metric}"
        );
    }
}

#[tokio::test]
async fn load() {
    let report = report(Workload::Load).await;
    let metric = "at half the drain rate, p99";
    both(&report, "load", metric);
    assert_eq!(report.values("load", metric, "statements alone").len(), 1);
}

#[tokio::test]
async fn spawn() {
    let report = report(Workload::Spawn).await;
    both(&report, "spawn", "commands");
    assert_eq!(report.values("spawn", "commands", "in folders").len(), 1);
}

#[tokio::test]
async fn memory() {
    let report = report(Workload::Memory).await;
    for metric in ["control plane, creates by 64", "runner, draining 100"] {
        let values = report.values("memory", metric, PRODUCT);
        assert!(
            values.iter().all(|megabytes| *megabytes > 1.0) && values.len() == 1,
            "{metric}"
        );
    }
}
