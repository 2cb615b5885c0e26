//! Peers: other queues beside the product, each an external command that speaks the line protocol of the README.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use sqlx::PgPool;
use tokio::time::timeout;

use crate::Result;
use crate::child::Process;
use crate::cluster::Database;

/// More jobs than there ever are.
const NO_END: u64 = 1 << 40;

/// A peer, as the file of peers describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// What it is called in the report.
    pub name: String,
    /// The command, before the protocol's own arguments.
    pub command: Vec<String>,
    /// Its settings.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// SQL that queues `{n}` jobs; else the command's `bulk` does.
    pub fill: Option<String>,
    /// SQL that puts `{n}` finished jobs there; a peer that keeps none has none.
    pub retain: Option<String>,
    /// SQL that says whether anything is left to do; else the peer's own word counts.
    pub left: Option<String>,
}

/// Reads the file of peers: a JSON list.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<Vec<Peer>> {
    let text = std::fs::read_to_string(path)?;
    Ok(serde_json::from_str(&text)?)
}

/// What a peer says of one of its own measurements.
#[derive(Debug, Deserialize)]
pub struct Said {
    /// Jobs a second.
    pub per_s: Option<f64>,
    /// Median latency.
    pub p50_ms: Option<f64>,
    /// And the latency of the slowest hundredth.
    pub p99_ms: Option<f64>,
}

impl Peer {
    fn start(&self, database: &Database, arguments: &[String]) -> Result<Process> {
        let argv: Vec<String> = self.command.iter().chain(arguments).cloned().collect();
        let mut environment: Vec<_> = self.environment.clone().into_iter().collect();
        environment.push(("DATABASE_URL".to_owned(), database.url.clone()));
        Process::start(&argv, &environment)
    }

    /// Makes its schema.
    ///
    /// # Errors
    /// When it does not say `OK`.
    pub async fn set_up(&self, database: &Database) -> Result<()> {
        self.start(database, &["setup".to_owned()])?
            .after("OK")
            .await?;
        Ok(())
    }

    /// Queues jobs.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn fill(&self, database: &Database, jobs: u64) -> Result<()> {
        match &self.fill {
            Some(sql) => run(&database.pool, sql, jobs).await,
            None => self
                .say(database, &["bulk", &jobs.to_string(), "1000"])
                .await
                .map(drop),
        }
    }

    /// Puts finished jobs there; `false` where it keeps none.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn retain(&self, database: &Database, jobs: u64) -> Result<bool> {
        let Some(sql) = &self.retain else {
            return Ok(false);
        };
        run(&database.pool, sql, jobs).await?;
        Ok(true)
    }

    /// Has it measure itself: `enq N CLIENTS`, `bulk N CHUNK`, or `lat N SECONDS`.
    ///
    /// # Errors
    /// When it says nothing.
    pub async fn say(&self, database: &Database, arguments: &[&str]) -> Result<Said> {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let mut process = self.start(database, &arguments)?;
        loop {
            let line = process.line().await?;
            let said = ["RATE ", "LAT "]
                .iter()
                .find_map(|word| line.strip_prefix(word));
            if let Some(said) = said {
                return Ok(serde_json::from_str(said)?);
            }
        }
    }

    /// Has it work for as long as it is asked to, whatever there is to do.
    ///
    /// # Errors
    /// When it does not begin.
    pub async fn work(&self, database: &Database, patience: Duration) -> Result<Work> {
        let seconds = patience.as_secs().to_string();
        let arguments = ["work".to_owned(), NO_END.to_string(), seconds];
        let mut process = self.start(database, &arguments)?;
        timeout(patience, process.after("START")).await??;
        Ok(Work(process))
    }

    /// Has it work until so many jobs are done, and gives how many a second until its database says so.
    ///
    /// # Errors
    /// When it does not come to an end.
    pub async fn drain(&self, database: &Database, jobs: u64, patience: Duration) -> Result<f64> {
        let seconds = patience.as_secs().to_string();
        let arguments = ["work".to_owned(), jobs.to_string(), seconds];
        let mut process = self.start(database, &arguments)?;
        let begun: u64 = stamp(&timeout(patience, process.after("START")).await??)?;
        let word = if self.left.is_none() && self.fill.is_none() {
            "ACKED"
        } else {
            "DONE"
        };
        let mut ended = stamp(&timeout(patience, process.after(word)).await??)?;
        if let Some(left) = &self.left {
            while sqlx::query_scalar(sqlx::AssertSqlSafe(left.clone()))
                .fetch_one(&database.pool)
                .await?
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            ended = monotonic();
        }
        process.kill().await?;
        Ok(jobs as f64 / (ended.saturating_sub(begun) as f64 / 1e9))
    }
}

/// A peer at work without an end.
#[derive(Debug)]
pub struct Work(Process);

impl Work {
    /// Keeps the number of handlers that have run, as the peer tells it, until the peer ends.
    ///
    /// # Errors
    /// When it ends, or says what is no number.
    pub async fn count_into(&mut self, count: &AtomicU64) -> Result<()> {
        loop {
            let line = self.0.line().await?;
            if let Some(said) = line.strip_prefix("C ") {
                let told = said.split_whitespace().nth(1);
                let told = told.ok_or("a count without a number")?;
                count.store(told.parse()?, Ordering::Relaxed);
            }
        }
    }
}

fn stamp(rest: &str) -> Result<u64> {
    let first = rest
        .split_whitespace()
        .next()
        .ok_or("a line without an instant")?;
    Ok(first.parse()?)
}

/// Nanoseconds of the clock that all processes share.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let whole = u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000;
    whole + u64::try_from(now.tv_nsec).unwrap_or_default()
}

async fn run(pool: &PgPool, sql: &str, jobs: u64) -> Result<()> {
    let sql = sql.replace("{n}", &jobs.to_string());
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(pool)
        .await?;
    Ok(())
}
