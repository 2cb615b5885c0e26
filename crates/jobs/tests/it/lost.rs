//! Runners that come back under their name, and lost jobs that wait for a person.

use std::time::Duration;

use jobs::{
    Admission, NewJob, OnLost, Outcome, RunnerIdentity, RunnerReport, Status, StoreError, TypeTerms,
};
use serde_json::json;
use uuid::Uuid;

use crate::database::{Database, TestRunner, name};

const LEASE: Duration = Duration::from_secs(30);

fn start_of(id: &str, boot: u128) -> TestRunner {
    let mut runner = TestRunner::new(id, &["a"]);
    runner.identity.boot_id = Uuid::from_u128(boot);
    runner
}

fn report(runner: &RunnerIdentity) -> RunnerReport<'_> {
    RunnerReport {
        runner,
        version: "1",
        job_types: &[],
        slots_total: 1,
        slots_used: 0,
        draining: false,
        poll: None,
        types: &[],
    }
}

async fn admit(
    database: &Database,
    runner: &TestRunner,
    dead: Option<u128>,
    silence: Duration,
) -> bool {
    let dead = dead.map(Uuid::from_u128);
    let answer = database
        .store
        .admit_runner(report(&runner.identity), dead, silence)
        .await;
    answer.expect("an answer") == Admission::Admitted
}

#[tokio::test]
async fn a_name_is_free_once_its_bearer_is_known_to_be_dead_or_silent_for_long_enough() {
    let database = Database::new().await;
    let [first, second, third] = [1, 2, 3].map(|boot| start_of("r1", boot));
    assert!(admit(&database, &first, None, LEASE).await);
    assert!(!admit(&database, &second, None, LEASE).await);
    assert!(!admit(&database, &second, Some(7), LEASE).await);
    assert!(admit(&database, &second, Some(1), LEASE).await);
    let reports = [
        database.store.report_runner(report(&first.identity)).await,
        database.store.report_runner(report(&second.identity)).await,
    ];
    assert_eq!(
        reports.map(|report| report.expect("an answer")),
        [false, true],
        "the first hears that its name is gone"
    );
    assert!(!admit(&database, &third, None, LEASE).await);
    assert!(admit(&database, &third, None, Duration::ZERO).await);
}

#[tokio::test]
async fn of_many_that_want_one_name_one_gets_it() {
    let database = Database::new().await;
    let mut racing = tokio::task::JoinSet::new();
    for boot in 1..=8 {
        let store = database.store.clone();
        racing.spawn(async move {
            let runner = start_of("r1", boot);
            let asked = store.admit_runner(report(&runner.identity), None, LEASE);
            asked.await.expect("an answer") == Admission::Admitted
        });
    }
    let admitted = racing.join_all().await.into_iter().filter(|&won| won);
    assert_eq!(admitted.count(), 1);
}

#[tokio::test]
async fn a_restarted_runner_gives_back_what_its_earlier_start_ran_and_nothing_else() {
    let database = Database::new().await;
    let new = || NewJob {
        max_attempts: Some(3),
        ..NewJob::new(name("a"), json!({}))
    };
    let (old, own, others) = (
        database.record_with(new()).await.id,
        database.record_with(new()).await.id,
        database.record_with(new()).await.id,
    );
    let [before, after] = [1, 2].map(|boot| start_of("r1", boot));
    let late = before.take(&database, old).await;
    after.take(&database, own).await;
    start_of("r2", 1).take(&database, others).await;
    let taken = database.store.take_over(&after.identity).await;
    assert_eq!(taken.expect("an answer"), 1);
    let job = database.job(old).await;
    assert_eq!((job.status, job.attempt), (Status::Queued, 1));
    assert!(
        job.error
            .as_deref()
            .is_some_and(|error| error.contains("runner r1 was lost: it was started anew")),
        "{:?}",
        job.error
    );
    assert_eq!(
        database.kinds(old).await,
        ["queued", "running", "lease_expired", "retry_scheduled"]
    );
    for id in [own, others] {
        assert_eq!(database.job(id).await.status, Status::Running);
    }
    let late = database
        .store
        .finish(late.lease, Outcome::Succeeded(json!("late")))
        .await;
    assert!(matches!(
        late.expect_err("stale").error,
        StoreError::LeaseLost(_)
    ));
}

fn holding() -> TestRunner {
    TestRunner {
        types: vec![TypeTerms {
            on_lost: OnLost::Hold,
            ..TypeTerms::new(name("a"))
        }],
        lease: Duration::ZERO,
        ..TestRunner::new("r1", &[])
    }
}

#[tokio::test]
async fn a_held_job_waits_for_a_person_who_resumes_it() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    holding().take(&database, id).await;
    let swept = database.store.sweep("sweep:r2").await.expect("a sweep");
    assert_eq!(swept.recovered, 1);
    let job = database.job(id).await;
    assert_eq!((job.status, job.runner_id), (Status::Waiting, None));
    assert!(
        job.error
            .is_some_and(|error| error.contains("runner r1 was lost"))
    );
    let again = database.store.sweep("sweep:r2").await.expect("a sweep");
    assert_eq!(again.recovered, 0);
    database
        .store
        .resume(id, "key:test", Some("looked at it"))
        .await
        .expect("resumed");
    let second = database.store.resume(id, "key:test", None).await;
    assert!(
        matches!(
            second,
            Err(StoreError::WrongStatus {
                status: Status::Queued,
                ..
            })
        ),
        "{second:?}"
    );
    let leased = TestRunner::new("r2", &["a"]).take(&database, id).await;
    assert_eq!((leased.lease.attempt(), leased.max_attempts), (2, 2));
    database
        .store
        .finish(leased.lease, Outcome::Succeeded(json!(1)))
        .await
        .expect("recorded");
    assert_eq!(
        database.kinds(id).await,
        [
            "queued",
            "running",
            "lease_expired",
            "held",
            "resumed",
            "running",
            "succeeded"
        ]
    );
    let events = database.store.events(id, 0, 10).await.expect("events");
    assert_eq!(
        (events[4].actor.as_str(), &events[4].data["reason"]),
        ("key:test", &json!("looked at it"))
    );
}

#[tokio::test]
async fn only_held_jobs_are_resumed_and_a_third_loss_holds_nothing() {
    let database = Database::new().await;
    let gate = database.record("a").await.id;
    for step in [
        "update ops_jobs set status = 'running' where id = $1",
        "update ops_jobs set status = 'waiting' where id = $1",
    ] {
        database.type_in(step, gate).await.expect("a legal step");
    }
    let refused = database.store.resume(gate, "key:test", None).await;
    assert!(
        matches!(refused, Err(StoreError::WrongStatus { .. })),
        "{refused:?}"
    );
    let unknown = database
        .store
        .resume(Uuid::from_u128(7), "key:test", None)
        .await;
    assert!(
        matches!(unknown, Err(StoreError::NotFound(_))),
        "{unknown:?}"
    );

    let id = database.record("a").await.id;
    for lost in 1..=3 {
        holding().take(&database, id).await;
        database.store.sweep("sweep:r2").await.expect("a sweep");
        if lost < 3 {
            let resumed = database.store.resume(id, "key:test", None).await;
            resumed.expect("resumed");
        }
    }
    assert_eq!(database.job(id).await.status, Status::Failed);
    let forged = database
        .type_in(
            "insert into ops_job_events (job_id, kind) values ($1, 'held')",
            id,
        )
        .await;
    assert!(forged.is_err(), "only the database writes it");
}
