//! Stages in order, and gates that are decided once: at the database, by callers that race, and by people in psql.

use jobs::{
    Decision, DecisionRequest, GateState, GateTerms, Job, NewJob, NewStage, OnExpiry, Outcome,
    Part, RetryFrom, Status, StoreError, Verdict, apply_patch,
};
use serde_json::{Value, json};
use sqlx::postgres::PgDatabaseError;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::database::{Database, TestRunner, name};

fn stage(stage_name: &str, job_type: &str, gate: Option<GateTerms>) -> NewStage {
    NewStage {
        name: name(stage_name),
        job_type: Some(name(job_type)),
        payload: None,
        max_attempts: None,
        timeout_seconds: None,
        gate,
    }
}

async fn record(database: &Database, stages: Vec<NewStage>) -> Uuid {
    let new = NewJob {
        stages,
        ..NewJob::new(name("a"), json!({"of": "job"}))
    };
    database.record_with(new).await.id
}

/// A runner claims the job's stage and ends it so.
async fn run(database: &Database, id: Uuid, outcome: Outcome) -> Part {
    let leased = TestRunner::new("r1", &["a", "b"]).take(database, id).await;
    let part = leased.part.clone();
    database
        .store
        .finish(leased.lease, outcome)
        .await
        .expect("recorded");
    part
}

async fn succeed(database: &Database, id: Uuid, result: Value) -> Part {
    run(database, id, Outcome::Succeeded(result)).await
}

fn request<'a>(id: Uuid, decision: Decision, actor: &'a str) -> DecisionRequest<'a> {
    DecisionRequest {
        job_id: id,
        name: "draft",
        decision,
        actor,
        reason: Some("looked at it"),
        revision: None,
        document_hash: None,
        patch: None,
    }
}

async fn decide(database: &Database, id: Uuid, decision: Decision, actor: &str) -> Verdict {
    database
        .store
        .decide(&request(id, decision, actor))
        .await
        .expect("an answer")
}

async fn no_findings(database: &Database) {
    let mut findings = Vec::new();
    database
        .store
        .verify(|finding| findings.push(finding.to_string()))
        .await
        .expect("verified");
    assert_eq!(findings, Vec::<String>::new());
}

fn gated() -> Option<GateTerms> {
    Some(GateTerms::default())
}

#[tokio::test]
async fn stages_run_in_order_each_with_the_results_before_it() {
    let database = Database::new().await;
    let mut second = stage("send", "b", None);
    second.payload = Some(json!({"of": "stage"}));
    let id = record(&database, vec![stage("draft", "a", None), second]).await;
    let only_b = TestRunner::new("r2", &["b"]);
    let refused = database.store.claim_by_id(only_b.request(), id).await;
    assert!(
        matches!(refused, Err(StoreError::WrongType(_))),
        "{refused:?}"
    );
    assert!(
        database
            .store
            .claim_due(only_b.request(), 10)
            .await
            .expect("an answer")
            .is_empty(),
        "the first stage is of another type"
    );
    let Part::Stage(first) = succeed(&database, id, json!({"text": "x"})).await else {
        panic!("a stage");
    };
    assert_eq!(
        (first.no, first.name.as_str(), &first.earlier),
        (1, "draft", &json!([]))
    );
    assert_eq!(database.job(id).await.status, Status::Queued);
    assert_eq!(
        database.job(id).await.job_type,
        name("a"),
        "it never changes"
    );

    let mut taken = database
        .store
        .claim_due(only_b.request(), 10)
        .await
        .expect("an answer");
    let leased = taken.pop().expect("the second stage");
    assert_eq!(
        (leased.job_type.as_str(), &leased.payload),
        ("b", &json!({"of": "stage"}))
    );
    let Part::Stage(second) = &leased.part else {
        panic!("a stage");
    };
    assert_eq!(
        second.earlier,
        json!([{"name": "draft", "result": {"text": "x"}}])
    );
    database
        .store
        .finish(leased.lease, Outcome::Succeeded(json!(2)))
        .await
        .expect("recorded");
    let job = database.job(id).await;
    assert_eq!(
        (job.status, job.result),
        (Status::Succeeded, Some(json!(2)))
    );
    assert_eq!(
        database.kinds(id).await,
        [
            "queued",
            "running",
            "stage_succeeded",
            "stage_queued",
            "running",
            "stage_succeeded",
            "succeeded"
        ]
    );
    let stages = database.store.stages(id).await.expect("stages");
    assert_eq!(stages[0].result, Some(json!({"text": "x"})));
    assert_eq!(stages[0].payload, json!({"of": "job"}));
    assert!(stages[0].last_fence < stages[1].first_fence);
    no_findings(&database).await;
}

#[tokio::test]
async fn a_gate_is_rejected_with_a_patch_resumed_and_approved_with_another() {
    let database = Database::new().await;
    let id = record(
        &database,
        vec![stage("draft", "a", gated()), stage("send", "b", None)],
    )
    .await;
    succeed(&database, id, json!({"text": "bad"})).await;
    assert_eq!(database.job(id).await.status, Status::Waiting);
    let gate = database
        .store
        .gate(id, "draft")
        .await
        .expect("an answer")
        .expect("a gate");
    assert_eq!(
        (gate.state, gate.revision, &gate.document),
        (GateState::Open, 1, &json!({"text": "bad"}))
    );
    for early in [
        database.store.resume(id, "key:1", None).await,
        database.store.retry(id, "key:1", None).await,
    ] {
        assert!(
            matches!(early, Err(StoreError::WrongStatus { .. })),
            "{early:?}"
        );
    }

    let patch = json!([{"op": "add", "path": "/tone", "value": "kind"}]);
    let patched = apply_patch(&gate.payload, &patch).expect("it fits");
    let rejection = DecisionRequest {
        patch: Some((&patch, &patched)),
        revision: Some(1),
        ..request(id, Decision::Reject, "key:1")
    };
    assert_eq!(
        database.store.decide(&rejection).await.expect("an answer"),
        Verdict::Decided
    );
    assert_eq!(
        database.job(id).await.status,
        Status::Waiting,
        "until somebody resumes it"
    );
    assert_eq!(
        decide(&database, id, Decision::Approve, "key:2").await,
        Verdict::DecidedBefore
    );
    database
        .store
        .resume(id, "key:1", None)
        .await
        .expect("resumed");

    let leased = TestRunner::new("r1", &["a"]).take(&database, id).await;
    assert_eq!(leased.payload, json!({"of": "job", "tone": "kind"}));
    assert_eq!(leased.part.attempt(), Some(2));
    database
        .store
        .finish(leased.lease, Outcome::Succeeded(json!({"text": "good"})))
        .await
        .expect("recorded");
    let gate = database
        .store
        .gate(id, "draft")
        .await
        .expect("an answer")
        .expect("a gate");
    assert_eq!((gate.state, gate.revision), (GateState::Open, 2));
    let stale = DecisionRequest {
        revision: Some(1),
        ..request(id, Decision::Approve, "key:1")
    };
    assert_eq!(
        database.store.decide(&stale).await.expect("an answer"),
        Verdict::Changed
    );
    let other = "0".repeat(64);
    let stale = DecisionRequest {
        document_hash: Some(&other),
        ..request(id, Decision::Approve, "key:1")
    };
    assert_eq!(
        database.store.decide(&stale).await.expect("an answer"),
        Verdict::Changed
    );

    let patch = json!([{"op": "replace", "path": "/text", "value": "better"}]);
    let patched = apply_patch(&gate.document, &patch).expect("it fits");
    let approval = DecisionRequest {
        patch: Some((&patch, &patched)),
        document_hash: Some(&gate.document_hash),
        ..request(id, Decision::Approve, "key:2")
    };
    assert_eq!(
        database.store.decide(&approval).await.expect("an answer"),
        Verdict::Decided
    );
    let leased = TestRunner::new("r1", &["b"]).take(&database, id).await;
    let Part::Stage(second) = &leased.part else {
        panic!("a stage");
    };
    assert_eq!(
        second.earlier,
        json!([{"name": "draft", "result": {"text": "better"}}])
    );
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
            "stage_succeeded",
            "gate_opened",
            "gate_rejected",
            "resumed",
            "running",
            "stage_succeeded",
            "gate_opened",
            "gate_approved",
            "running",
            "stage_succeeded",
            "succeeded",
        ]
    );
    let events = database.store.events(id, 0, 100).await.expect("events");
    let approved = &events[9];
    assert_eq!(
        (approved.actor.as_str(), &approved.data["reason"]),
        ("key:2", &json!("looked at it"))
    );
    assert_eq!(
        (&approved.data["patch"], &approved.data["revision"]),
        (&patch, &json!(2))
    );
    no_findings(&database).await;
}

#[tokio::test]
async fn of_fifty_decisions_at_once_one_stands() {
    let database = Database::new().await;
    let id = record(
        &database,
        vec![stage("draft", "a", gated()), stage("send", "b", None)],
    )
    .await;
    succeed(&database, id, json!(1)).await;
    let mut deciding = JoinSet::new();
    for number in 0..50 {
        let store = database.store.clone();
        deciding.spawn(async move {
            let actor = format!("key:{number}");
            let decision = if number % 2 == 0 {
                Decision::Approve
            } else {
                Decision::Reject
            };
            store
                .decide(&request(id, decision, &actor))
                .await
                .expect("an answer")
        });
    }
    let verdicts = deciding.join_all().await;
    let stood = verdicts
        .iter()
        .filter(|verdict| **verdict == Verdict::Decided)
        .count();
    let late = verdicts
        .iter()
        .filter(|verdict| **verdict == Verdict::DecidedBefore)
        .count();
    assert_eq!((stood, late), (1, 49));
    let kinds = database.kinds(id).await;
    let told = kinds
        .iter()
        .filter(|kind| matches!(kind.as_str(), "gate_approved" | "gate_rejected"))
        .count();
    assert_eq!(told, 1, "{kinds:?}");
    no_findings(&database).await;
}

#[tokio::test]
async fn a_gate_after_the_last_stage_is_waited_for_too_and_then_nothing_is_run_again() {
    let database = Database::new().await;
    let id = record(&database, vec![stage("draft", "a", gated())]).await;
    succeed(&database, id, json!({"x": 1})).await;
    assert_eq!(
        decide(&database, id, Decision::Approve, "key:1").await,
        Verdict::Decided
    );
    assert_eq!(succeed(&database, id, Value::Null).await, Part::End);
    let job = database.job(id).await;
    assert_eq!(
        (job.status, job.result),
        (Status::Succeeded, Some(json!({"x": 1})))
    );
    assert_eq!(
        database.store.stages(id).await.expect("stages")[0].attempts,
        1
    );
    no_findings(&database).await;
}

#[tokio::test]
async fn nothing_typed_into_psql_passes_an_open_gate() {
    let database = Database::new().await;
    let id = record(
        &database,
        vec![stage("draft", "a", gated()), stage("send", "b", None)],
    )
    .await;
    succeed(&database, id, json!(1)).await;
    for sql in [
        "update ops_jobs set status = 'queued' where id = $1",
        "update ops_jobs set status = 'running' where id = $1",
        "update ops_jobs set status = 'succeeded' where id = $1",
        "update ops_gates set document = '2' where job_id = $1",
        "update ops_gates set approvals_needed = 0 where job_id = $1",
        "delete from ops_gates where job_id = $1",
        "delete from ops_job_stages where job_id = $1",
        "update ops_job_stages set job_type = 'b' where job_id = $1",
        "update ops_job_stages set gate = null where job_id = $1",
        "select ops_resume($1)",
        "insert into ops_job_events (job_id, kind) values ($1, 'gate_approved')",
        "insert into ops_job_events (job_id, kind) values ($1, 'gate_rejected')",
    ] {
        let error = database.type_in(sql, id).await.expect_err(sql);
        let code = error
            .as_database_error()
            .expect("a refusal")
            .downcast_ref::<PgDatabaseError>()
            .code();
        assert_eq!(code, "23514", "{sql}: {error}");
    }
    // Put right at once, as other columns that the database keeps.
    database
        .type_in(
            "update ops_jobs set stage_no = 2, stage_type = 'b' where id = $1",
            id,
        )
        .await
        .expect("taken");
    assert_eq!(database.job(id).await.stage.map(|stage| stage.no), Some(1));
    assert_eq!(database.job(id).await.status, Status::Waiting);

    database
        .type_in(
            "select ops_approve($1, 'draft', 'by hand', '{\"edited\": true}')",
            id,
        )
        .await
        .expect("approved");
    let stages = database.store.stages(id).await.expect("stages");
    assert_eq!(stages[0].result, Some(json!({"edited": true})));
    let error = database
        .type_in("select ops_reject($1, 'draft')", id)
        .await
        .expect_err("decided");
    assert!(
        error.to_string().contains("a decision stands already"),
        "{error}"
    );
    let error = database
        .type_in(
            "update ops_gates set state = 'rejected' where job_id = $1",
            id,
        )
        .await
        .expect_err("decided");
    assert!(error.to_string().contains("is decided"), "{error}");
    no_findings(&database).await;
}

#[tokio::test]
async fn time_decides_by_the_databases_clock_and_only_once() {
    let database = Database::new().await;
    let by_time = |auto: Option<i32>, expires: Option<i32>, on_expiry| GateTerms {
        auto_approve_after_seconds: auto,
        expires_after_seconds: expires,
        on_expiry,
        ..GateTerms::default()
    };
    let mut jobs = Vec::new();
    for terms in [
        by_time(Some(0), None, None),
        by_time(None, Some(0), None),
        by_time(None, Some(0), Some(OnExpiry::Approve)),
        by_time(None, Some(0), Some(OnExpiry::Reject)),
        by_time(Some(3600), Some(7200), None),
    ] {
        let id = record(
            &database,
            vec![stage("draft", "a", Some(terms)), stage("send", "b", None)],
        )
        .await;
        succeed(&database, id, json!(1)).await;
        jobs.push(id);
    }
    let mut sweeping = JoinSet::new();
    for number in 0..8 {
        let store = database.store.clone();
        sweeping.spawn(async move {
            store
                .settle_gates(&format!("sweep:{number}"))
                .await
                .expect("swept")
        });
    }
    assert_eq!(sweeping.join_all().await.into_iter().sum::<u64>(), 4);
    let mut found = Vec::new();
    for id in &jobs {
        let gate = database
            .store
            .gate(*id, "draft")
            .await
            .expect("an answer")
            .expect("a gate");
        found.push((database.job(*id).await.status, gate.state, gate.automatic));
    }
    assert_eq!(
        found,
        [
            (Status::Queued, GateState::Approved, true),
            (Status::Aborted, GateState::Expired, true),
            (Status::Queued, GateState::Approved, true),
            (Status::Waiting, GateState::Rejected, true),
            (Status::Waiting, GateState::Open, false),
        ]
    );
    assert_eq!(
        database.kinds(jobs[1]).await[4..],
        ["gate_expired", "aborted"]
    );
    no_findings(&database).await;
}

#[tokio::test]
async fn a_person_who_comes_too_late_finds_what_time_decided() {
    let database = Database::new().await;
    let terms = GateTerms {
        auto_approve_after_seconds: Some(0),
        ..GateTerms::default()
    };
    let id = record(
        &database,
        vec![stage("draft", "a", Some(terms)), stage("send", "b", None)],
    )
    .await;
    succeed(&database, id, json!(1)).await;
    assert_eq!(
        decide(&database, id, Decision::Reject, "key:1").await,
        Verdict::DecidedBefore
    );
    assert_eq!(database.job(id).await.status, Status::Queued);
}

#[tokio::test]
async fn the_rules_of_a_type_hold_beside_those_of_the_job() {
    let database = Database::new().await;
    sqlx::query("insert into ops_gate_rules (job_type, approvals, not_requester, only_keys) values ('b', 2, true, '{key:1,key:2,key:test}')")
        .execute(&database.psql)
        .await
        .expect("a rule");
    let terms = GateTerms {
        auto_approve_after_seconds: Some(0),
        expires_after_seconds: Some(3600),
        on_expiry: Some(OnExpiry::Approve),
        ..GateTerms::default()
    };
    let id = record(&database, vec![stage("draft", "b", Some(terms))]).await;
    succeed(&database, id, json!(1)).await;
    let gate = database
        .store
        .gate(id, "draft")
        .await
        .expect("an answer")
        .expect("a gate");
    assert_eq!(
        (gate.auto_approve_at, gate.on_expiry),
        (None, OnExpiry::Abort),
        "time may not approve"
    );
    for (actor, verdict) in [
        ("key:9", Verdict::NotNamed),
        ("key:test", Verdict::Requester),
        ("key:1", Verdict::Counted),
        ("key:1", Verdict::ApprovedBefore),
        ("key:2", Verdict::Decided),
    ] {
        assert_eq!(
            decide(&database, id, Decision::Approve, actor).await,
            verdict,
            "{actor}"
        );
    }
    assert_eq!(
        database.kinds(id).await[3..],
        [
            "gate_opened",
            "gate_approval",
            "gate_approval",
            "gate_approved"
        ]
    );
    let gate = database
        .store
        .gate(id, "draft")
        .await
        .expect("an answer")
        .expect("a gate");
    assert_eq!(gate.approved_by, ["key:1", "key:2"]);
    no_findings(&database).await;
}

#[tokio::test]
async fn a_stage_that_fails_fails_the_job_by_its_name_and_a_retry_goes_on_from_it_or_from_the_start()
 {
    let database = Database::new().await;
    let id = record(
        &database,
        vec![stage("draft", "a", gated()), stage("send", "b", None)],
    )
    .await;
    succeed(&database, id, json!("first")).await;
    decide(&database, id, Decision::Approve, "key:1").await;
    run(&database, id, Outcome::Failed("no route".to_owned())).await;
    let job = database.job(id).await;
    assert_eq!(
        (job.status, job.error.as_deref()),
        (Status::Failed, Some("stage send: no route"))
    );

    database
        .store
        .retry(id, "key:1", None)
        .await
        .expect("retried");
    let leased = TestRunner::new("r1", &["a", "b"]).take(&database, id).await;
    let Part::Stage(again) = &leased.part else {
        panic!("a stage");
    };
    assert_eq!((again.name.as_str(), again.attempt), ("send", 1));
    assert_eq!(again.earlier, json!([{"name": "draft", "result": "first"}]));
    database
        .store
        .finish(leased.lease, Outcome::Failed("again".to_owned()))
        .await
        .expect("recorded");

    database
        .store
        .retry_from(id, RetryFrom::Start, "key:1", None)
        .await
        .expect("retried");
    succeed(&database, id, json!("second")).await;
    let gate = database
        .store
        .gate(id, "draft")
        .await
        .expect("an answer")
        .expect("a gate");
    assert_eq!(
        (gate.state, gate.revision),
        (GateState::Open, 2),
        "the gate is to be passed again"
    );
    no_findings(&database).await;
}

#[tokio::test]
async fn each_stage_has_its_own_attempts_and_a_lost_one_is_run_again() {
    let database = Database::new().await;
    let mut patient = stage("draft", "a", None);
    patient.max_attempts = Some(2);
    let id = record(&database, vec![patient, stage("send", "b", None)]).await;
    run(&database, id, Outcome::Retry("later".to_owned())).await;
    database
        .type_in(
            "update ops_jobs set run_at = clock_timestamp() where id = $1",
            id,
        )
        .await
        .expect("due");
    let leased = TestRunner::new("r1", &["a"]).take(&database, id).await;
    assert_eq!(leased.part.attempt(), Some(2));
    database
        .store
        .finish(leased.lease, Outcome::Succeeded(json!(1)))
        .await
        .expect("recorded");
    let leased = TestRunner::new("r1", &["b"]).take(&database, id).await;
    assert_eq!(
        (
            leased.part.attempt(),
            leased.lease.attempt(),
            leased.max_attempts
        ),
        (Some(1), 3, 3)
    );
    database
        .type_in("update ops_jobs set lease_expires_at = clock_timestamp() - interval '1 second' where id = $1", id)
        .await
        .expect("lost");
    database.store.recover("sweep:r2").await.expect("swept");
    let job = database.job(id).await;
    assert_eq!(job.status, Status::Failed, "its only attempt");
    assert!(
        job.error
            .as_deref()
            .is_some_and(|error| error.starts_with("stage send: runner r1 was lost")),
        "{job:?}"
    );
    no_findings(&database).await;
}

#[tokio::test]
async fn an_abort_closes_the_gate_and_a_wished_for_one_begins_nothing_more() {
    let database = Database::new().await;
    let id = record(
        &database,
        vec![stage("draft", "a", gated()), stage("send", "b", None)],
    )
    .await;
    succeed(&database, id, json!(1)).await;
    database
        .store
        .abort(id, "key:1", None)
        .await
        .expect("aborted");
    let gate = database
        .store
        .gate(id, "draft")
        .await
        .expect("an answer")
        .expect("a gate");
    assert_eq!(gate.state, GateState::Closed);
    assert_eq!(
        decide(&database, id, Decision::Approve, "key:1").await,
        Verdict::DecidedBefore
    );

    let id = record(
        &database,
        vec![stage("draft", "a", None), stage("send", "b", None)],
    )
    .await;
    let leased = TestRunner::new("r1", &["a"]).take(&database, id).await;
    database
        .store
        .abort(id, "key:1", None)
        .await
        .expect("asked for");
    let finished = database
        .store
        .finish(leased.lease, Outcome::Succeeded(json!(1)))
        .await
        .expect("recorded");
    assert_eq!(finished.status, Status::Aborted);
    no_findings(&database).await;
}

#[tokio::test]
async fn a_runner_that_knows_no_stages_gets_none_of_them() {
    let database = Database::new().await;
    let id = record(&database, vec![stage("draft", "a", None)]).await;
    let plain = database.record("a").await.id;
    // The claim of the release before, as far as it matters here.
    let taken: Vec<Uuid> = sqlx::query_scalar(
        "with acting as materialized (select set_config('ops.actor', 'runner:old', true) as actor)
         update ops_jobs j set status = 'running', runner_id = 'old'
         from acting a where j.id = any($1) and a.actor is not null
         returning j.id",
    )
    .bind([id, plain])
    .fetch_all(&database.psql)
    .await
    .expect("a claim");
    assert_eq!(taken, [plain]);
    let mut off = TestRunner::new("r1", &["a"]);
    off.lease = std::time::Duration::from_secs(30);
    let request = jobs::ClaimRequest {
        stages: false,
        ..off.request()
    };
    assert!(
        database
            .store
            .claim_due(request, 10)
            .await
            .expect("an answer")
            .is_empty()
    );
    assert!(matches!(
        database.store.claim_by_id(request, id).await,
        Err(StoreError::WrongType(_))
    ));
    assert_eq!(database.kinds(id).await, ["queued"]);
}

#[tokio::test]
async fn jobs_with_stages_are_recorded_once_under_a_key_and_whole_or_not_at_all_in_a_batch() {
    let database = Database::new().await;
    let keyed = |stages| NewJob {
        stages,
        idempotency_key: Some("once".to_owned()),
        ..NewJob::new(name("a"), json!({}))
    };
    let new = keyed(vec![stage("draft", "a", None)]);
    let mut submitting = JoinSet::new();
    for _ in 0..10 {
        let (store, new) = (database.store.clone(), new.clone());
        submitting.spawn(async move { store.submit(new, "key:1").await.expect("recorded") });
    }
    let answers = submitting.join_all().await;
    let created = answers
        .iter()
        .filter(|answer| matches!(answer, jobs::Submitted::Created(_)))
        .count();
    assert_eq!(created, 1);
    let other = database
        .store
        .submit(keyed(vec![stage("other", "a", None)]), "key:1")
        .await;
    assert!(
        matches!(other, Err(StoreError::IdempotencyConflict(_))),
        "{other:?}"
    );

    let staged = NewJob {
        stages: vec![stage("draft", "a", gated())],
        ..NewJob::new(name("a"), json!(1))
    };
    let batch = [staged.clone(), NewJob::new(name("b"), json!(2)), staged];
    let recorded: Vec<Job> = database
        .store
        .submit_batch(&batch, "key:1")
        .await
        .expect("recorded");
    let payloads: Vec<&Value> = recorded.iter().map(|job| &job.payload).collect();
    assert_eq!(payloads, [&json!(1), &json!(2), &json!(1)]);
    assert!(recorded.iter().all(|job| job.created_by == "key:1"));
    let twice = NewJob {
        stages: vec![stage("same", "a", None), stage("same", "a", None)],
        ..NewJob::new(name("a"), json!(3))
    };
    let refused = database
        .store
        .submit_batch(&[batch[0].clone(), twice], "key:1")
        .await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    let orphans: i64 = sqlx::query_scalar(
        "select count(*) from ops_job_stages s where not exists (select from ops_jobs j where j.id = s.job_id)",
    )
    .fetch_one(&database.psql)
    .await
    .expect("a count");
    assert_eq!(orphans, 0);
}

#[tokio::test]
async fn what_a_stage_leaves_stays_while_later_ones_run() {
    let database = Database::new().await;
    let id = record(
        &database,
        vec![stage("draft", "a", None), stage("send", "b", None)],
    )
    .await;
    for (file_no, stage_name, job_type) in [(1, "draft", "a"), (2, "send", "b")] {
        let leased = TestRunner::new("r1", &[job_type]).take(&database, id).await;
        let key = leased.lease.key();
        let file = jobs::NewFile {
            id: Uuid::from_u128(file_no),
            name: format!("{stage_name}.txt"),
            content_type: "text/plain".to_owned(),
            object: None,
        };
        database
            .store
            .begin_artifact(key, &file)
            .await
            .expect("begun");
        sqlx::query("update ops_files set size = 0, sha256 = sha256(''), crc32 = 0 where id = $1")
            .bind(file.id)
            .execute(&database.psql)
            .await
            .expect("whole");
        database
            .store
            .finish(leased.lease, Outcome::Succeeded(json!(1)))
            .await
            .expect("recorded");
        database.store.forget_earlier(key).await.expect("forgotten");
    }
    let shown: Vec<(String, String)> =
        sqlx::query_as("select stage, name from ops_artifacts where job_id = $1 order by name")
            .bind(id)
            .fetch_all(&database.psql)
            .await
            .expect("the artifacts");
    let expected = [("draft", "draft.txt"), ("send", "send.txt")];
    assert_eq!(shown, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}
