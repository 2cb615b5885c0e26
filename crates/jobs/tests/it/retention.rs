//! Retention: what ended long ago goes whole, a batch at a time, and nobody else takes anything away.

use std::time::Duration;

use jobs::{
    Decision, DecisionRequest, Expired, GateTerms, Keep, NewFile, NewJob, NewStage, Outcome, ROLES,
    Removed, Status, StoreError, Sum,
};
use serde_json::json;
use uuid::Uuid;

use crate::database::{Database, TestRunner, name, store_on};

const DAY: Duration = Duration::from_secs(86_400);
const BUDGET: Duration = Duration::from_secs(30);

impl Database {
    /// Ends a job of this type so.
    async fn ended(&self, job_type: &str, status: Status) -> Uuid {
        let id = self.record(job_type).await.id;
        let outcome = match status {
            Status::Succeeded => Outcome::Succeeded(json!(1)),
            Status::Failed => Outcome::Failed("no".to_owned()),
            Status::Aborted => Outcome::Aborted,
            Status::Queued | Status::Running | Status::Waiting => return id,
        };
        if status == Status::Aborted {
            self.store.abort(id, "key:k", None).await.expect("aborted");
            return id;
        }
        let runner = TestRunner::new("r1", &[job_type]);
        let leased = runner.take(self, id).await;
        self.store
            .finish(leased.lease, outcome)
            .await
            .expect("recorded");
        id
    }

    /// As if all that there is had happened so many days ago.
    async fn age(&self, days: i32) {
        let mut transaction = self.psql.begin().await.expect("a transaction");
        sqlx::query("set local session_replication_role = replica")
            .execute(&mut *transaction)
            .await
            .expect("no triggers");
        for sql in [
            "update ops_jobs set created_at = created_at - make_interval(days => $1), started_at = started_at - make_interval(days => $1),
               finished_at = finished_at - make_interval(days => $1), dead_lettered_at = dead_lettered_at - make_interval(days => $1)",
            "update ops_job_events set at = at - make_interval(days => $1)",
        ] {
            sqlx::query(sql).bind(days).execute(&mut *transaction).await.expect("aged");
        }
        transaction.commit().await.expect("committed");
    }

    /// All that has ended is due, seals or none.
    async fn keep_nothing(&self) {
        for sql in [
            "update ops_retention set keep = '0'",
            "update ops_sweeps set reached = now() + interval '1 hour' where name in ('seal', 'seal_again')",
        ] {
            sqlx::query(sql).execute(&self.psql).await.expect("set");
        }
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql)
            .fetch_one(&self.psql)
            .await
            .expect("a count")
    }

    async fn apply(&self) -> Removed {
        self.store
            .apply_retention("sweep:r1", BUDGET)
            .await
            .expect("removed")
    }

    async fn is_there(&self, id: Uuid) -> bool {
        self.store.get(id).await.expect("an answer").is_some()
    }

    async fn verified(&self) -> (u64, u64) {
        let mut found = Vec::new();
        let verified = self
            .store
            .verify(|finding| found.push(finding.to_string()))
            .await
            .expect("an answer");
        assert_eq!(found, Vec::<String>::new());
        (verified.jobs, verified.seals)
    }
}

#[tokio::test]
async fn each_status_is_kept_for_its_own_time_and_what_has_not_ended_for_ever() {
    let database = Database::new().await;
    let mut ids = Vec::new();
    for status in [
        Status::Succeeded,
        Status::Failed,
        Status::Aborted,
        Status::Queued,
    ] {
        ids.push(database.ended("a", status).await);
    }
    let there = async || {
        let mut there = Vec::new();
        for id in &ids {
            there.push(database.is_there(*id).await);
        }
        there
    };
    database.age(29).await;
    assert_eq!(database.apply().await, Removed::default());
    database.age(2).await;
    assert_eq!(database.apply().await.jobs, 1);
    assert_eq!(there().await, [false, true, true, true]);
    database.age(60).await;
    assert_eq!(database.apply().await.jobs, 2);
    assert_eq!(there().await, [false, false, false, true]);
    assert_eq!(database.verified().await.0, 1);
}

#[tokio::test]
async fn a_type_has_a_time_of_its_own_until_it_goes_by_the_others_again() {
    let database = Database::new().await;
    let (short, long, other) = (name("short"), name("long"), name("other"));
    let mut ids = Vec::new();
    for job_type in [&short, &long, &other] {
        ids.push(database.ended(job_type.as_str(), Status::Succeeded).await);
    }
    let set = async |job_type, keep| {
        database
            .store
            .set_retention(job_type, Status::Succeeded, keep)
            .await
    };
    set(Some(&short), Keep::For(DAY)).await.expect("set");
    set(Some(&long), Keep::ForEver).await.expect("set");
    database.age(10).await;
    assert_eq!(database.apply().await.jobs, 1);
    database.age(1000).await;
    assert_eq!(database.apply().await.jobs, 1);
    assert!(database.is_there(ids[1]).await);
    set(Some(&long), Keep::AsOthers).await.expect("set");
    assert_eq!(database.apply().await.jobs, 1);
    let error = set(None, Keep::AsOthers)
        .await
        .expect_err("there are no others");
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    let error = database
        .store
        .set_retention(None, Status::Queued, Keep::ForEver)
        .await;
    assert!(error.is_err(), "what has not ended is never removed");
    let terms = database.store.retention().await.expect("the terms");
    assert!(
        terms
            .iter()
            .any(|term| term.job_type == "short" && term.keep_seconds == Some(86_400.0))
    );
}

/// A job with all that a job may have.
async fn rich(database: &Database) -> Uuid {
    let gate = Some(GateTerms {
        approvals: Some(2),
        ..GateTerms::default()
    });
    let stage = |stage_name, gate| NewStage {
        name: name(stage_name),
        job_type: Some(name("a")),
        payload: None,
        max_attempts: None,
        timeout_seconds: None,
        gate,
    };
    let new = NewJob {
        stages: vec![stage("draft", gate), stage("sent", None)],
        ..NewJob::new(name("a"), json!({}))
    };
    let id = database.record_with(new).await.id;
    let runner = TestRunner::new("r1", &["a"]);
    for object in [Some("an/object".to_owned()), None] {
        let leased = runner.take(database, id).await;
        let key = leased.lease.key();
        let file = NewFile {
            id: Uuid::from_u128(u128::from(object.is_some())),
            name: "f".to_owned(),
            content_type: "text/plain".to_owned(),
            object,
        };
        database
            .store
            .begin_artifact(key, &file)
            .await
            .expect("begun");
        if file.object.is_none() {
            database
                .store
                .append_chunk(file.id, 0, b"abc")
                .await
                .expect("stored");
        }
        let sum = Sum {
            size: 3,
            sha256: [7; 32],
            crc32: 9,
        };
        database
            .store
            .complete_artifact(key, file.id, &sum)
            .await
            .expect("whole");
        sqlx::query("insert into ops_job_log (job_id, fence, chunk, attempt, stream, first_line, lines, body) select id, fence, 1, attempt, 'stdout', 1, 1, E'x\n' from ops_jobs where id = $1")
            .bind(id).execute(&database.psql).await.expect("logged");
        database
            .store
            .finish(leased.lease, Outcome::Succeeded(json!(1)))
            .await
            .expect("recorded");
        if database.job(id).await.status == Status::Waiting {
            for actor in ["key:one", "key:two"] {
                let request = DecisionRequest {
                    job_id: id,
                    name: "draft",
                    decision: Decision::Approve,
                    actor,
                    reason: None,
                    revision: None,
                    document_hash: None,
                    patch: None,
                };
                database.store.decide(&request).await.expect("an answer");
            }
        }
    }
    assert_eq!(database.job(id).await.status, Status::Succeeded);
    id
}

#[tokio::test]
async fn a_job_goes_whole_with_all_that_is_its_own_and_its_objects_are_cleared_away() {
    let database = Database::new().await;
    // From here on ends of jobs are noted for Notion.
    let asked = database.store.claim_notion("s", "k", "d").await;
    asked.expect("an answer");
    let id = rich(&database).await;
    let other = database.ended("b", Status::Queued).await;
    while database.count("select count(*) from ops_seals").await == 0 {
        let sealing = database
            .store
            .seal("sweep:r1", Duration::MAX, || Duration::ZERO);
        sealing.await.expect("sealed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let events = database.kinds(id).await.len() as u64;
    database.keep_nothing().await;
    let removed = database.apply().await;
    assert_eq!(
        removed,
        Removed {
            jobs: 1,
            events,
            log_chunks: 2,
            files: 2
        }
    );
    assert_eq!(database.store.removals().await.expect("counted"), removed);
    // Whatever table there is, or will be, that has a job's id.
    let tables: Vec<String> = sqlx::query_scalar(
        "select a.attrelid::regclass::text from pg_attribute a join pg_class c on c.oid = a.attrelid
         where a.attname = 'job_id' and c.relkind = 'r' and c.relname like 'ops\\_%' and c.relname <> 'ops_schedule_fires'",
    )
    .fetch_all(&database.psql).await.expect("the catalogue");
    assert!(tables.len() >= 7, "{tables:?}");
    for table in tables {
        let left: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "select count(*) from {table} where job_id = $1"
        )))
        .bind(id)
        .fetch_one(&database.psql)
        .await
        .expect("a count");
        assert_eq!(left, 0, "{table}");
    }
    assert_eq!(
        database.count("select count(*) from ops_file_chunks").await,
        0
    );
    assert_eq!(
        database.store.garbage().await.expect("garbage"),
        ["an/object"]
    );
    assert!(database.is_there(other).await);
    assert_eq!(database.verified().await, (1, 0));
}

#[tokio::test]
async fn what_is_counted_before_is_what_goes() {
    let database = Database::new().await;
    for (job_type, status, count) in [
        ("a", Status::Succeeded, 3),
        ("a", Status::Failed, 2),
        ("b", Status::Aborted, 4),
    ] {
        for _ in 0..count {
            database.ended(job_type, status).await;
        }
    }
    database.age(100).await;
    database.ended("a", Status::Succeeded).await;
    let due = database.store.retention_due().await.expect("counted");
    let counted = |due: &[Expired]| {
        (
            due.iter().map(|one| one.jobs).sum::<i64>(),
            due.iter().map(|one| one.events).sum::<i64>(),
        )
    };
    let kinds: Vec<(&str, &str, i64)> = due
        .iter()
        .map(|one| (one.job_type.as_str(), one.status.as_str(), one.jobs))
        .collect();
    assert_eq!(
        kinds,
        [
            ("a", "failed", 2),
            ("a", "succeeded", 3),
            ("b", "aborted", 4)
        ]
    );
    let removed = database.apply().await;
    assert_eq!(
        (9, i64::try_from(removed.events).expect("few")),
        counted(&due)
    );
    assert_eq!(removed.jobs, 9);
    assert_eq!(database.store.retention_due().await.expect("counted"), []);
    assert_eq!(database.verified().await.0, 1);
}

#[tokio::test]
async fn a_batch_is_bounded_and_nothing_waits_for_it() {
    let database = Database::new().await;
    let batch: Vec<NewJob> = (0..700)
        .map(|_| NewJob::new(name("a"), json!({})))
        .collect();
    database
        .store
        .submit_batch(&batch, "key:test")
        .await
        .expect("recorded");
    sqlx::query("update ops_jobs set status = 'aborted'")
        .execute(&database.psql)
        .await
        .expect("aborted");
    database.keep_nothing().await;

    let mut removing = database.psql.begin().await.expect("a transaction");
    let gone: i64 = sqlx::query_scalar("select sum(jobs)::bigint from ops_apply_retention()")
        .fetch_one(&mut *removing)
        .await
        .expect("removed");
    assert_eq!(gone, 200);
    // Not committed yet, and the others go on: a claim, an end, a sweep, a retry.
    let id = database.ended("b", Status::Succeeded).await;
    database.store.sweep("sweep:r1").await.expect("swept");
    let survivor: Uuid = sqlx::query_scalar(
        "select id from ops_jobs where job_type = 'a' order by finished_at desc limit 1",
    )
    .fetch_one(&database.psql)
    .await
    .expect("one");
    database
        .store
        .retry(survivor, "key:k", None)
        .await
        .expect("queued");
    removing.commit().await.expect("committed");
    assert!(database.is_there(survivor).await);
    database.keep_nothing().await;
    let removed = database.apply().await;
    assert_eq!(
        removed.jobs,
        700 - 200 - 1 + 1,
        "the others, and the one of b"
    );
    assert!(!database.is_there(id).await);
}

#[tokio::test]
async fn a_removal_that_is_killed_has_removed_nothing() {
    let database = Database::new().await;
    for _ in 0..5 {
        database.ended("a", Status::Succeeded).await;
    }
    database.keep_nothing().await;
    let before = database.count("select count(*) from ops_job_events").await;
    let mut doomed = database
        .psql
        .acquire()
        .await
        .expect("a connection")
        .detach();
    sqlx::raw_sql("begin; select * from ops_apply_retention()")
        .execute(&mut doomed)
        .await
        .expect("removed, so far");
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut doomed)
        .await
        .expect("its process");
    sqlx::query("select pg_terminate_backend($1, 10000)")
        .bind(pid)
        .execute(&database.psql)
        .await
        .expect("killed");
    assert_eq!(
        database.count("select count(*) from ops_job_events").await,
        before
    );
    assert_eq!(database.count("select count(*) from ops_removals").await, 0);
    assert_eq!(database.verified().await.0, 5);
    assert_eq!(database.apply().await.jobs, 5);
    assert_eq!(
        database.count("select count(*) from ops_job_events").await,
        0
    );
}

#[tokio::test]
async fn nobody_else_takes_a_job_away_or_what_happened_to_it() {
    let database = Database::new().await;
    let id = database.ended("a", Status::Succeeded).await;
    let fresh = database.ended("a", Status::Failed).await;
    database.age(40).await;
    let refused = [
        "delete from ops_jobs where id = $1",
        "delete from ops_job_events where job_id = $1",
        "with gone as (delete from ops_jobs where id = $1 returning id) delete from ops_job_events e using gone g where e.job_id = g.id",
    ];
    for sql in refused {
        let error = database.type_in(sql, id).await.expect_err(sql);
        let code = error
            .as_database_error()
            .and_then(|error| error.code().map(|code| code.into_owned()));
        assert_eq!(code.as_deref(), Some("23514"), "{sql}");
    }
    // A function of that name elsewhere removes nothing whose time has not passed.
    sqlx::raw_sql("create schema mine; create function mine.ops_apply_retention(job uuid) returns void language plpgsql as $$ begin delete from public.ops_jobs where id = job; end $$")
        .execute(&database.psql).await.expect("made");
    database
        .type_in("select mine.ops_apply_retention($1)", fresh)
        .await
        .expect_err("it is kept for 90 days");

    database.store.bootstrap_roles().await.expect("made");
    let mut connection = database.psql.acquire().await.expect("a connection");
    for role in ROLES {
        let mut said = async |sql: String| {
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .execute(&mut *connection)
                .await
        };
        said(format!("set role {role}")).await.expect("the role");
        for sql in [
            "delete from ops_jobs",
            "delete from ops_job_events",
            "delete from ops_seals",
            "truncate ops_job_events",
            "update ops_retention set keep = '0'",
            "delete from ops_removals",
            "select ops_after_restore('x')",
        ] {
            assert!(said(sql.to_owned()).await.is_err(), "{role}: {sql}");
        }
        said("select * from ops_retention_due()".to_owned())
            .await
            .expect("everybody may look");
        let applied = said("begin; select * from ops_apply_retention()".to_owned()).await;
        assert_eq!(
            applied.is_ok(),
            role != "ops_readonly",
            "{role}: {applied:?}"
        );
        said("rollback; reset role".to_owned())
            .await
            .expect("oneself again");
    }
    assert_eq!(database.apply().await.jobs, 1);
}

#[tokio::test]
async fn a_job_that_is_being_retried_stays() {
    let database = Database::new().await;
    let (kept, gone) = (
        database.ended("a", Status::Failed).await,
        database.ended("a", Status::Failed).await,
    );
    database.keep_nothing().await;
    let mut retrying = database.psql.begin().await.expect("a transaction");
    sqlx::query("select ops_retry($1)")
        .bind(kept)
        .execute(&mut *retrying)
        .await
        .expect("queued");
    assert_eq!(database.apply().await.jobs, 1);
    retrying.commit().await.expect("committed");
    assert_eq!(database.job(kept).await.status, Status::Queued);
    assert!(!database.is_there(gone).await);
    assert_eq!(database.verified().await.0, 1);
}

#[tokio::test]
async fn nothing_goes_before_its_history_was_due_to_be_sealed() {
    let database = Database::new().await;
    database.ended("a", Status::Succeeded).await;
    sqlx::query("update ops_retention set keep = '0'")
        .execute(&database.psql)
        .await
        .expect("set");
    assert_eq!(database.store.retention_due().await.expect("counted"), []);
    assert_eq!(database.apply().await, Removed::default());
}

#[tokio::test]
async fn many_at_once_remove_everything_once() {
    let database = Database::new().await;
    let batch: Vec<NewJob> = (0..900)
        .map(|_| NewJob::new(name("a"), json!({})))
        .collect();
    database
        .store
        .submit_batch(&batch, "key:test")
        .await
        .expect("recorded");
    sqlx::query("update ops_jobs set status = 'aborted'")
        .execute(&database.psql)
        .await
        .expect("aborted");
    database.keep_nothing().await;
    let mut removing = tokio::task::JoinSet::new();
    for number in 0..4 {
        let store = store_on(&database.url, 1);
        removing.spawn(async move {
            store
                .apply_retention(&format!("sweep:{number}"), BUDGET)
                .await
                .expect("removed")
                .jobs
        });
    }
    let jobs: u64 = removing.join_all().await.into_iter().sum();
    assert_eq!(jobs, 900);
    assert_eq!(database.store.removals().await.expect("counted").jobs, 900);
    assert_eq!(database.verified().await.0, 0);
}
