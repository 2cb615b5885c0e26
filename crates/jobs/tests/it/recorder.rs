//! What the recorder writes: one proper event a transition, however the statement is made, with the documented data.

use jobs::Status;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::database::{Database, TestRunner};

async fn keys_of_last(database: &Database, id: Uuid, count: usize) -> Vec<(String, Vec<String>)> {
    let events = database.store.events(id, 0, 1000).await.expect("an answer");
    events[events.len() - count..]
        .iter()
        .map(|event| {
            let Value::Object(data) = &event.data else {
                panic!("an object: {event:?}");
            };
            (event.kind.clone(), data.keys().cloned().collect())
        })
        .collect()
}

#[tokio::test]
async fn the_guards_own_list_is_the_table_of_transitions() {
    let database = Database::new().await;
    for from in Status::ALL {
        for to in Status::ALL {
            let kind: Option<String> = sqlx::query_scalar("select ops_transition_kind($1, $2)")
                .bind(from.as_str())
                .bind(to.as_str())
                .fetch_one(&database.psql)
                .await
                .expect("an answer");
            assert_eq!(kind.as_deref(), from.transition_to(to), "{from} to {to}");
        }
    }
}

#[tokio::test]
async fn one_statement_over_many_rows_writes_each_its_own_event_and_renewals_none() {
    let database = Database::new().await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(database.record("a").await.id);
    }
    let psql = &database.psql;
    sqlx::query("update ops_jobs set status = 'running'")
        .execute(psql)
        .await
        .expect("claims");
    for _ in 0..2 {
        sqlx::query("update ops_jobs set heartbeat_at = now()")
            .execute(psql)
            .await
            .expect("renewals");
    }
    sqlx::query(
        "update ops_jobs j set
           status = c.next, error = 'e',
           attempt = case when c.place = 4 then attempt - 1 else attempt end,
           dead_lettered_at = case when c.place = 3 then now() end
         from unnest($1::uuid[], array['succeeded', 'queued', 'failed', 'queued', 'waiting', 'aborted'])
           with ordinality as c (id, next, place)
         where j.id = c.id",
    )
    .bind(&ids)
    .execute(psql)
    .await
    .expect("six kinds of ends");
    sqlx::query("update ops_jobs set labels = '{\"seen\": \"yes\"}'")
        .execute(psql)
        .await
        .expect("no transition");
    let kinds: [&[&str]; 6] = [
        &["succeeded"],
        &["retry_scheduled"],
        &["failed", "dead_lettered"],
        &["released"],
        &["gate_opened"],
        &["aborted"],
    ];
    for (id, ends) in ids.iter().zip(kinds) {
        let expected = [&["queued", "running"], ends].concat();
        assert_eq!(database.kinds(*id).await, expected);
    }
    let verified = database.store.verify(|finding| panic!("{finding}")).await;
    assert_eq!(verified.expect("an answer").jobs, 6);
}

#[tokio::test]
async fn transitions_of_one_function_or_transaction_are_told_apart() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    sqlx::raw_sql(
        "do $$ begin
           update ops_jobs set status = 'running';
           update ops_jobs set heartbeat_at = clock_timestamp();
           update ops_jobs set priority = 3;
           update ops_jobs set status = 'queued';
           update ops_jobs set priority = 4;
           update ops_jobs set status = 'running', runner_id = 'r9';
           update ops_jobs set moved = 'succeeded', left_runner_id = 'forged';
           update ops_jobs set status = 'succeeded', moved = 'failed';
         end $$",
    )
    .execute(&database.psql)
    .await
    .expect("done");
    assert_eq!(
        database.kinds(id).await,
        [
            "queued",
            "running",
            "retry_scheduled",
            "running",
            "succeeded"
        ]
    );
    let events = database.store.events(id, 0, 10).await.expect("events");
    let runners: Vec<Option<&str>> = events
        .iter()
        .map(|event| event.runner_id.as_deref())
        .collect();
    assert_eq!(runners[3..], [Some("r9"), Some("r9")]);
    assert_eq!(runners[1], runners[2], "who was left is named");
}

#[tokio::test]
async fn each_kind_carries_the_documented_data() {
    let database = Database::new().await;
    let common = ["attempt", "job_type", "max_attempts", "queue"];
    let with = |more: &[&str]| {
        let mut keys: Vec<String> = common
            .iter()
            .chain(more)
            .map(|key| (*key).to_owned())
            .collect();
        keys.sort();
        keys
    };
    let id = database.record("a").await.id;
    let step = async |sql: &'static str, expected: &[(&str, Vec<String>)]| {
        let mut connection = database.psql.begin().await.expect("a transaction");
        for part in sql.split(';') {
            sqlx::raw_sql(sqlx::AssertSqlSafe(part.to_owned()))
                .execute(&mut *connection)
                .await
                .expect(sql);
        }
        connection.commit().await.expect("committed");
        let expected: Vec<(String, Vec<String>)> = expected
            .iter()
            .map(|(kind, keys)| ((*kind).to_owned(), keys.clone()))
            .collect();
        assert_eq!(
            keys_of_last(&database, id, expected.len()).await,
            expected,
            "{sql}"
        );
    };
    step(
        "update ops_jobs set status = 'running'",
        &[("running", with(&["fence", "waited_ms"]))],
    )
    .await;
    step(
        "update ops_jobs set status = 'queued', error = 'e'",
        &[("retry_scheduled", with(&["error", "ran_ms", "run_at"]))],
    )
    .await;
    step(
        "set local ops.reason = 'why'; update ops_jobs set status = 'running'",
        &[("running", with(&["fence", "reason", "waited_ms"]))],
    )
    .await;
    step(
        "update ops_jobs set status = 'queued', attempt = attempt - 1",
        &[("released", with(&["error", "ran_ms", "run_at"]))],
    )
    .await;
    step(
        "update ops_jobs set status = 'running'",
        &[("running", with(&["fence", "waited_ms"]))],
    )
    .await;
    step(
        "set local ops.cause = 'lease_expired'; update ops_jobs set status = 'waiting', error = 'lost'",
        &[
            ("lease_expired", with(&["error", "ran_ms"])),
            ("held", with(&["error", "ran_ms"])),
        ],
    )
    .await;
    step(
        "update ops_jobs set status = 'queued'",
        &[("resumed", with(&["run_at"]))],
    )
    .await;
    step(
        "update ops_jobs set status = 'failed', error = 'refused'",
        &[("failed", with(&["error"]))],
    )
    .await;
    step(
        "set local ops.reason = 'again'; update ops_jobs set status = 'queued'",
        &[("replayed", with(&["reason", "run_at"]))],
    )
    .await;
    step(
        "set local ops.cause = 'abort_requested'; update ops_jobs set status = 'aborted'",
        &[("abort_requested", with(&[])), ("aborted", with(&[]))],
    )
    .await;
    step(
        "update ops_jobs set status = 'queued'; update ops_jobs set status = 'running'",
        &[("running", with(&["fence", "waited_ms"]))],
    )
    .await;
    step(
        "set local ops.cause = 'lease_expired'; update ops_jobs set status = 'failed', error = 'e', dead_lettered_at = now()",
        &[
            ("lease_expired", with(&["error", "ran_ms"])),
            ("failed", with(&["error", "ran_ms"])),
            ("dead_lettered", with(&["error", "ran_ms"])),
        ],
    )
    .await;
    let attempts: Vec<(String, i32)> = database
        .store
        .events(id, 0, 100)
        .await
        .expect("events")
        .into_iter()
        .filter(|event| event.kind == "released")
        .map(|event| (event.kind, event.attempt))
        .collect();
    assert_eq!(
        attempts,
        [("released".to_owned(), 2)],
        "a release belongs to its attempt"
    );
}

#[tokio::test]
async fn a_whole_life_costs_as_many_events_as_it_has_transitions() {
    let database = Database::new().await;
    let runner = TestRunner::new("r1", &["a"]);
    for _ in 0..20 {
        database.record("a").await;
    }
    let taken = database
        .store
        .claim_due(runner.request(), 20)
        .await
        .expect("an answer");
    for leased in taken {
        let outcome = jobs::Outcome::Succeeded(json!({}));
        database
            .store
            .finish(leased.lease, outcome)
            .await
            .expect("recorded");
    }
    let events: i64 = sqlx::query_scalar("select count(*) from ops_job_events")
        .fetch_one(&database.psql)
        .await
        .expect("a count");
    assert_eq!(events, 60);
}
