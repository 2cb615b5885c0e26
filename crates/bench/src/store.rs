//! The product's own claims and finishes, sent as barely as raw SQL: no slots, no handlers, no tasks, no renewals. What is
//! between this and the base is what the database does for the guard, the fences and the leases; what is between the product
//! and this is the runner.

use std::time::Duration;

use futures_util::future::join_all;
use jobs::{ClaimRequest, Lease, Outcome, RunnerIdentity, Store, StoreOptions, TypeTerms};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Result;
use crate::seed::NOOP;

/// So many jobs a claim, and at most so many a finish, as in [`crate::raw`].
const BATCH: usize = 500;

/// Claims and finishes until `target` jobs are finished.
///
/// # Errors
/// When the database fails.
pub async fn work(url: &str, target: u64) -> Result<()> {
    let store = Store::new(&StoreOptions::new(url.to_owned(), 4, "bench"))?;
    let (give, take) = mpsc::channel(BATCH * 2);
    let mut claiming = JoinSet::new();
    claiming.spawn(claim(store.clone(), give));
    tokio::select! {
        finished = finish(&store, take, target) => finished?,
        Some(ended) = claiming.join_next() => ended??,
    }
    claiming.shutdown().await;
    store.close().await;
    Ok(())
}

async fn claim(store: Store, give: mpsc::Sender<Lease>) -> Result<()> {
    let runner = RunnerIdentity {
        id: "bench".to_owned(),
        boot_id: service::ids::uuid_v7(),
    };
    let types = [TypeTerms::new(NOOP.parse()?)];
    loop {
        let request = ClaimRequest {
            runner: &runner,
            types: &types,
            lease: Duration::from_secs(30),
            at_work: BATCH * 2 - give.capacity(),
            stages: false,
        };
        let claimed = store.claim_due(request, i64::try_from(BATCH)?).await?;
        if claimed.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for leased in claimed {
            give.send(leased.lease).await?;
        }
    }
}

async fn finish(store: &Store, mut take: mpsc::Receiver<Lease>, target: u64) -> Result<()> {
    let (mut count, mut group) = (0, Vec::new());
    while count < target {
        take.recv_many(&mut group, BATCH).await;
        count += group.len() as u64;
        let finishing = group
            .drain(..)
            .map(|lease| store.finish(lease, Outcome::Succeeded(Value::Null)));
        for finished in join_all(finishing).await {
            finished.map_err(|unfinished| unfinished.error)?;
        }
    }
    Ok(())
}
