//! What callers and operators ask for: submit, list, abort, retry, roles, metrics.

use std::collections::HashSet;
use std::time::Duration;

use jobs::{
    AbortAnswer, JobFilter, NewJob, Outcome, ROLES, RunnerReport, Status, StoreError, Submitted,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::database::{Database, TestRunner, name};

#[tokio::test(flavor = "multi_thread")]
async fn one_idempotency_key_makes_one_job_however_many_ask() {
    let database = Database::new().await;
    let new = NewJob {
        idempotency_key: Some("k".into()),
        ..NewJob::new(name("a"), json!({"x": [1, 2.5, "ä"]}))
    };
    let mut callers = JoinSet::new();
    for _ in 0..32 {
        let (store, new) = (database.store.clone(), new.clone());
        callers.spawn(async move { store.submit(new, "key:test").await.expect("an answer") });
    }
    let answers = callers.join_all().await;
    assert_eq!(
        answers
            .iter()
            .filter(|answer| matches!(answer, Submitted::Created(_)))
            .count(),
        1
    );
    let ids: HashSet<_> = answers
        .into_iter()
        .map(|answer| answer.into_job().id)
        .collect();
    assert_eq!(ids.len(), 1);
    let other = NewJob { priority: 1, ..new };
    let conflict = database.store.submit(other, "key:test").await;
    assert!(
        matches!(conflict, Err(StoreError::IdempotencyConflict(_))),
        "{conflict:?}"
    );
}

#[tokio::test]
async fn a_batch_is_recorded_in_its_order_all_or_none() {
    let database = Database::new().await;
    let batch: Vec<NewJob> = (0..1000)
        .map(|n| NewJob::new(name("a"), json!({ "n": n })))
        .collect();
    let jobs = database
        .store
        .submit_batch(&batch, "key:test")
        .await
        .expect("recorded");
    let numbers: Vec<i64> = jobs
        .iter()
        .map(|job| job.payload["n"].as_i64().expect("a number"))
        .collect();
    assert_eq!(numbers, (0..1000).collect::<Vec<i64>>());
    let bad = vec![
        NewJob::new(name("a"), json!({})),
        NewJob {
            max_attempts: Some(0),
            ..NewJob::new(name("a"), json!({}))
        },
    ];
    let refused = database.store.submit_batch(&bad, "key:test").await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    let rows: i64 = sqlx::query_scalar("select count(*) from ops_jobs")
        .fetch_one(&database.psql)
        .await
        .expect("a count");
    assert_eq!(rows, 1000);
}

#[tokio::test]
async fn pages_show_every_job_once_newest_first() {
    let database = Database::new().await;
    let batch: Vec<NewJob> = (0..57)
        .map(|n| NewJob::new(name(if n % 3 == 0 { "b" } else { "a" }), json!({})))
        .collect();
    database
        .store
        .submit_batch(&batch, "key:test")
        .await
        .expect("recorded");
    let mut filter = JobFilter {
        limit: 10,
        ..JobFilter::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = database.store.list(&filter).await.expect("a page");
        seen.extend(page.jobs.iter().map(|job| job.id));
        // what is recorded meanwhile must not shift the pages
        database.record("later").await;
        let Some(next) = page.next else { break };
        filter.before = Some(next);
    }
    assert_eq!(seen.len(), 57);
    assert!(seen.is_sorted_by(|a, b| a > b));
    let only = JobFilter {
        job_type: Some(name("b")),
        ..JobFilter::default()
    };
    assert_eq!(
        database.store.list(&only).await.expect("a page").jobs.len(),
        19
    );
}

#[tokio::test]
async fn filters_find_what_they_say() {
    let database = Database::new().await;
    let labelled = NewJob {
        labels: [
            ("team".to_owned(), "blue".to_owned()),
            ("x".to_owned(), "1".to_owned()),
        ]
        .into(),
        queue: name("night"),
        ..NewJob::new(name("a"), json!({}))
    };
    let labelled = database.record_with(labelled).await;
    let running = database.record("b").await;
    TestRunner::new("r1", &["b"])
        .take(&database, running.id)
        .await;
    let found = async |filter: JobFilter| -> Vec<_> {
        database
            .store
            .list(&filter)
            .await
            .expect("a page")
            .jobs
            .into_iter()
            .map(|job| job.id)
            .collect()
    };
    let label = |value: &str| JobFilter {
        label: Some(("team".into(), value.into())),
        ..JobFilter::default()
    };
    assert_eq!(found(label("blue")).await, [labelled.id]);
    assert!(found(label("red")).await.is_empty());
    assert_eq!(
        found(JobFilter {
            queue: Some(name("night")),
            ..JobFilter::default()
        })
        .await,
        [labelled.id]
    );
    assert_eq!(
        found(JobFilter {
            status: Some(Status::Running),
            ..JobFilter::default()
        })
        .await,
        [running.id]
    );
    let after = JobFilter {
        created_after: Some(running.created_at),
        ..JobFilter::default()
    };
    assert_eq!(found(after).await, [running.id]);
    let before = JobFilter {
        created_before: Some(running.created_at),
        ..JobFilter::default()
    };
    assert_eq!(found(before).await, [labelled.id]);
    assert!(
        found(JobFilter {
            stalled: true,
            ..JobFilter::default()
        })
        .await
        .is_empty()
    );
    let impatient = JobFilter {
        stalled: true,
        stall_after: Duration::ZERO,
        ..JobFilter::default()
    };
    assert_eq!(found(impatient).await, [running.id]);
}

#[tokio::test]
async fn an_abort_stops_at_once_what_has_not_begun() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let answer = database
        .store
        .abort(id, "key:test", Some("not needed"))
        .await
        .expect("aborted");
    assert_eq!(answer, AbortAnswer::Aborted);
    assert_eq!(
        database.kinds(id).await,
        ["queued", "abort_requested", "aborted"]
    );
    let events = database.store.events(id, 1, 10).await.expect("events");
    assert!(
        events
            .iter()
            .all(|event| event.actor == "key:test" && event.data["reason"] == "not needed"),
        "{events:?}"
    );
    let again = database.store.abort(id, "key:test", None).await;
    assert!(
        matches!(
            again,
            Err(StoreError::WrongStatus {
                status: Status::Aborted,
                ..
            })
        ),
        "{again:?}"
    );
    let unknown = database
        .store
        .abort(uuid::Uuid::nil(), "key:test", None)
        .await;
    assert!(
        matches!(unknown, Err(StoreError::NotFound(_))),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn an_abort_of_a_running_job_is_asked_for_once() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let leased = TestRunner::new("r1", &["a"]).take(&database, id).await;
    for _ in 0..3 {
        let answer = database
            .store
            .abort(id, "key:test", None)
            .await
            .expect("asked for");
        assert_eq!(answer, AbortAnswer::Requested);
    }
    database
        .store
        .finish(leased.lease, Outcome::Retry("stopped".into()))
        .await
        .expect("recorded");
    assert_eq!(
        database.job(id).await.status,
        Status::Aborted,
        "an aborted job is not tried again"
    );
    assert_eq!(
        database.kinds(id).await,
        ["queued", "running", "abort_requested", "aborted"]
    );
}

#[tokio::test]
async fn a_retry_gives_a_fresh_budget_under_a_higher_fence() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let runner = TestRunner::new("r1", &["a"]);
    let first = runner.take(&database, id).await;
    let fence = first.lease.fence();
    let early = database.store.retry(id, "key:test", None).await;
    assert!(
        matches!(
            early,
            Err(StoreError::WrongStatus {
                status: Status::Running,
                ..
            })
        ),
        "{early:?}"
    );
    database
        .store
        .finish(first.lease, Outcome::Retry("no".into()))
        .await
        .expect("recorded");
    database
        .store
        .retry(id, "key:test", Some("fixed it"))
        .await
        .expect("queued again");
    let job = database.job(id).await;
    assert_eq!(
        (
            job.status,
            job.attempt,
            job.dead_lettered_at,
            job.finished_at
        ),
        (Status::Queued, 0, None, None)
    );
    let second = runner.take(&database, id).await;
    assert_eq!(second.lease.attempt(), 1);
    assert!(second.lease.fence() > fence);
    database
        .store
        .finish(second.lease, Outcome::Succeeded(json!(null)))
        .await
        .expect("recorded");
    let late = database.store.retry(id, "key:test", None).await;
    assert!(
        matches!(
            late,
            Err(StoreError::WrongStatus {
                status: Status::Succeeded,
                ..
            })
        ),
        "{late:?}"
    );
    assert_eq!(
        database.kinds(id).await,
        [
            "queued",
            "running",
            "failed",
            "dead_lettered",
            "replayed",
            "running",
            "succeeded"
        ]
    );
}

#[tokio::test]
async fn a_refusal_fails_only_what_is_still_queued() {
    let database = Database::new().await;
    let refused = database.record("a").await.id;
    assert!(
        database
            .store
            .refuse(refused, "key:test", "not allowed here")
            .await
            .expect("an answer")
    );
    assert_eq!(
        database.job(refused).await.error.as_deref(),
        Some("not allowed here")
    );
    let taken = database.record("a").await.id;
    TestRunner::new("r1", &["a"]).take(&database, taken).await;
    assert!(
        !database
            .store
            .refuse(taken, "key:test", "too late")
            .await
            .expect("an answer")
    );
    assert_eq!(database.job(taken).await.status, Status::Running);
}

#[tokio::test]
async fn runners_report_and_sign_off() {
    let database = Database::new().await;
    let runner = TestRunner::new("r1", &["a"]);
    let report = RunnerReport {
        runner: &runner.identity,
        version: "1",
        job_types: &["a".to_owned()],
        slots_total: 4,
        slots_used: 1,
        draining: false,
        poll: None,
        types: &runner.types,
    };
    database.store.report_runner(report).await.expect("written");
    database
        .store
        .report_runner(RunnerReport {
            draining: true,
            ..report
        })
        .await
        .expect("written again");
    let runners = database.store.runners().await.expect("a list");
    assert_eq!(runners.len(), 1);
    assert!(runners[0].draining && runners[0].silent_seconds < 60.0);
    database
        .store
        .sign_off(&runner.identity)
        .await
        .expect("gone");
    assert!(database.store.runners().await.expect("a list").is_empty());
}

#[tokio::test]
async fn metrics_are_rolled_up_from_the_events_and_the_same_when_asked_again() {
    let database = Database::new().await;
    let runner = TestRunner::new("r1", &["a"]);
    for n in 0..5 {
        let id = database.record("a").await.id;
        let leased = runner.take(&database, id).await;
        let outcome = if n == 0 {
            Outcome::Failed("no".into())
        } else {
            Outcome::Succeeded(json!(n))
        };
        database
            .store
            .finish(leased.lease, outcome)
            .await
            .expect("recorded");
    }
    let rollup = database.store.refresh_metrics(2).await.expect("rolled up");
    assert!(rollup.rows >= 1);
    database
        .store
        .refresh_metrics(2)
        .await
        .expect("rolled up again");
    let sums: (i64, i64, i64, i64, i64) = sqlx::query_as(
        "select sum(queued), sum(started), sum(succeeded), sum(failed), count(*) filter (where run_ms_p95 is not null and wait_ms_p50 is not null)
         from ops_metrics where job_type = 'a'",
    )
    .fetch_one(&database.psql)
    .await
    .expect("sums");
    assert_eq!((sums.0, sums.1, sums.2, sums.3), (5, 5, 4, 1));
    assert!(sums.4 >= 1);
}

/// The programs' roles can do their programs' work and cannot rewrite history.
#[tokio::test]
async fn the_roles_have_least_privilege() {
    let database = Database::new().await;
    database.store.bootstrap_roles().await.expect("made");
    database.store.bootstrap_roles().await.expect("made once");
    let id = database.record("a").await.id;
    let mut connection = database.psql.acquire().await.expect("a connection");
    let mut tries = 0;
    for role in ROLES {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("set role {role}")))
            .execute(&mut *connection)
            .await
            .expect("the role");
        let allowed: &[(&str, bool)] = match role {
            "ops_control_plane" => &[
                ("insert into ops_jobs (job_type) values ('a')", true),
                ("select ops_enqueue('a')", true),
                ("update ops_jobs set status = 'succeeded'", false),
                ("update ops_jobs set payload = '{}'", false),
                ("delete from ops_runners", false),
                ("select ops_pause_fleet('x'), ops_resume_fleet()", true),
                ("update ops_fleet set paused_at = now()", false),
                ("select ops_why(id) from ops_jobs", true),
                (
                    "insert into ops_metrics (hour, job_type) values (now(), 'a')",
                    false,
                ),
            ],
            "ops_runner" => &[
                (
                    "update ops_jobs set status = 'running' where status = 'queued'",
                    true,
                ),
                (
                    "insert into ops_job_events (job_id, kind) select id, 'note' from ops_jobs",
                    true,
                ),
                ("delete from ops_jobs", false),
                ("delete from ops_job_log", false),
                ("select ops_why(id) from ops_jobs", true),
                ("select ops_resume_fleet()", false),
            ],
            _ => &[
                ("select * from ops_jobs", true),
                ("select * from ops_queue_depth", true),
                ("select * from ops_fleet, ops_fleet_changes", true),
                ("select ops_why(id) from ops_jobs", true),
                ("select ops_pause_fleet()", false),
                ("insert into ops_jobs (job_type) values ('a')", false),
                ("select ops_enqueue('a')", false),
                ("select ops_abort(gen_random_uuid())", false),
            ],
        };
        let never = [
            "update ops_job_events set kind = 'x'",
            "delete from ops_job_events",
            "truncate ops_jobs",
            "drop table ops_jobs",
        ];
        for (sql, expected) in allowed.iter().copied().chain(never.map(|sql| (sql, false))) {
            let done = sqlx::raw_sql(sql).execute(&mut *connection).await;
            assert_eq!(done.is_ok(), expected, "{role}: {sql}: {done:?}");
            tries += 1;
        }
        sqlx::raw_sql("reset role")
            .execute(&mut *connection)
            .await
            .expect("oneself again");
    }
    assert!(tries > 20);
    assert_eq!(database.kinds(id).await[..2], ["queued", "running"]);
}

#[tokio::test]
async fn a_page_ends_early_where_its_jobs_are_large_and_the_next_one_goes_on() {
    let database = Database::new().await;
    let large = "x".repeat(1024 * 1024);
    for number in 0..20 {
        let new = NewJob::new(name("a"), json!({ "n": number, "text": large }));
        database
            .store
            .submit(new, "key:test")
            .await
            .expect("recorded");
    }
    let mut filter = JobFilter {
        limit: 200,
        ..JobFilter::default()
    };
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let page = database.store.list(&filter).await.expect("a page");
        pages += 1;
        assert!((1..=9).contains(&page.jobs.len()), "{}", page.jobs.len());
        seen.extend(page.jobs.iter().map(|job| job.payload["n"].as_i64()));
        filter.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..20).rev().map(Some).collect::<Vec<_>>());
    assert_eq!(pages, 3);
}

#[tokio::test]
async fn a_page_of_small_jobs_has_as_many_as_were_asked_for() {
    let database = Database::new().await;
    let batch: Vec<NewJob> = (0..30).map(|n| NewJob::new(name("a"), json!(n))).collect();
    database
        .store
        .submit_batch(&batch, "key:test")
        .await
        .expect("recorded");
    for (limit, count, more) in [
        (29, 29, true),
        (30, 30, false),
        (31, 30, false),
        (1, 1, true),
    ] {
        let filter = JobFilter {
            limit,
            ..JobFilter::default()
        };
        let page = database.store.list(&filter).await.expect("a page");
        assert_eq!(
            (page.jobs.len(), page.next.is_some()),
            (count, more),
            "{limit}"
        );
    }
}

#[tokio::test]
async fn a_list_of_events_ends_early_where_they_are_large_and_the_last_number_goes_on() {
    let database = Database::new().await;
    let new = NewJob::new(name("a"), json!({}));
    let id = database
        .store
        .submit(new, "key:test")
        .await
        .expect("recorded")
        .into_job()
        .id;
    for _ in 0..12 {
        sqlx::query(
            "insert into ops_job_events (job_id, kind, attempt, data)
             values ($1, 'progress', 0, jsonb_build_object('text', repeat('x', 1048576)))",
        )
        .bind(id)
        .execute(&database.psql)
        .await
        .expect("an event");
    }
    let first = database.store.events(id, 0, 1000).await.expect("events");
    assert!((2..=10).contains(&first.len()), "{}", first.len());
    let last = first.last().expect("one").seq;
    let rest = database.store.events(id, last, 1000).await.expect("events");
    assert_eq!(first.len() + rest.len(), 13);
    assert_eq!(rest[0].seq, last + 1);
}
