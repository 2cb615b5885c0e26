//! The database goes away in every way that it can, and comes back.

use std::time::{Duration, Instant};

use fault_proxy::{Direction, Fault, Proxy, Reach, Target};
use jobs::{NewJob, Outcome, Store, StoreError, StoreOptions};
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinSet;

use crate::database::{Database, TestRunner, name};

/// Connections of the stores below.
const POOL: u32 = 5;
/// No caller waits longer: two seconds for a connection, a second for the statement, one for its way.
const BOUND: Duration = Duration::from_secs(5);
const HEALED: Duration = Duration::from_secs(10);

/// A database behind a proxy, and a store that knows only the proxy.
pub(crate) struct Behind {
    pub(crate) database: Database,
    pub(crate) proxy: Proxy,
    pub(crate) store: Store,
}

impl Behind {
    async fn new() -> Self {
        let database = Database::new().await;
        let server: PgConnectOptions = database.url.parse().expect("an address");
        let target = match server.get_socket() {
            Some(folder) => Target::Unix(folder.join(format!(".s.PGSQL.{}", server.get_port()))),
            None => {
                let host = (server.get_host(), server.get_port());
                let mut found = tokio::net::lookup_host(host).await.expect("a host");
                Target::Tcp(found.next().expect("an address"))
            }
        };
        let proxy = Proxy::start(target).await.expect("a proxy");
        let url = format!(
            "postgres://{}@{}/{}",
            server.get_username(),
            proxy.address(),
            database.name()
        );
        let options = StoreOptions {
            statement_timeout: Duration::from_secs(1),
            ..StoreOptions::new(url, POOL, "behind a proxy")
        };
        Self {
            store: Store::new(&options).expect("a store"),
            database,
            proxy,
        }
    }

    /// Many at once; gives how many had an answer, and fails if one waited too long or heard anything but "away".
    async fn ask(&self, many: usize) -> usize {
        let mut asked = JoinSet::new();
        for _ in 0..many {
            let store = self.store.clone();
            asked.spawn(async move {
                let begun = Instant::now();
                let answer = store.list(&jobs::JobFilter::default()).await;
                assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
                match answer {
                    Ok(_) => true,
                    Err(StoreError::Unavailable(_)) => false,
                    Err(other) => panic!("{other}"),
                }
            });
        }
        let answers = asked.join_all().await;
        answers.into_iter().filter(|answered| *answered).count()
    }

    async fn heals(&self) {
        let begun = Instant::now();
        while self.ask(20).await < 20 {
            assert!(begun.elapsed() < HEALED, "not healed");
        }
        assert!(begun.elapsed() < HEALED, "{:?}", begun.elapsed());
    }

    /// How many connections the server has from the store, once those that are dying are gone.
    async fn connections_are_at_most(&self, most: i64) {
        let begun = Instant::now();
        loop {
            let there: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'behind a proxy'",
            )
            .fetch_one(&self.database.psql)
            .await
            .expect("a count");
            if there <= most {
                return;
            }
            assert!(begun.elapsed() < HEALED, "{there} connections are there");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_die_without_a_word_hang_nobody_and_are_replaced_three_times_over() {
    let behind = Behind::new().await;
    for _ in 0..3 {
        behind.heals().await;
        behind
            .proxy
            .set(Reach::All, Direction::Both, Fault::BlackHole);
        assert_eq!(behind.ask(50).await, 0, "an answer out of a black hole");
        behind.proxy.pass();
        behind.heals().await;
        behind.connections_are_at_most(POOL.into()).await;
    }
    assert!(behind.proxy.counts().swallowed > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_only_the_established_connections_are_dead_new_ones_take_their_place() {
    let behind = Behind::new().await;
    behind.heals().await;
    behind
        .proxy
        .set(Reach::Established, Direction::Both, Fault::BlackHole);
    behind.heals().await;
    behind.proxy.pass();
    behind.connections_are_at_most(POOL.into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_do_not_wait_leave_no_connection_behind() {
    let behind = Behind::new().await;
    behind.heals().await;
    behind
        .proxy
        .set(Reach::Established, Direction::Down, Fault::BlackHole);
    let mut asked = JoinSet::new();
    for _ in 0..50 {
        let store = behind.store.clone();
        asked.spawn(async move {
            let _ = tokio::time::timeout(Duration::from_millis(50), store.ping()).await;
        });
    }
    asked.join_all().await;
    assert_eq!(behind.ask(20).await, 20, "the pool is whole again at once");
    behind.proxy.pass();
    behind.connections_are_at_most(POOL.into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_asked_twice_survives_resets_and_killed_backends_unseen() {
    let behind = Behind::new().await;
    let mut asking = JoinSet::new();
    for number in 0..8 {
        let store = behind.store.clone();
        asking.spawn(async move {
            for round in 0..30 {
                let mut new = NewJob::new(name("a"), json!({}));
                new.idempotency_key = Some(format!("{number} {round}"));
                let job = store.submit(new, "key:test").await.expect("recorded");
                store.get(job.into_job().id).await.expect("an answer");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }
    while !asking.is_empty() {
        behind.proxy.reset_established();
        tokio::time::sleep(Duration::from_millis(50)).await;
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'behind a proxy' and datname = current_database()",
        )
        .execute(&behind.database.psql)
        .await
        .expect("killed");
        tokio::time::sleep(Duration::from_millis(50)).await;
        while let Some(ended) = asking.try_join_next() {
            ended.expect("no error");
        }
    }
    let recorded: i64 = sqlx::query_scalar("select count(*) from ops_jobs")
        .fetch_one(&behind.database.psql)
        .await
        .expect("a count");
    assert_eq!(recorded, 8 * 30, "each once");
    assert!(behind.proxy.counts().reset > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finish_whose_answer_was_cut_off_is_found_recorded() {
    let behind = Behind::new().await;
    let runner = TestRunner::new("r", &["a"]);
    for bytes in [0, 1, 5, 20, 30] {
        let id = behind.database.record("a").await.id;
        let leased = runner.take(&behind.database, id).await;
        behind.store.ping().await.expect("a warm connection");
        behind
            .proxy
            .set(Reach::Established, Direction::Down, Fault::CutAfter(bytes));
        let finished = behind
            .store
            .finish(leased.lease, Outcome::Succeeded(json!(bytes)))
            .await;
        finished.expect("finished");
        let kinds = behind.database.kinds(id).await;
        assert_eq!(kinds, ["queued", "running", "succeeded"], "{bytes}");
        behind.proxy.pass();
    }
    assert_eq!(behind.proxy.counts().cut, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_victim_of_a_deadlock_is_asked_again() {
    let database = Database::new().await;
    let runner = TestRunner::new("r", &["a"]);
    let [first, second] = [database.record("a").await, database.record("a").await];
    let first = runner.take(&database, first.id).await.lease;
    let second = runner.take(&database, second.id).await.lease;
    let keys = [first.key(), second.key()];
    let mut person = database.psql.begin().await.expect("a transaction");
    // The person's side never looks for the deadlock, so that it is the store that gives way.
    sqlx::raw_sql("set local deadlock_timeout = '1min'")
        .execute(&mut *person)
        .await
        .expect("set");
    let touch = "update ops_jobs set progress = '{}' where id = $1";
    let renewing = {
        let store = database.store.clone();
        sqlx::query(touch)
            .bind(second.job_id())
            .execute(&mut *person)
            .await
            .expect("locked");
        tokio::time::timeout(Duration::from_secs(20), async move {
            store.renew(&keys, Duration::from_secs(30)).await
        })
    };
    let locking = async {
        wait_for_a_waiter(&database).await;
        sqlx::query(touch)
            .bind(first.job_id())
            .execute(&mut *person)
            .await
            .expect("locked after the store gave way");
        person.commit().await.expect("committed");
    };
    let (renewed, ()) = tokio::join!(renewing, locking);
    assert_eq!(renewed.expect("in time").expect("renewed").len(), 2);
    loop {
        // The server counts a little later.
        let deadlocks: i64 = sqlx::query_scalar(
            "select deadlocks from pg_stat_database where datname = current_database()",
        )
        .fetch_one(&database.psql)
        .await
        .expect("a count");
        if deadlocks > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn wait_for_a_waiter(database: &Database) {
    loop {
        let waiting: bool =
            sqlx::query_scalar("select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')")
                .fetch_one(&database.psql)
                .await
                .expect("an answer");
        if waiting {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_server_that_may_lose_what_it_acknowledged_is_named() {
    let cluster = local_postgres::testing::private_cluster(local_postgres::Mode::Durable)
        .await
        .expect("a cluster");
    cluster.create_database("safety").await.expect("a database");
    let store = crate::database::store_on(&cluster.url("safety"), 1);
    assert!(store.dangers().await.expect("an answer").is_empty());
    let folder = cluster.folder().join("data");
    let settings = "fsync = off\nfull_page_writes = off\nsynchronous_commit = off\n";
    std::fs::write(folder.join("postgresql.auto.conf"), settings).expect("written");
    std::fs::write(folder.join("standby.signal"), "").expect("written");
    let cluster = cluster.restart().await.expect("restarted");
    let dangers = store.dangers().await.expect("an answer");
    for word in [
        "standby",
        "fsync is off",
        "full_page_writes",
        "synchronous_commit",
    ] {
        assert!(
            dangers.iter().any(|danger| danger.contains(word)),
            "{word}: {dangers:?}"
        );
    }
    cluster.stop().await.expect("stopped");
}
