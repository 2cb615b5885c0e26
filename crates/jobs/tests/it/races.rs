//! Every order in which three who touch one job can come, each on a connection of its own: one after the other, and all at
//! once behind a lock on its row, queued in just that order. That somebody waits is asked of PostgreSQL, never guessed.

use std::time::Duration;

use jobs::{LeaseKey, Outcome, Status, Store, StoreError};
use serde_json::json;
use sqlx::PgPool;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::database::{Database, TestRunner, store_on_as};

/// What somebody does with a job whose first runner has lost its lease but does not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// The runner tells its result.
    Succeed,
    /// The runner renews its lease.
    Renew,
    /// Another one sweeps.
    Sweep,
    /// A person wants its end.
    Abort,
    /// Another runner takes it.
    Claim,
    /// A person wants it again.
    Retry,
}

const ACTS: [Act; 6] = [
    Act::Succeed,
    Act::Renew,
    Act::Sweep,
    Act::Abort,
    Act::Claim,
    Act::Retry,
];
/// How the connections of the three are told apart.
const ACTORS: [&str; 3] = ["actor 1", "actor 2", "actor 3"];

impl Act {
    /// Does it, and says whether it changed anything. A refusal is an answer; a database that does not answer is none.
    async fn done(self, store: Store, key: LeaseKey) -> bool {
        let id = key.job_id;
        let done = match self {
            Self::Succeed => {
                let offered = store.offer(key, "r1", Outcome::Succeeded(json!(1)));
                offered.await.map(|_| true)
            }
            Self::Renew => {
                let renewed = store.renew(&[key], Duration::ZERO).await;
                renewed.map(|held| !held.is_empty())
            }
            Self::Sweep => store
                .sweep("sweep:r2")
                .await
                .map(|swept| swept.recovered > 0),
            Self::Abort => store.abort(id, "key:test", None).await.map(|_| true),
            Self::Claim => {
                let runner = TestRunner {
                    // It outlives the test.
                    lease: Duration::from_secs(3600),
                    ..TestRunner::new("r2", &["a"])
                };
                store.claim_by_id(runner.request(), id).await.map(|_| true)
            }
            Self::Retry => store.retry(id, "key:test", None).await.map(|()| true),
        };
        match done {
            Ok(changed) => changed,
            Err(StoreError::Unavailable(error)) => panic!("{self:?}: {error}"),
            Err(StoreError::Internal(error)) => panic!("{self:?}: {error}"),
            Err(_) => false,
        }
    }
}

/// Every choice of three different ones, in every order.
fn orders() -> Vec<[Act; 3]> {
    let mut found = Vec::new();
    for first in ACTS {
        for second in ACTS {
            for third in ACTS {
                if first != second && second != third && first != third {
                    found.push([first, second, third]);
                }
            }
        }
    }
    found
}

struct Explorer {
    database: Database,
    actors: Vec<Store>,
}

impl Explorer {
    async fn new() -> Self {
        let database = Database::new().await;
        let actors = ACTORS.map(|name| store_on_as(&database.url, 1, name));
        Self {
            database,
            actors: actors.into(),
        }
    }

    /// A job that a runner runs whose lease is over.
    async fn lost(&self) -> LeaseKey {
        // What an earlier order left would be swept with it.
        let store = &self.database.store;
        store.sweep("sweep:r2").await.expect("a sweep");
        let id = self.database.record("a").await.id;
        let doomed = TestRunner {
            lease: Duration::ZERO,
            ..TestRunner::new("r1", &["a"])
        };
        doomed.take(&self.database, id).await.lease.key()
    }

    async fn one_after_the_other(&self, acts: [Act; 3]) {
        let key = self.lost().await;
        let mut changed = Vec::new();
        for (act, store) in acts.into_iter().zip(&self.actors) {
            changed.push(act.done(store.clone(), key).await);
        }
        self.check(acts, &changed, key).await;
    }

    async fn all_at_once(&self, acts: [Act; 3]) {
        let key = self.lost().await;
        let mut lock = self.database.psql.begin().await.expect("a transaction");
        sqlx::query("select from ops_jobs where id = $1 for update")
            .bind(key.job_id)
            .execute(&mut *lock)
            .await
            .expect("the lock");
        let mut acting = Vec::new();
        for (number, act) in acts.into_iter().enumerate() {
            let store = self.actors[number].clone();
            let mut task = JoinSet::new();
            task.spawn(async move { act.done(store, key).await });
            let changed = waits_or_ends(&self.database.psql, ACTORS[number], &mut task).await;
            acting.push((task, changed));
        }
        let waiting = acting.iter().filter(|(_, ended)| ended.is_none()).count();
        // A sweep and a claim pass over what is locked; the others wait for it.
        assert!(waiting >= 1, "nobody met in {acts:?}");
        lock.commit().await.expect("the lock goes");
        let mut changed = Vec::new();
        for (mut task, ended) in acting {
            changed.push(match ended {
                Some(changed) => changed,
                None => task.join_next().await.expect("a task").expect("an answer"),
            });
        }
        self.check(acts, &changed, key).await;
    }

    /// What each was told is what the events tell, and nothing that has ended changes any more.
    async fn check(&self, acts: [Act; 3], changed: &[bool], key: LeaseKey) {
        let story = format!("{acts:?} {changed:?}");
        let id = key.job_id;
        let did = |act| {
            let told = acts.iter().zip(changed);
            told.filter(|(who, changed)| **who == act && **changed)
                .count()
        };
        let kinds = self.database.kinds(id).await;
        let count = |kind: &str| kinds.iter().filter(|found| *found == kind).count();
        assert_eq!(count("succeeded"), did(Act::Succeed), "{story}: {kinds:?}");
        assert_eq!(
            count("lease_expired"),
            did(Act::Sweep),
            "{story}: {kinds:?}"
        );
        assert_eq!(count("running"), 1 + did(Act::Claim), "{story}: {kinds:?}");
        assert_eq!(count("replayed"), did(Act::Retry), "{story}: {kinds:?}");
        assert_eq!(
            count("abort_requested"),
            did(Act::Abort),
            "{story}: {kinds:?}"
        );
        let refused = acts.contains(&Act::Succeed) && did(Act::Succeed) == 0;
        assert_eq!(
            count("stale_result_refused"),
            usize::from(refused),
            "{story}: {kinds:?}"
        );
        let status = self.database.job(id).await.status;
        if did(Act::Succeed) == 1 {
            assert_eq!(status, Status::Succeeded, "{story}: {kinds:?}");
        }
        if status.is_terminal() {
            let before = self.row(id).await;
            for act in [Act::Sweep, Act::Renew, Act::Claim] {
                let changed = act.done(self.actors[0].clone(), key).await;
                assert!(!changed, "{story}, then {act:?}");
            }
            assert_eq!(self.row(id).await, before, "{story}: {kinds:?}");
        }
    }

    /// The row with the transaction that wrote it: any write shows.
    async fn row(&self, id: Uuid) -> String {
        sqlx::query_scalar("select j.xmin::text || j::text from ops_jobs j where id = $1")
            .bind(id)
            .fetch_one(&self.database.psql)
            .await
            .expect("the row")
    }

    async fn the_events_explain_every_row(&self) {
        let mut findings = Vec::new();
        let verified = self
            .database
            .store
            .verify(|finding| findings.push(finding))
            .await
            .expect("an answer");
        assert!(verified.jobs >= 120 && findings.is_empty(), "{findings:?}");
    }
}

/// Waits until this one waits for a lock, or has ended; then says what it did.
async fn waits_or_ends(psql: &PgPool, actor: &str, task: &mut JoinSet<bool>) -> Option<bool> {
    loop {
        if let Some(ended) = task.try_join_next() {
            return Some(ended.expect("an answer"));
        }
        let waits: bool = sqlx::query_scalar(
            "select exists (select from pg_stat_activity where datname = current_database() and application_name = $1 and cardinality(pg_blocking_pids(pid)) > 0)",
        )
        .bind(actor)
        .fetch_one(psql)
        .await
        .expect("an answer");
        if waits {
            return None;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn whoever_comes_after_another_is_told_the_truth() {
    let explorer = Explorer::new().await;
    for acts in orders() {
        explorer.one_after_the_other(acts).await;
    }
    explorer.the_events_explain_every_row().await;
}

#[tokio::test]
async fn whoever_waits_for_another_is_told_the_truth() {
    let explorer = Explorer::new().await;
    for acts in orders() {
        explorer.all_at_once(acts).await;
    }
    explorer.the_events_explain_every_row().await;
}
