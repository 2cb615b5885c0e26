//! Transitions that a statement prepares by itself: the same rows and events as the guard makes, and no way around it.

use jobs::{NewJob, Outcome};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use crate::database::{Database, TestRunner, name};

/// What a claim writes, column by column.
const CLAIM: [(&str, &str); 14] = [
    ("status", "'running'"),
    ("runner_id", "'r1'"),
    (
        "lease_expires_at",
        "clock_timestamp() + interval '30 seconds'",
    ),
    ("moved", "'running'"),
    ("event_seq", "j.event_seq + 1"),
    ("attempt", "j.attempt + 1"),
    ("fence", "greatest(nextval('ops_fence'), j.fence + 1)"),
    ("updated_at", "c.at"),
    ("started_at", "c.at"),
    ("heartbeat_at", "c.at"),
    ("finished_at", "null"),
    ("progress", "null"),
    ("abort_requested_at", "null"),
    ("left_runner_id", "null"),
];

/// What a finish writes.
const FINISH: [(&str, &str); 10] = [
    ("status", "'succeeded'"),
    ("result", "'null'"),
    ("moved", "'succeeded'"),
    ("event_seq", "j.event_seq + 1"),
    ("updated_at", "c.at"),
    ("finished_at", "c.at"),
    ("lease_expires_at", "null"),
    ("held_at", "null"),
    ("error", "null"),
    ("left_runner_id", "null"),
];

/// Such a statement, with one more assignment, or another for the same column.
fn with(assignments: &[(&str, &str)], column: &str, value: &str) -> String {
    let kept = assignments.iter().filter(|(name, _)| *name != column);
    let all: Vec<String> = kept
        .chain([&(column, value)])
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    format!(
        "update ops_jobs j set {} from (select clock_timestamp() as at) c where j.id = $1",
        all.join(", ")
    )
}

impl Database {
    /// Does it as the runner `r1`, and gives how many rows it changed.
    async fn as_runner(&self, id: Uuid, statement: String) -> Result<u64, sqlx::Error> {
        let mut connection = self.psql.acquire().await?;
        let mut transaction = connection.begin().await?;
        // As every session that claims, it has taken a fence before.
        sqlx::query("select set_config('ops.actor', 'runner:r1', true), nextval('ops_fence')")
            .execute(&mut *transaction)
            .await?;
        let done = sqlx::query(AssertSqlSafe(statement)).bind(id);
        let done = done.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected())
    }

    /// The row and its events, without what differs from one job to the next.
    async fn likeness(&self, id: Uuid) -> Value {
        let row = "
            select to_jsonb(j) - array['id', 'fence', 'created_at', 'run_at', 'claim_order', 'boot_id', 'payload', 'lease_expires_at',
                'started_at', 'heartbeat_at', 'updated_at', 'finished_at']
              || jsonb_build_object(
                'fence grew', j.fence > 0, 'leased', j.lease_expires_at is not null,
                'started', j.started_at is not null, 'begun with a sign of life', j.heartbeat_at = j.started_at,
                'ended when it changed', j.finished_at = j.updated_at,
                'events', (
                  select jsonb_agg(
                    to_jsonb(e) - array['job_id', 'at', 'data']
                    || jsonb_build_object('data', e.data - array['fence', 'waited_ms', 'ran_ms', 'run_at'], 'names', (
                      select jsonb_agg(d.key order by d.key) from jsonb_each(e.data) d where jsonb_typeof(d.value) is not null
                    ))
                    order by e.seq)
                  from ops_job_events e where e.job_id = j.id
                ),
                'told when it changed', (
                  select e.at = j.updated_at from ops_job_events e where e.job_id = j.id and e.seq = j.event_seq
                )
              )
            from ops_jobs j where j.id = $1";
        let row = sqlx::query_scalar(row).bind(id);
        row.fetch_one(&self.psql).await.expect("a row")
    }
}

#[tokio::test]
async fn claims_and_finishes_leave_what_the_guard_makes_of_a_plain_update() {
    let database = Database::new().await;
    let runner = TestRunner::new("r1", &["a"]);
    let mut new = NewJob::new(name("a"), json!({}));
    new.queue = name("quick");
    let prepared = database.record_with(new.clone()).await.id;
    let by_hand = database.record_with(new).await.id;

    let leased = runner.take(&database, prepared).await;
    let claim = "update ops_jobs set status = 'running', runner_id = 'r1', max_attempts_by_type = false where id = $1";
    let claimed = database.as_runner(by_hand, claim.to_owned());
    assert_eq!(claimed.await.expect("claimed"), 1);
    assert_eq!(
        database.likeness(prepared).await,
        database.likeness(by_hand).await
    );

    let ended = Outcome::Succeeded(json!({"made": 1}));
    database
        .store
        .finish(leased.lease, ended)
        .await
        .expect("finished");
    let finish = "update ops_jobs set status = 'succeeded', result = '{\"made\": 1}' where id = $1";
    let finished = database.as_runner(by_hand, finish.to_owned());
    assert_eq!(finished.await.expect("finished"), 1);
    assert_eq!(
        database.likeness(prepared).await,
        database.likeness(by_hand).await
    );
}

#[tokio::test]
async fn the_guard_is_called_for_whatever_is_not_prepared_and_for_nothing_else() {
    let database = Database::new().await;
    let runner = TestRunner::new("r1", &["a"]);
    let ids: Vec<Uuid> = [database.record("a").await, database.record("a").await]
        .iter()
        .map(|job| job.id)
        .collect();
    sqlx::raw_sql(
        "create or replace function ops_guard_job() returns trigger language plpgsql as $$
         begin raise exception 'the guard was called'; end $$",
    )
    .execute(&database.psql)
    .await
    .expect("a guard that tells");
    let claimed = database.store.claim_due(runner.request(), 10).await;
    let claimed = claimed.expect("claimed without the guard");
    assert_eq!(claimed.len(), 2);
    for leased in claimed {
        let ended = Outcome::Succeeded(json!(null));
        let finished = database.store.finish(leased.lease, ended).await;
        finished.expect("finished without the guard");
    }
    for id in ids {
        assert_eq!(database.kinds(id).await, ["queued", "running", "succeeded"]);
    }
    for by_hand in [
        "update ops_jobs set status = 'running' where id = $1",
        "update ops_jobs set status = 'aborted' where id = $1",
        "update ops_jobs set attempt = 7 where id = $1",
    ] {
        let id = sqlx::query_scalar("select ops_enqueue('a')");
        let id: Uuid = id.fetch_one(&database.psql).await.expect("a job");
        let refused = database.type_in(by_hand, id).await.expect_err(by_hand);
        assert!(
            refused.to_string().contains("the guard was called"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_claim_that_pretends_is_made_what_the_guard_makes_of_it() {
    let database = Database::new().await;
    let honest = database.record("a").await.id;
    let done = database.as_runner(honest, with(&CLAIM, "", "")).await;
    assert_eq!(done.expect("claimed"), 1);
    let expected = database.likeness(honest).await;
    for (column, value) in [
        ("attempt", "j.attempt"),
        ("attempt", "j.attempt + 5"),
        ("event_seq", "j.event_seq"),
        ("event_seq", "j.event_seq + 2"),
        ("fence", "j.fence"),
        ("fence", "nextval('ops_fence') + 1000000"),
        ("moved", "'succeeded'"),
        ("moved", "null"),
        ("updated_at", "c.at - interval '1 hour'"),
        ("updated_at", "c.at + interval '1 hour'"),
        ("started_at", "c.at - interval '1 hour'"),
        ("heartbeat_at", "c.at + interval '1 hour'"),
        ("finished_at", "c.at"),
        ("progress", "'{}'"),
        ("abort_requested_at", "c.at"),
        ("left_runner_id", "'r9'"),
        ("lost_count", "j.lost_count + 1"),
        ("released_count", "j.released_count + 1"),
    ] {
        let id = database.record("a").await.id;
        let statement = with(&CLAIM, column, value);
        let done = database.as_runner(id, statement).await;
        assert_eq!(done.expect("set right"), 1, "{column} = {value}");
        assert_eq!(database.likeness(id).await, expected, "{column} = {value}");
        let fits = "
            select j.fence <= (select last_value from ops_fence)
              and j.started_at between now() - interval '1 minute' and now()
            from ops_jobs j where j.id = $1";
        let fits = sqlx::query_scalar(fits).bind(id);
        let fits: bool = fits.fetch_one(&database.psql).await.expect("a row");
        assert!(fits, "{column} = {value}");
    }
    for (column, value) in [
        ("id", "gen_random_uuid()"),
        ("job_type", "'b'"),
        ("created_at", "j.created_at - interval '1 hour'"),
        ("created_by", "'key:other'"),
        ("idempotency_key", "'another'"),
    ] {
        let id = database.record("a").await.id;
        let refused = database.as_runner(id, with(&CLAIM, column, value)).await;
        let refused = refused.expect_err(column).to_string();
        assert!(refused.contains("never change"), "{column}: {refused}");
    }
}

#[tokio::test]
async fn a_claim_whose_session_never_took_a_fence_is_refused() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let mut session = PgConnection::connect(&database.url)
        .await
        .expect("a session");
    let claim = AssertSqlSafe(with(&CLAIM, "fence", "j.fence + 1"));
    let refused = sqlx::query(claim).bind(id).execute(&mut session).await;
    let refused = refused.expect_err("a fence of its own making").to_string();
    assert!(refused.contains("ops_fence"), "{refused}");
    assert_eq!(database.kinds(id).await, ["queued"]);
}

#[tokio::test]
async fn a_finish_that_pretends_is_made_what_the_guard_makes_of_it() {
    let database = Database::new().await;
    let running = async || {
        let id = database.record("a").await.id;
        let done = database.as_runner(id, with(&CLAIM, "", "")).await;
        assert_eq!(done.expect("claimed"), 1);
        id
    };
    let honest = running().await;
    let done = database.as_runner(honest, with(&FINISH, "", "")).await;
    assert_eq!(done.expect("finished"), 1);
    let expected = database.likeness(honest).await;
    for (column, value) in [
        ("attempt", "j.attempt + 1"),
        ("event_seq", "j.event_seq + 7"),
        ("moved", "'running'"),
        ("updated_at", "c.at - interval '1 hour'"),
        ("updated_at", "c.at + interval '1 hour'"),
        ("finished_at", "c.at - interval '1 hour'"),
        ("lease_expires_at", "c.at"),
        ("held_at", "c.at"),
        ("error", "'none'"),
        ("left_runner_id", "'r9'"),
        ("lost_count", "j.lost_count + 2"),
        ("released_count", "j.released_count + 1"),
    ] {
        let id = running().await;
        let done = database.as_runner(id, with(&FINISH, column, value)).await;
        assert_eq!(done.expect("set right"), 1, "{column} = {value}");
        assert_eq!(database.likeness(id).await, expected, "{column} = {value}");
    }

    // The fence is a claim's; and whoever is not the runner takes it away.
    let id = running().await;
    let refused = database.as_runner(id, with(&FINISH, "fence", "j.fence + 1"));
    let refused = refused.await.expect_err("a fence by hand").to_string();
    assert!(refused.contains("only grows, by claims"), "{refused}");
    let fence = "select fence from ops_jobs where id = $1";
    let fence = async || -> i64 {
        let fence = sqlx::query_scalar(fence).bind(id);
        fence.fetch_one(&database.psql).await.expect("a row")
    };
    let before = fence().await;
    let done = sqlx::query(AssertSqlSafe(with(&FINISH, "", ""))).bind(id);
    let done = done
        .execute(&database.psql)
        .await
        .expect("finished by a login");
    assert_eq!(done.rows_affected(), 1);
    assert!(fence().await > before);
}
