//! What transitions count: nothing is lost, whoever races, and reading it looks through no jobs, however many there are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jobs::{NewJob, Outcome, Store};
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::database::{Database, TestRunner, name, store_on};

/// A sequence that is the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Whether the figures are those of a recount, all of one snapshot: depths by queue and status, kinds by job type.
async fn differences(psql: &PgPool) -> Vec<(String, String, i64, i64)> {
    sqlx::query_as(
        "with figures (name, part, jobs) as (
           select queue || '/' || job_type, status, jobs from ops_job_depths
           union all
           select job_type, kind, sum(jobs)::bigint from ops_job_totals group by 1, 2
           union all
           select job_type || ' by hour', kind, sum(jobs)::bigint from ops_job_counts group by 1, 2
         ),
         happened as (
           select j.job_type, e.kind, count(*) as jobs
           from ops_job_events e join ops_jobs j on j.id = e.job_id
           where e.data ? 'job_type' group by 1, 2
         ),
         recount (name, part, jobs) as (
           select queue || '/' || job_type, status, count(*)
           from ops_jobs where status in ('queued', 'running', 'waiting') group by 1, 2
           union all
           select job_type, kind, jobs from happened
           union all
           select job_type || ' by hour', kind, jobs from happened
         )
         select name, part, coalesce(f.jobs, 0), coalesce(r.jobs, 0)
         from figures f full join recount r using (name, part)
         where f.jobs is distinct from r.jobs",
    )
    .fetch_all(psql)
    .await
    .expect("an answer")
}

async fn do_something(store: &Store, psql: &PgPool, dice: &mut Dice, runner: &TestRunner) {
    let any = async |status: &str| -> Option<Uuid> {
        sqlx::query_scalar("select id from ops_jobs where status = $1 order by random() limit 1")
            .bind(status)
            .fetch_optional(psql)
            .await
            .expect("an answer")
    };
    match dice.roll(12) {
        0..3 => {
            let mut new = NewJob::new(name(["a", "b"][dice.roll(2) as usize]), json!({}));
            new.queue = name(["one", "two"][dice.roll(2) as usize]);
            new.max_attempts = Some(1 + i32::try_from(dice.roll(3)).expect("few"));
            let batch = vec![new; 1 + dice.roll(5) as usize];
            store
                .submit_batch(&batch, "key:test")
                .await
                .expect("recorded");
        }
        3..7 => {
            let lease = Duration::from_secs(dice.roll(2) * 30);
            let runner = TestRunner {
                lease,
                ..TestRunner::new(&runner.identity.id, &["a", "b"])
            };
            for leased in store.claim_due(runner.request(), 4).await.expect("a claim") {
                let outcome = match dice.roll(5) {
                    0 | 1 => Outcome::Succeeded(json!(1)),
                    2 => Outcome::Retry("again".to_owned()),
                    3 => Outcome::Failed("no".to_owned()),
                    _ => Outcome::Released,
                };
                // Another may have taken it away by now.
                let _ = store.finish(leased.lease, outcome).await;
            }
        }
        7 => {
            let _ = store.sweep("sweep:test").await.expect("a sweep");
        }
        8 => {
            for status in ["queued", "waiting", "running"] {
                if let Some(id) = any(status).await {
                    let _ = store.abort(id, "key:test", None).await;
                }
            }
        }
        9 => {
            if let Some(id) = any("failed").await {
                let _ = store.retry(id, "key:test", None).await;
            }
        }
        10 => {
            // A person, in a transaction that may be taken back.
            let mut typed = psql.begin().await.expect("a transaction");
            let moved = "with few as (select id from ops_jobs where status in ('queued', 'running') order by id limit 3 for update skip locked)
                 update ops_jobs j set queue = case queue when 'one' then 'two' else 'one' end,
                   status = case status when 'queued' then 'running' when 'running' then 'waiting' else status end
                 from few where j.id = few.id";
            sqlx::query(moved)
                .execute(&mut *typed)
                .await
                .expect("typed");
            if dice.roll(2) == 0 {
                typed.commit().await.expect("committed");
            } else {
                typed.rollback().await.expect("taken back");
            }
        }
        _ => store.keep_counts().await.expect("kept"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_figures_equal_a_recount_after_any_transitions_at_once() {
    let database = Database::new().await;
    // What was there before is in the depths from the start.
    database.record("a").await;
    database.store.count_jobs().await.expect("begun");
    let mut racing = JoinSet::new();
    for seed in 0..8_u64 {
        let (store, psql) = (database.store.clone(), database.psql.clone());
        racing.spawn(async move {
            let runner = TestRunner::new(&format!("r{seed}"), &["a", "b"]);
            let mut dice = Dice(seed * 7919 + 1);
            for _ in 0..60 {
                do_something(&store, &psql, &mut dice, &runner).await;
            }
        });
    }
    while let Some(done) = racing.join_next().await {
        done.expect("no panic");
    }
    // The one that was there before is in no count, and nowhere missing but there.
    let uncounted = |found: Vec<(String, String, i64, i64)>| {
        let mut found: Vec<_> = found
            .into_iter()
            .filter(|(name, part, figure, recount)| {
                !(name.starts_with('a') && part == "queued" && figure + 1 == *recount)
            })
            .collect();
        found.sort();
        found
    };
    assert_eq!(
        uncounted(differences(&database.psql).await),
        [],
        "before the last fold"
    );
    database.store.keep_counts().await.expect("kept");
    assert_eq!(uncounted(differences(&database.psql).await), [], "after it");
    let left: i64 = sqlx::query_scalar("select count(*) from ops_count_deltas")
        .fetch_one(&database.psql)
        .await
        .expect("a count");
    assert_eq!(left, 0, "everything is added up");
    let ends: i64 = sqlx::query_scalar("select count(distinct kind) from ops_job_totals")
        .fetch_one(&database.psql)
        .await
        .expect("a count");
    assert!(ends >= 9, "many kinds happened: {ends}");
}

#[tokio::test]
async fn nothing_is_written_unless_somebody_wants_it_and_counting_ends_by_itself() {
    let database = Database::new().await;
    let deltas = async || -> i64 {
        sqlx::query_scalar("select count(*) from ops_count_deltas")
            .fetch_one(&database.psql)
            .await
            .expect("a count")
    };
    let runner = TestRunner::new("r1", &["a"]);
    let id = database.record("a").await.id;
    runner.take(&database, id).await;
    assert_eq!(deltas().await, 0);
    assert_eq!(database.store.depths().await.expect("an answer"), []);

    database.store.count_jobs().await.expect("begun");
    database.store.count_jobs().await.expect("goes on");
    database.record("a").await;
    assert_eq!(deltas().await, 1);
    sqlx::query("update ops_counting set wanted_until = clock_timestamp()")
        .execute(&database.psql)
        .await
        .expect("nobody asked again");
    let missed = database.record("a").await.id;
    assert_eq!(deltas().await, 1);
    let window = database.store.window(24).await.expect("an answer");
    assert_eq!(window.counted_since, None);

    // Begun anew, the depths are right again, and what was counted before is not forgotten.
    database.store.keep_counts().await.expect("begun anew");
    let depths = database.store.depths().await.expect("an answer");
    let depths: BTreeMap<_, _> = depths
        .into_iter()
        .map(|depth| (depth.status, depth.jobs))
        .collect();
    assert_eq!(depths["queued"], 2);
    assert_eq!(depths["running"], 1);
    let window = database.store.window(24).await.expect("an answer");
    assert!(window.counted_since.is_some());
    assert_eq!((window.counts.len(), window.counts[0].jobs), (1, 1));

    sqlx::query("select ops_stop_counting()")
        .execute(&database.psql)
        .await
        .expect("stopped");
    runner.take(&database, missed).await;
    assert_eq!(deltas().await, 0);
}

#[tokio::test]
async fn a_due_job_that_nobody_takes_is_told_with_its_age() {
    let database = Database::new().await;
    database.store.count_jobs().await.expect("begun");
    let id = database.record("orphan").await.id;
    sqlx::query("update ops_jobs set run_at = clock_timestamp() - interval '1 hour' where id = $1")
        .bind(id)
        .execute(&database.psql)
        .await
        .expect("waits long");
    let mut later = NewJob::new(name("later"), json!({}));
    later.run_at = Some(time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(365 * 100));
    database.record_with(later).await;
    let depths = database.store.depths().await.expect("an answer");
    assert_eq!(depths.len(), 2);
    assert_eq!(depths[0].oldest_due, None, "{depths:?}");
    let due = depths[1].oldest_due.as_ref().expect("due");
    assert!(due.age_seconds >= 3600.0 && !due.is_served, "{due:?}");
    assert_eq!(due.work_type, "orphan");
    sqlx::query(
        "insert into ops_runners (id, boot_id, version, job_types, slots_total)
         values ('r1', gen_random_uuid(), '1', '{orphan}', 1)",
    )
    .execute(&database.psql)
    .await
    .expect("a runner");
    let depths = database.store.depths().await.expect("an answer");
    assert!(
        depths[1]
            .oldest_due
            .as_ref()
            .is_some_and(|due| due.is_served)
    );
}

/// Sequential scans of `ops_jobs`, and rows that were fetched of it, told once everybody else has left: by then PostgreSQL
/// knows of all that they did.
async fn reads(watcher: &PgPool) -> (i64, i64) {
    let begun = Instant::now();
    loop {
        let others: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()",
        )
        .fetch_one(watcher)
        .await
        .expect("a count");
        if others == 0 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "others stay");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sqlx::query_as(
        "select seq_scan, coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = 'ops_jobs'",
    )
    .fetch_one(watcher)
    .await
    .expect("statistics")
}

#[tokio::test]
async fn reading_the_figures_looks_through_no_jobs_however_many_there_are() {
    let database = Database::new().await;
    // A tenth of them not over; without the triggers, which would take minutes for so many.
    sqlx::raw_sql(
        "set session_replication_role = replica;
         insert into ops_jobs (job_type, queue, status, run_at, finished_at, attempt)
         select 't' || n % 5, 'q' || n % 3,
           case when n % 10 = 0 then 'queued' else 'succeeded' end,
           now() - n * interval '1 second',
           case when n % 10 <> 0 then now() end, 1
         from generate_series(1, 300000) n;
         reset session_replication_role",
    )
    .execute(&mut *database.psql.acquire().await.expect("a connection"))
    .await
    .expect("generated");
    sqlx::query("analyze")
        .execute(&database.psql)
        .await
        .expect("analyzed");
    database.store.count_jobs().await.expect("begun");
    database.store.close().await;
    database.psql.close().await;
    let watcher = PgPoolOptions::new().max_connections(1);
    let watcher = watcher.connect(&database.url).await.expect("a connection");
    let before = reads(&watcher).await;

    let reader = store_on(&database.url, 1);
    for _ in 0..3 {
        reader.keep_counts_in_passing().await.expect("kept");
        let depths = reader.depths().await.expect("an answer");
        assert_eq!(depths.iter().map(|depth| depth.jobs).sum::<i64>(), 30_000);
        assert!(depths.iter().all(|depth| depth.oldest_due.is_some()));
        reader.window(24).await.expect("an answer");
        reader.totals().await.expect("an answer");
        reader.durations(24).await.expect("an answer");
        reader.upkeep().await.expect("an answer");
    }
    reader.close().await;
    let after = reads(&watcher).await;
    assert_eq!(after.0, before.0, "no scan of ops_jobs");
    let fetched = after.1 - before.1;
    assert!((1..1000).contains(&fetched), "by index, and few: {fetched}");
}
