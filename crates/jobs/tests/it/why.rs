//! Why a job is where it is: every state that a job may be in before its end has a true reason.

use std::time::Duration;

use jobs::{NewJob, Outcome, Reason, RunnerReport, StoreError};
use serde_json::json;
use uuid::Uuid;

use crate::database::{Database, TestRunner, name};

const STALL_AFTER: Duration = Duration::from_secs(20);

async fn why(database: &Database, id: Uuid) -> Vec<Reason> {
    let reasons = database.store.why(id, &[], STALL_AFTER).await;
    let reasons = reasons.expect("an answer");
    for reason in &reasons {
        assert!(
            reason.message.ends_with('.') || reason.message.contains(": "),
            "{reason:?}"
        );
        assert!(
            !reason.remedy.is_empty() && reason.data.is_object(),
            "{reason:?}"
        );
    }
    reasons
}

async fn codes(database: &Database, id: Uuid) -> Vec<String> {
    let reasons = why(database, id).await;
    reasons.into_iter().map(|reason| reason.code).collect()
}

/// A living runner: what it tells of itself.
async fn report(database: &Database, runner: &TestRunner, slots: i32, poll: Option<u64>) {
    let job_types: Vec<String> = runner
        .types
        .iter()
        .map(|terms| terms.job_type.to_string())
        .collect();
    let report = RunnerReport {
        runner: &runner.identity,
        version: "1",
        job_types: &job_types,
        slots_total: slots,
        slots_used: 0,
        draining: false,
        poll: poll.map(Duration::from_secs),
        types: &runner.types,
    };
    assert!(database.store.report_runner(report).await.expect("written"));
}

async fn by_hand(database: &Database, sql: &'static str, id: Uuid) {
    assert_eq!(database.type_in(sql, id).await.expect("done"), 1);
}

#[tokio::test]
async fn a_queued_job_waits_for_a_runner_for_its_time_and_for_its_flag() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let reasons = why(&database, id).await;
    assert_eq!((reasons.len(), reasons[0].code.as_str()), (1, "no_runner"));
    assert_eq!(reasons[0].data, json!({"job_type": "a"}));

    let runner = TestRunner::new("r1", &["a"]);
    report(&database, &runner, 2, Some(5)).await;
    let reasons = why(&database, id).await;
    assert_eq!(reasons[0].code, "due");
    assert_eq!(reasons[0].data["looks_every_seconds"], json!(5));
    // It is true: a claim takes it. Another one stays queued.
    let other = database.record("a").await.id;
    runner.take(&database, id).await;
    assert_eq!(codes(&database, other).await, ["due"]);

    by_hand(
        &database,
        "update ops_jobs set run_at = now() + interval '1 hour' where id = $1",
        other,
    )
    .await;
    let reasons = why(&database, other).await;
    assert_eq!(reasons[0].code, "not_due");
    assert!(reasons[0].data["until"].is_string());

    let closed = [("a", "FEATURE_A")];
    let reasons = database.store.why(other, &closed, STALL_AFTER).await;
    let reasons = reasons.expect("an answer");
    assert_eq!(
        (reasons[0].code.as_str(), &reasons[0].data["flag"]),
        ("flag_off", &json!("FEATURE_A"))
    );
    assert_eq!(reasons[1].code, "not_due");

    sqlx::query("update ops_runners set last_seen_at = now() - interval '2 minutes'")
        .execute(&database.psql)
        .await
        .expect("silent");
    let third = database.record("a").await.id;
    let reasons = why(&database, third).await;
    assert_eq!(reasons[0].code, "no_runner");
    assert!(reasons[0].data["since"].is_string(), "{reasons:?}");
    assert_eq!(reasons[0].data["runners"][0]["runner_id"], "r1");
}

#[tokio::test]
async fn a_queued_job_waits_for_the_fleet_to_be_resumed() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    report(&database, &TestRunner::new("r1", &["a"]), 2, Some(5)).await;
    let paused = database.store.pause_fleet("key:test", Some("moving")).await;
    paused.expect("paused");
    let reasons = why(&database, id).await;
    assert_eq!(
        (reasons.len(), reasons[0].code.as_str()),
        (1, "fleet_paused")
    );
    assert_eq!(
        (&reasons[0].data["paused_by"], &reasons[0].data["reason"]),
        (&json!("key:test"), &json!("moving"))
    );
}

#[tokio::test]
async fn a_queued_job_waits_for_others_of_its_type_for_slots_and_for_those_before_it() {
    let database = Database::new().await;
    let mut runner = TestRunner::new("r1", &["a", "b"]);
    runner.types[0].concurrency = Some(1);
    report(&database, &runner, 2, Some(5)).await;
    let first = database.record("a").await.id;
    runner.take(&database, first).await;
    let second = database.record("a").await.id;
    let reasons = why(&database, second).await;
    assert_eq!(
        (reasons.len(), reasons[0].code.as_str()),
        (1, "concurrency")
    );
    assert_eq!(reasons[0].data["jobs"][0]["job_id"], json!(first));

    let filler = database.record("b").await.id;
    assert_eq!(codes(&database, filler).await, ["jobs_ahead"]);
    runner.take(&database, filler).await;
    let reasons = why(&database, second).await;
    let found: Vec<_> = reasons.iter().map(|reason| reason.code.as_str()).collect();
    assert_eq!(found, ["concurrency", "slots_taken"]);
    assert_eq!(
        reasons[1].data["runners"][0],
        json!({"runner_id": "r1", "slots_used": 2, "slots_total": 2, "full": true})
    );
    let last = database.record("b").await.id;
    let reasons = why(&database, last).await;
    let found: Vec<_> = reasons.iter().map(|reason| reason.code.as_str()).collect();
    assert_eq!(found, ["slots_taken", "jobs_ahead"]);
    assert_eq!(reasons[1].data, json!({"jobs": 1, "more": false}));

    // The limit that holds is the one that runners have now, not the one that was once.
    runner.types[0].concurrency = Some(2);
    report(&database, &runner, 3, Some(5)).await;
    assert_eq!(codes(&database, second).await, ["due"]);
}

#[tokio::test]
async fn a_job_that_was_lost_before_waits_for_an_empty_runner_and_others_behind_it() {
    let database = Database::new().await;
    let doomed = TestRunner {
        lease: Duration::ZERO,
        ..TestRunner::new("doomed", &["a"])
    };
    let mut new = NewJob::new(name("a"), json!({}));
    new.max_attempts = Some(5);
    let poison = database.record_with(new).await.id;
    doomed.take(&database, poison).await;
    let reasons = why(&database, poison).await;
    let found: Vec<_> = reasons.iter().map(|reason| reason.code.as_str()).collect();
    assert_eq!(found, ["lease_ran_out", "running"]);
    database.store.sweep("sweep:r1").await.expect("swept");
    let busy = TestRunner::new("busy", &["a"]);
    report(&database, &busy, 4, Some(5)).await;
    let good = database.record("a").await.id;
    busy.take(&database, good).await;
    by_hand(
        &database,
        "update ops_jobs set run_at = now() - interval '11 seconds' where id = $1",
        poison,
    )
    .await;
    assert_eq!(codes(&database, poison).await, ["runs_alone"]);
    let behind = database.record("a").await.id;
    let reasons = why(&database, behind).await;
    assert_eq!(reasons[0].code, "behind_one_that_runs_alone");
    assert_eq!(reasons[0].data["job_id"], json!(poison));
}

#[tokio::test]
async fn a_lost_job_of_a_type_with_a_limit_is_in_the_way_of_its_own_type_only() {
    let database = Database::new().await;
    let mut runner = TestRunner::new("r1", &["a", "b"]);
    runner.types[1].concurrency = Some(2);
    report(&database, &runner, 9, Some(5)).await;
    let holder = database.record("a").await.id;
    runner.take(&database, holder).await;
    let doomed = TestRunner {
        lease: Duration::ZERO,
        ..TestRunner::new("doomed", &["b"])
    };
    let mut new = NewJob::new(name("b"), json!({}));
    new.max_attempts = Some(5);
    let poison = database.record_with(new).await.id;
    doomed.take(&database, poison).await;
    database.store.sweep("sweep:r1").await.expect("swept");
    by_hand(
        &database,
        "update ops_jobs set run_at = now() - interval '11 seconds' where id = $1",
        poison,
    )
    .await;
    let other = database.record("a").await.id;
    let own = database.record("b").await.id;
    assert_eq!(codes(&database, other).await, ["jobs_ahead"]);
    assert_eq!(
        codes(&database, own).await,
        ["behind_one_that_runs_alone", "jobs_ahead"]
    );
    runner.at_work = 1;
    let taken = database.store.claim_due(runner.request(), 5).await;
    let taken: Vec<_> = taken
        .expect("an answer")
        .iter()
        .map(|leased| leased.lease.job_id())
        .collect();
    assert_eq!(taken, [other], "what was said is what happens");
}

#[tokio::test]
async fn a_job_that_nobody_looks_for_says_so_and_what_its_last_trigger_came_to() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    report(&database, &TestRunner::new("r1", &["a"]), 2, None).await;
    let noted = database.store.note_trigger(id, "unreachable").await;
    noted.expect("noted");
    let reasons = why(&database, id).await;
    let found: Vec<_> = reasons.iter().map(|reason| reason.code.as_str()).collect();
    assert_eq!(found, ["nobody_looks", "last_trigger"]);
    assert_eq!(reasons[1].data["outcome"], "unreachable");
    report(&database, &TestRunner::new("r2", &["a"]), 2, Some(5)).await;
    assert_eq!(codes(&database, id).await, ["due", "last_trigger"]);
}

#[tokio::test]
async fn a_failed_attempt_and_a_time_to_live_that_ran_out_are_told() {
    let database = Database::new().await;
    let runner = TestRunner::new("r1", &["a"]);
    report(&database, &runner, 2, Some(5)).await;
    let mut new = NewJob::new(name("a"), json!({}));
    new.max_attempts = Some(3);
    let id = database.record_with(new).await.id;
    let leased = runner.take(&database, id).await;
    let failed = Outcome::Retry("no disk".to_owned());
    database
        .store
        .finish(leased.lease, failed)
        .await
        .expect("recorded");
    // The part of the backoff that was drawn may be next to nothing.
    by_hand(
        &database,
        "update ops_jobs set run_at = now() + interval '1 hour' where id = $1",
        id,
    )
    .await;
    let reasons = why(&database, id).await;
    assert_eq!(reasons[0].code, "not_due");
    assert_eq!(
        (&reasons[0].data["error"], &reasons[0].data["attempt"]),
        (&json!("no disk"), &json!(1))
    );
    let id = database.record("a").await.id;
    by_hand(
        &database,
        "update ops_jobs set expires_at = now() where id = $1",
        id,
    )
    .await;
    assert_eq!(codes(&database, id).await, ["outlived"]);
}

#[tokio::test]
async fn a_running_job_says_who_runs_it_whether_it_is_silent_and_who_asked_for_its_end() {
    let database = Database::new().await;
    let runner = TestRunner::new("r1", &["a"]);
    let id = database.record("a").await.id;
    runner.take(&database, id).await;
    let reasons = why(&database, id).await;
    assert_eq!((reasons.len(), reasons[0].code.as_str()), (1, "running"));
    assert_eq!(reasons[0].data["runner_id"], "r1");
    by_hand(
        &database,
        "update ops_jobs set heartbeat_at = now() - interval '21 seconds' where id = $1",
        id,
    )
    .await;
    assert_eq!(codes(&database, id).await, ["stalled", "running"]);
    let longer = database.store.why(id, &[], Duration::from_secs(60)).await;
    assert_eq!(longer.expect("an answer")[0].code, "running");
    let asked = database.store.abort(id, "key:test", Some("late")).await;
    asked.expect("asked for");
    let reasons = why(&database, id).await;
    let found: Vec<_> = reasons.iter().map(|reason| reason.code.as_str()).collect();
    assert_eq!(found, ["abort_requested", "stalled", "running"]);
    assert_eq!(
        (&reasons[0].data["actor"], &reasons[0].data["reason"]),
        (&json!("key:test"), &json!("late"))
    );
}

#[tokio::test]
async fn a_waiting_job_says_for_what() {
    let database = Database::new().await;
    let doomed = TestRunner {
        lease: Duration::ZERO,
        ..TestRunner::new("doomed", &["a"])
    };
    let mut doomed = doomed;
    doomed.types[0].on_lost = jobs::OnLost::Hold;
    let held = database.record("a").await.id;
    doomed.take(&database, held).await;
    database.store.sweep("sweep:r1").await.expect("swept");
    assert_eq!(codes(&database, held).await, ["held"]);
    let gate = database.record("a").await.id;
    by_hand(
        &database,
        "update ops_jobs set status = 'running' where id = $1",
        gate,
    )
    .await;
    by_hand(
        &database,
        "update ops_jobs set status = 'waiting' where id = $1",
        gate,
    )
    .await;
    assert_eq!(codes(&database, gate).await, ["gate"]);
}

#[tokio::test]
async fn a_job_that_has_ended_says_how() {
    let database = Database::new().await;
    let runner = TestRunner::new("r1", &["a"]);
    let mut ended = Vec::new();
    for (max_attempts, outcome) in [
        (1, Outcome::Succeeded(json!(1))),
        (3, Outcome::Failed("broken".to_owned())),
        (1, Outcome::Retry("broken".to_owned())),
    ] {
        let mut new = NewJob::new(name("a"), json!({}));
        new.max_attempts = Some(max_attempts);
        let id = database.record_with(new).await.id;
        let leased = runner.take(&database, id).await;
        let done = database.store.finish(leased.lease, outcome).await;
        done.expect("recorded");
        ended.push(why(&database, id).await.remove(0));
    }
    let id = database.record("a").await.id;
    let aborted = database.store.abort(id, "key:test", Some("late")).await;
    aborted.expect("aborted");
    ended.push(why(&database, id).await.remove(0));
    let found: Vec<_> = ended.iter().map(|reason| reason.code.as_str()).collect();
    assert_eq!(found, ["succeeded", "failed", "dead_lettered", "aborted"]);
    assert_eq!(ended[1].data["error"], "broken");
    assert_eq!(
        (&ended[3].data["actor"], &ended[3].data["reason"]),
        (&json!("key:test"), &json!("late"))
    );
    let nobody = database.store.why(Uuid::nil(), &[], STALL_AFTER).await;
    assert!(matches!(nobody, Err(StoreError::NotFound(_))));
}

/// What may keep a job from being claimed, all at once or none.
#[derive(Clone, Copy, Debug)]
struct Obstacles {
    paused: bool,
    early: bool,
    outlived: bool,
    lost: bool,
    full: bool,
    busy: bool,
}

impl Obstacles {
    fn all() -> impl Iterator<Item = Self> {
        (0..64).map(|bits| {
            let is = |bit: u32| bits & (1 << bit) != 0;
            Self {
                paused: is(0),
                early: is(1),
                outlived: is(2),
                lost: is(3),
                full: is(4),
                busy: is(5),
            }
        })
    }

    async fn put_before(self, database: &Database, runner: &TestRunner, id: Uuid) {
        if self.lost {
            let doomed = TestRunner {
                lease: Duration::ZERO,
                ..TestRunner::new("doomed", &["a"])
            };
            doomed.take(database, id).await;
            database.store.sweep("sweep:r1").await.expect("swept");
        }
        if self.full {
            let holder = database.record("a").await.id;
            runner.take(database, holder).await;
        }
        if self.busy {
            let other = database.record("b").await.id;
            runner.take(database, other).await;
        }
        if self.early {
            let sql = "update ops_jobs set run_at = now() + interval '1 hour' where id = $1";
            by_hand(database, sql, id).await;
        } else {
            let sql = "update ops_jobs set run_at = now() where id = $1";
            by_hand(database, sql, id).await;
        }
        if self.outlived {
            let sql = "update ops_jobs set expires_at = now() where id = $1";
            by_hand(database, sql, id).await;
        }
        if self.paused {
            let paused = database.store.pause_fleet("key:test", None).await;
            paused.expect("paused");
        }
    }
}

#[tokio::test]
async fn what_is_said_to_keep_a_job_is_what_keeps_it() {
    let database = Database::new().await;
    let mut runner = TestRunner::new("r1", &["a", "b"]);
    runner.types[0].concurrency = Some(1);
    report(&database, &runner, 9, Some(5)).await;
    for obstacles in Obstacles::all() {
        let mut new = NewJob::new(name("a"), json!({}));
        new.max_attempts = Some(9);
        let id = database.record_with(new).await.id;
        obstacles.put_before(&database, &runner, id).await;
        let said = codes(&database, id).await;
        runner.at_work = usize::from(obstacles.full) + usize::from(obstacles.busy);
        let claimed = database.store.claim_by_id(runner.request(), id).await;
        let keeps = |code: &str| said.iter().any(|said| said == code);
        let keeping = [
            "fleet_paused",
            "not_due",
            "outlived",
            "runs_alone",
            "concurrency",
        ];
        match claimed {
            Ok(_) => assert!(!keeping.into_iter().any(keeps), "{obstacles:?}: {said:?}"),
            Err(StoreError::FleetPaused { .. }) => assert!(keeps("fleet_paused"), "{said:?}"),
            Err(StoreError::NotDue(_)) => assert!(keeps("not_due"), "{obstacles:?}: {said:?}"),
            Err(StoreError::Outlived(_)) => assert!(keeps("outlived"), "{obstacles:?}: {said:?}"),
            Err(StoreError::RunsAlone(_)) => assert!(keeps("runs_alone"), "{said:?}"),
            Err(StoreError::ConcurrencyReached(_)) => assert!(keeps("concurrency"), "{said:?}"),
            Err(error) => panic!("{obstacles:?}: {error}"),
        }
        let told = [
            (obstacles.paused, "fleet_paused"),
            (obstacles.outlived, "outlived"),
            (obstacles.early, "not_due"),
            (obstacles.full, "concurrency"),
        ];
        for (there, code) in told {
            assert_eq!(there, keeps(code), "{obstacles:?}: {code}: {said:?}");
        }
        // Nothing of it is left for the next.
        let resumed = database.store.resume_fleet("key:test", None).await;
        resumed.expect("resumed");
        sqlx::query("update ops_jobs set status = 'aborted' where status in ('queued', 'running')")
            .execute(&database.psql)
            .await
            .expect("cleared away");
    }
}
