//! The database goes away in every way that it can, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fault_proxy::{Direction, Fault, Proxy, Reach, Target};
use jobs::{NewJob, Outcome, ProgressKind, Store, StoreError, StoreOptions};
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
    let answered = Arc::new(AtomicUsize::new(0));
    let mut asking = JoinSet::new();
    for number in 0..8 {
        let (store, answered) = (behind.store.clone(), Arc::clone(&answered));
        asking.spawn(async move {
            for round in 0..30 {
                let mut new = NewJob::new(name("a"), json!({}));
                new.idempotency_key = Some(format!("{number} {round}"));
                let job = store.submit(new, "key:test").await.expect("recorded");
                store.get(job.into_job().id).await.expect("an answer");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // A few answers lie between two faults, however slow the machine is: nobody's patience is at stake here.
    let some_answers = async || {
        let enough = (answered.load(Ordering::Relaxed) + 8).min(8 * 30);
        while answered.load(Ordering::Relaxed) < enough {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    while !asking.is_empty() {
        behind.proxy.reset_established();
        some_answers().await;
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'behind a proxy' and datname = current_database()",
        )
        .execute(&behind.database.psql)
        .await
        .expect("killed");
        some_answers().await;
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

/// Makes the next event that is written fail, with everything beside it; what is asked again then succeeds.
async fn fail_once(database: &Database) {
    sqlx::raw_sql("select setval('failures', 1, false)")
        .execute(&database.psql)
        .await
        .expect("set");
}

#[tokio::test]
async fn what_postgres_took_back_is_asked_again() {
    let database = Database::new().await;
    sqlx::raw_sql(
        "create sequence failures start 2;
         select nextval('failures');
         create function fail_once() returns trigger language plpgsql as $$
         begin
           if nextval('failures') = 1 then
             raise serialization_failure;
           end if;
           return new;
         end $$;
         create trigger fail_once before insert on ops_job_events for each row execute function fail_once();",
    )
    .execute(&database.psql)
    .await
    .expect("a trigger");
    let (store, runner) = (&database.store, TestRunner::new("r", &["a"]));
    let job = database.record("a").await;

    fail_once(&database).await;
    let note = json!({ "why": "a test" });
    store
        .note(job.id, "key:test", "trigger_sent", &note)
        .await
        .expect("noted");
    fail_once(&database).await;
    let leased = runner.take(&database, job.id).await;
    fail_once(&database).await;
    store
        .report(
            leased.lease.key(),
            vec![(ProgressKind::Progress, json!({}))],
        )
        .await
        .expect("reported");
    fail_once(&database).await;
    store
        .abort(job.id, "key:test", None)
        .await
        .expect("asked for");
    let ended = store.finish(leased.lease, Outcome::Aborted).await;
    ended.expect("ended");
    fail_once(&database).await;
    store
        .retry(job.id, "key:test", None)
        .await
        .expect("queued again");
    fail_once(&database).await;
    assert!(
        store
            .refuse(job.id, "key:test", "not here")
            .await
            .expect("refused")
    );
    let kinds = store.events(job.id, 0, 100).await.expect("events");
    let kinds: Vec<&str> = kinds.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "queued",
            "trigger_sent",
            "running",
            "progress",
            "abort_requested",
            "aborted",
            "replayed",
            "failed"
        ]
    );
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
