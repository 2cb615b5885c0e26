//! Claims, renewals and finishes, with callers that race.

use std::collections::HashSet;
use std::time::Duration;

use jobs::{NewJob, Outcome, Status, StoreError, TypeTerms};
use serde_json::json;
use tokio::task::JoinSet;

use crate::database::{Database, TestRunner, name};

#[tokio::test]
async fn the_life_of_a_job_that_succeeds() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let leased = TestRunner::new("r1", &["a"]).take(&database, id).await;
    assert_eq!(leased.lease.attempt(), 1);
    assert!(leased.lease.fence() > 0);
    let running = database.job(id).await;
    assert_eq!(
        (
            running.status,
            running.attempt,
            running.runner_id.as_deref()
        ),
        (Status::Running, 1, Some("r1"))
    );
    assert!(
        running.lease_expires_at.is_some()
            && running.heartbeat_at.is_some()
            && running.started_at.is_some()
    );

    database
        .store
        .finish(leased.lease, Outcome::Succeeded(json!({"n": 1})))
        .await
        .expect("recorded");
    let done = database.job(id).await;
    assert_eq!(
        (done.status, done.result, done.error),
        (Status::Succeeded, Some(json!({"n": 1})), None)
    );
    assert!(done.lease_expires_at.is_none() && done.finished_at >= done.started_at);
    assert_eq!(database.kinds(id).await, ["queued", "running", "succeeded"]);
    let events = database.store.events(id, 0, 10).await.expect("events");
    assert_eq!(events[0].actor, "key:test");
    assert_eq!(events[2].actor, "runner:r1");
    for key in ["job_type", "queue", "attempt", "max_attempts"] {
        assert!(
            events[2].data.get(key).is_some(),
            "{key} in {}",
            events[2].data
        );
    }
}

/// The planner may run a plain `… where id in (select … limit 1 for update skip locked)` once for each row, and so
/// claim the whole queue. Ours must not, whatever it is forbidden to use.
#[tokio::test]
async fn a_claim_with_one_free_slot_takes_one_job_under_any_plan() {
    let plans = [
        "",
        "set enable_hashjoin = off; set enable_mergejoin = off; set enable_material = off",
        "set enable_nestloop = off; set enable_mergejoin = off",
        "set enable_nestloop = off; set enable_hashjoin = off",
        "set enable_indexscan = off; set enable_bitmapscan = off",
        "set enable_seqscan = off; set enable_memoize = off; set enable_hashjoin = off; set enable_mergejoin = off",
        "set plan_cache_mode = force_generic_plan",
        "set plan_cache_mode = force_custom_plan; set from_collapse_limit = 1; set join_collapse_limit = 1",
    ];
    for plan in plans {
        let database = Database::new().await;
        let login: String = sqlx::query_scalar("select format('%I', current_user)")
            .fetch_one(&database.psql)
            .await
            .expect("a login");
        let base: String = sqlx::query_scalar("select format('%I', current_database())")
            .fetch_one(&database.psql)
            .await
            .expect("a name");
        for setting in plan
            .split(';')
            .map(str::trim)
            .filter(|setting| !setting.is_empty())
        {
            let sql = format!("alter role {login} in database {base} {setting}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .execute(&database.psql)
                .await
                .expect("a setting of the planner");
        }
        let fresh = vec![NewJob::new(name("a"), json!({})); 20];
        database
            .store
            .submit_batch(&fresh, "key:test")
            .await
            .expect("recorded");
        let runner = TestRunner::new("r1", &["a"]);
        for taken in 1..=8 {
            let leased = database
                .store
                .claim_due(runner.request(), 1)
                .await
                .expect("a claim");
            assert_eq!(leased.len(), 1, "under {plan:?}");
            let running: i64 =
                sqlx::query_scalar("select count(*) from ops_jobs where status = 'running'")
                    .fetch_one(&database.psql)
                    .await
                    .expect("a count");
            assert_eq!(running, taken, "under {plan:?}");
        }
        let three = database
            .store
            .claim_due(runner.request(), 3)
            .await
            .expect("a claim");
        assert_eq!(three.len(), 3, "under {plan:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_claimers_take_each_job_once() {
    let database = Database::new().await;
    let fresh = vec![NewJob::new(name("a"), json!({})); 200];
    database
        .store
        .submit_batch(&fresh, "key:test")
        .await
        .expect("recorded");
    let mut claimers = JoinSet::new();
    for index in 0..12 {
        let store = database.store.clone();
        claimers.spawn(async move {
            let runner = TestRunner::new(&format!("r{index}"), &["a"]);
            let mut taken = Vec::new();
            loop {
                let leased = store.claim_due(runner.request(), 7).await.expect("a claim");
                assert!(leased.len() <= 7);
                if leased.is_empty() {
                    return taken;
                }
                taken.extend(
                    leased
                        .iter()
                        .map(|job| (job.lease.job_id(), job.lease.fence())),
                );
            }
        });
    }
    let all: Vec<_> = claimers.join_all().await.into_iter().flatten().collect();
    assert_eq!(all.len(), 200);
    assert_eq!(
        all.iter().map(|(id, _)| id).collect::<HashSet<_>>().len(),
        200,
        "each job once"
    );
    assert_eq!(
        all.iter()
            .map(|(_, fence)| fence)
            .collect::<HashSet<_>>()
            .len(),
        200,
        "each fence once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_claims_by_id_one_wins_and_the_others_hear_why() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let mut claimers = JoinSet::new();
    for index in 0..16 {
        let store = database.store.clone();
        claimers.spawn(async move {
            let runner = TestRunner::new(&format!("r{index}"), &["a"]);
            store.claim_by_id(runner.request(), id).await
        });
    }
    let answers = claimers.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for error in answers.into_iter().filter_map(Result::err) {
        assert!(
            matches!(
                error,
                StoreError::WrongStatus {
                    status: Status::Running,
                    ..
                } | StoreError::Contended(_)
            ),
            "{error:?}"
        );
    }
    assert_eq!(database.kinds(id).await, ["queued", "running"]);
}

/// Puts the job under a lock as a claim in mid-transaction does, and waits until the claim by id has run into it.
async fn behind_a_rival(
    database: &Database,
    end: &'static str,
) -> (uuid::Uuid, Result<jobs::LeasedJob, StoreError>) {
    let id = database.record("a").await.id;
    let mut rival = database.psql.begin().await.expect("a transaction");
    sqlx::query("select 1 from ops_jobs where id = $1 for update")
        .bind(id)
        .execute(&mut *rival)
        .await
        .expect("the lock");
    let store = database.store.clone();
    let mut claims = JoinSet::new();
    claims.spawn(async move {
        let runner = TestRunner::new("r1", &["a"]);
        store.claim_by_id(runner.request(), id).await
    });
    until_one_waits_for_a_lock(database).await;
    sqlx::raw_sql(end)
        .execute(&mut *rival)
        .await
        .expect("the rival's end");
    rival.commit().await.expect("the rival's end");
    let answer = claims.join_all().await.remove(0);
    (id, answer)
}

async fn until_one_waits_for_a_lock(database: &Database) {
    let waits = "select exists (select from pg_stat_activity
                 where datname = current_database() and wait_event_type = 'Lock')";
    while !sqlx::query_scalar::<_, bool>(waits)
        .fetch_one(&database.psql)
        .await
        .expect("an answer")
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_claim_by_id_hears_what_its_rival_came_to() {
    let database = Database::new().await;
    let (id, answer) = behind_a_rival(
        &database,
        "update ops_jobs set status = 'running', runner_id = 'rival'",
    )
    .await;
    assert!(
        matches!(
            answer,
            Err(StoreError::WrongStatus { job_id, status: Status::Running }) if job_id == id
        ),
        "{answer:?}"
    );
    let database = Database::new().await;
    let (id, answer) = behind_a_rival(&database, "select 'leaves it as it was'").await;
    assert_eq!(answer.expect("the job").lease.job_id(), id);
    assert_eq!(database.kinds(id).await, ["queued", "running"]);
}

#[tokio::test]
async fn a_claim_by_id_names_what_is_in_its_way() {
    let database = Database::new().await;
    let runner = TestRunner::new("r1", &["a"]);
    let unknown = database
        .store
        .claim_by_id(runner.request(), uuid::Uuid::nil())
        .await;
    assert!(
        matches!(unknown, Err(StoreError::NotFound(_))),
        "{unknown:?}"
    );
    let foreign = database.record("b").await.id;
    let foreign = database.store.claim_by_id(runner.request(), foreign).await;
    assert!(
        matches!(foreign, Err(StoreError::WrongType(_))),
        "{foreign:?}"
    );
    let later = NewJob {
        run_at: Some(time::macros::datetime!(2199-01-01 00:00 UTC)),
        ..NewJob::new(name("a"), json!({}))
    };
    let later = database.record_with(later).await.id;
    let later = database.store.claim_by_id(runner.request(), later).await;
    assert!(matches!(later, Err(StoreError::NotDue(_))), "{later:?}");
}

#[tokio::test]
async fn claims_go_by_priority_then_by_run_at() {
    let database = Database::new().await;
    let mut expected = Vec::new();
    for priority in [0, 5, -3, 5] {
        let new = NewJob {
            priority,
            ..NewJob::new(name("a"), json!({}))
        };
        expected.push((priority, database.record_with(new).await.id));
    }
    expected.sort_by_key(|(priority, id)| (-priority, *id));
    let runner = TestRunner::new("r1", &["a"]);
    for (_, id) in expected {
        let leased = database
            .store
            .claim_due(runner.request(), 1)
            .await
            .expect("a claim")
            .pop()
            .expect("a job");
        assert_eq!(leased.lease.job_id(), id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_a_type_holds_over_the_fleet() {
    let database = Database::new().await;
    let fresh = vec![NewJob::new(name("a"), json!({})); 40];
    database
        .store
        .submit_batch(&fresh, "key:test")
        .await
        .expect("recorded");
    let mut claimers = JoinSet::new();
    for index in 0..10 {
        let store = database.store.clone();
        claimers.spawn(async move {
            let mut runner = TestRunner::new(&format!("r{index}"), &["a"]);
            runner.types[0].concurrency = Some(3);
            store
                .claim_due(runner.request(), 5)
                .await
                .expect("a claim")
                .len()
        });
    }
    assert_eq!(claimers.join_all().await.into_iter().sum::<usize>(), 3);
}

#[tokio::test]
async fn the_type_decides_what_the_caller_left_open() {
    let database = Database::new().await;
    let open = database.record("a").await.id;
    let closed = NewJob {
        max_attempts: Some(2),
        timeout_seconds: Some(7),
        ..NewJob::new(name("a"), json!({}))
    };
    let closed = database.record_with(closed).await.id;
    let mut runner = TestRunner::new("r1", &["a"]);
    runner.types[0] = TypeTerms {
        max_attempts: 5,
        timeout_seconds: Some(60),
        ..TypeTerms::new(name("a"))
    };
    let (open, closed) = (
        runner.take(&database, open).await,
        runner.take(&database, closed).await,
    );
    assert_eq!(
        (open.max_attempts, open.timeout),
        (5, Some(Duration::from_secs(60)))
    );
    assert_eq!(
        (closed.max_attempts, closed.timeout),
        (2, Some(Duration::from_secs(7)))
    );
}

#[tokio::test]
async fn a_failure_is_retried_while_attempts_are_left_and_then_dead_lettered() {
    let database = Database::new().await;
    let new = NewJob {
        max_attempts: Some(2),
        ..NewJob::new(name("a"), json!({}))
    };
    let id = database.record_with(new).await.id;
    let runner = TestRunner::new("r1", &["a"]);

    let first = runner.take(&database, id).await;
    let finished = database
        .store
        .finish(first.lease, Outcome::Retry("no luck".into()))
        .await
        .expect("recorded");
    assert_eq!(finished.status, Status::Queued);
    let between = database.job(id).await;
    assert_eq!(
        (between.error.as_deref(), between.attempt),
        (Some("no luck"), 1)
    );
    assert!(
        between.run_at <= between.updated_at + Duration::from_secs(2),
        "{:?}",
        between.run_at
    );

    database
        .type_in("update ops_jobs set run_at = now() where id = $1", id)
        .await
        .expect("made due");
    let second = runner.take(&database, id).await;
    let finished = database
        .store
        .finish(second.lease, Outcome::Retry("again".into()))
        .await
        .expect("recorded");
    assert_eq!(finished.status, Status::Failed);
    let dead = database.job(id).await;
    assert!(dead.dead_lettered_at.is_some() && dead.finished_at.is_some());
    assert_eq!(
        database.kinds(id).await,
        [
            "queued",
            "running",
            "retry_scheduled",
            "running",
            "failed",
            "dead_lettered"
        ]
    );
    let retry = &database.store.events(id, 2, 1).await.expect("events")[0];
    assert!(retry.data.get("run_at").is_some(), "{}", retry.data);
    let letters: i64 = sqlx::query_scalar("select count(*) from ops_dead_letters")
        .fetch_one(&database.psql)
        .await
        .expect("a count");
    assert_eq!(letters, 1);
}

#[tokio::test]
async fn a_final_failure_wastes_no_attempts() {
    let database = Database::new().await;
    let new = NewJob {
        max_attempts: Some(3),
        ..NewJob::new(name("a"), json!({}))
    };
    let id = database.record_with(new).await.id;
    let leased = TestRunner::new("r1", &["a"]).take(&database, id).await;
    database
        .store
        .finish(leased.lease, Outcome::Failed("exit code 1".into()))
        .await
        .expect("recorded");
    let job = database.job(id).await;
    assert_eq!((job.status, job.dead_lettered_at), (Status::Failed, None));
    assert_eq!(database.kinds(id).await, ["queued", "running", "failed"]);
}

#[tokio::test]
async fn a_released_attempt_is_not_counted() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let runner = TestRunner::new("r1", &["a"]);
    let leased = runner.take(&database, id).await;
    let finished = database
        .store
        .finish(leased.lease, Outcome::Released)
        .await
        .expect("recorded");
    assert_eq!(finished.status, Status::Queued);
    assert_eq!(database.job(id).await.attempt, 0);
    assert_eq!(runner.take(&database, id).await.lease.attempt(), 1);
    assert_eq!(
        database.kinds(id).await,
        ["queued", "running", "released", "running"]
    );
}

#[tokio::test]
async fn an_output_that_cannot_be_stored_still_ends_the_job() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let leased = TestRunner::new("r1", &["a"]).take(&database, id).await;
    database
        .store
        .finish(leased.lease, Outcome::Succeeded(json!({"\0": "a\0b"})))
        .await
        .expect("recorded");
    assert_eq!(
        database.job(id).await.result,
        Some(json!({"\u{fffd}": "a\u{fffd}b"}))
    );
}

#[tokio::test]
async fn asking_twice_for_the_same_finish_is_harmless() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let runner = TestRunner::new("r1", &["a"]);
    let leased = runner.take(&database, id).await;
    // The answer to the first finish is lost: its effect is there, the lease still in the caller's hand.
    sqlx::query(
        "with a as materialized (select set_config('ops.actor', 'runner:r1', true) as actor)
         update ops_jobs set status = 'succeeded', result = '1' from a where id = $1 and actor is not null",
    )
    .bind(id)
    .execute(&database.psql)
    .await
    .expect("the first finish");
    let finished = database
        .store
        .finish(leased.lease, Outcome::Succeeded(json!(1)))
        .await
        .expect("known already");
    assert_eq!(finished.status, Status::Succeeded);
    assert_eq!(database.kinds(id).await, ["queued", "running", "succeeded"]);
}

#[tokio::test]
async fn log_and_progress_are_written_under_the_lease_only() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let leased = TestRunner::new("r1", &["a"]).take(&database, id).await;
    let chunk = jobs::LogChunk {
        chunk: 1,
        stream: "stdout",
        first_line: 1,
        lines: 1,
        came: std::time::Instant::now(),
        body: "hello\0\n".into(),
    };
    let key = leased.lease.key();
    database
        .store
        .append_log(key, std::slice::from_ref(&chunk))
        .await
        .expect("written");
    database
        .store
        .append_log(key, std::slice::from_ref(&chunk))
        .await
        .expect("written twice, kept once");
    database
        .store
        .report(
            key,
            vec![(jobs::ProgressKind::Progress, json!({"progress": 0.5}))],
        )
        .await
        .expect("written");
    assert_eq!(database.log(id).await, "hello\u{fffd}\n");
    assert_eq!(
        database.job(id).await.progress,
        Some(json!({"progress": 0.5}))
    );

    database
        .store
        .finish(leased.lease, Outcome::Aborted)
        .await
        .expect("recorded");
    let late = database.store.append_log(key, &[chunk]).await;
    assert!(matches!(late, Err(StoreError::LeaseLost(_))), "{late:?}");
    let late = database
        .store
        .report(key, vec![(jobs::ProgressKind::Progress, json!({}))])
        .await;
    assert!(matches!(late, Err(StoreError::LeaseLost(_))), "{late:?}");
    assert_eq!(
        database.kinds(id).await,
        ["queued", "running", "progress", "aborted"]
    );
}

fn lines(chunk: i32, first_line: i32, body: &str) -> jobs::LogChunk {
    jobs::LogChunk {
        chunk,
        stream: "stdout",
        first_line,
        lines: i32::try_from(body.lines().count()).expect("few lines"),
        came: std::time::Instant::now(),
        body: body.to_owned(),
    }
}

#[tokio::test]
async fn log_lines_have_one_number_over_all_claims_and_a_jump_is_as_large_as_what_is_missing() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let runner = TestRunner::new("r1", &["a"]);
    for chunks in [
        vec![
            lines(1, 1, "1\n2\n"),
            lines(2, 3, "3\n"),
            lines(3, 11, "11\n"),
        ],
        vec![lines(1, 1, "12\n13\n")],
    ] {
        let leased = runner.take(&database, id).await;
        let key = leased.lease.key();
        for _ in 0..2 {
            database
                .store
                .append_log(key, &chunks)
                .await
                .expect("kept once");
        }
        let finished = database.store.finish(leased.lease, Outcome::Released).await;
        finished.expect("given back");
    }
    let pieces = async |after| {
        let page = database.store.log_page(id, after, i64::MAX).await;
        let page = page.expect("an answer").expect("the job");
        assert!(!page.ended && !page.cut);
        page.pieces
            .into_iter()
            .map(|piece| (piece.first_seq, piece.last_seq(), piece.body))
            .collect::<Vec<_>>()
    };
    let all = [
        (1, 2, "1\n2\n"),
        (3, 3, "3\n"),
        (11, 11, "11\n"),
        (12, 13, "12\n13\n"),
    ];
    let all: Vec<_> = all
        .into_iter()
        .map(|(first, last, body)| (first, last, body.to_owned()))
        .collect();
    for (after, from) in [
        (0, 0),
        (1, 0),
        (2, 1),
        (3, 2),
        (7, 2),
        (10, 2),
        (11, 3),
        (12, 3),
        (13, 4),
        (99, 4),
    ] {
        assert_eq!(pieces(after).await, all[from..], "after {after}");
    }
    let seen = database
        .store
        .watch_logs(&[(id, Some(12))])
        .await
        .expect("an answer");
    assert_eq!(
        seen[&id],
        jobs::LogSeen {
            last_seq: 13,
            ended: false
        }
    );
    assert!(
        database
            .store
            .watch_logs(&[(id, Some(13))])
            .await
            .expect("an answer")
            .is_empty()
    );

    database.store.rollback_to(3).await.expect("one back");
    database
        .store
        .migrate()
        .await
        .expect("and up, numbering what is there");
    assert_eq!(pieces(0).await, all);
}

#[tokio::test]
async fn what_is_new_of_many_jobs_is_found_at_once_and_their_end_with_it() {
    let database = Database::new().await;
    let (first, second) = (database.record("a").await.id, database.record("a").await.id);
    let unknown = uuid::Uuid::nil();
    let watched = [(first, None), (second, Some(1)), (unknown, None)];
    let seen = database
        .store
        .watch_events(&watched, 10)
        .await
        .expect("an answer");
    assert_eq!(
        seen.len(),
        1,
        "nothing is new of the second, and there is no third"
    );
    assert_eq!((seen[&first].events.len(), seen[&first].ended), (1, false));
    database
        .store
        .abort(second, "key:test", None)
        .await
        .expect("aborted");
    let seen = database
        .store
        .watch_events(&watched, 10)
        .await
        .expect("an answer");
    let second = &seen[&second];
    assert!(second.ended);
    assert_eq!(
        second.events.last().map(|event| i64::from(event.seq)),
        Some(second.last_seq)
    );
}

/// A claim takes unlimited types and each limited one in a statement of its own: when a later one fails, the others stand.
#[tokio::test]
async fn an_error_in_the_middle_of_a_claim_loses_nothing_that_was_taken() {
    let database = Database::new().await;
    let taken = database.record("a").await.id;
    database.record("b").await;
    let mut runner = TestRunner::new("r1", &["a", "b"]);
    runner.types[0].concurrency = Some(1);
    runner.types[1].concurrency = Some(1);
    sqlx::raw_sql(
        "create function fail() returns trigger language plpgsql as $$ begin raise exception 'broken'; end $$;
         create trigger broken before update on ops_jobs
         for each row when (new.job_type = 'b') execute function fail();",
    )
    .execute(&database.psql)
    .await
    .expect("a type whose claims fail");
    let leased = database
        .store
        .claim_due(runner.request(), 2)
        .await
        .expect("what was taken before the error");
    let ids: Vec<_> = leased.iter().map(|job| job.lease.job_id()).collect();
    assert_eq!(ids, [taken]);
}

#[tokio::test]
async fn a_limited_type_is_claimed_by_its_priority_and_never_starved() {
    let database = Database::new().await;
    let with = |job_type: &str, priority| NewJob {
        priority,
        ..NewJob::new(name(job_type), json!({}))
    };
    let crowd = vec![with("crowd", 0); 20];
    database
        .store
        .submit_batch(&crowd, "key:test")
        .await
        .expect("recorded");
    let urgent = database.record_with(with("one", 100)).await.id;
    database.record_with(with("one", 99)).await;
    let behind = database.record_with(with("two", 50)).await.id;
    let mut runner = TestRunner::new("r1", &["crowd", "one", "two"]);
    runner.types[1].concurrency = Some(1);
    runner.types[2].concurrency = Some(1);
    let first = database
        .store
        .claim_due(runner.request(), 1)
        .await
        .expect("a claim");
    assert_eq!(first[0].lease.job_id(), urgent);
    // The type of the next one is full now; what stands behind it has its turn.
    let next = database
        .store
        .claim_due(runner.request(), 2)
        .await
        .expect("a claim");
    assert!(
        next.iter().any(|job| job.lease.job_id() == behind),
        "{next:?}"
    );
    assert_eq!(next.len(), 2, "the crowd fills the rest");
}
