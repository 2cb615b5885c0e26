//! What the database itself guards, tried as a superuser in psql would.

use jobs::{Outcome, Status};
use serde_json::json;
use sqlx::Row;
use sqlx::postgres::PgDatabaseError;
use uuid::Uuid;

use crate::database::{Database, TestRunner};

/// Brings a new job to `status` by legal steps only, by hand.
async fn job_in(database: &Database, status: Status) -> Uuid {
    let id = database.record("a").await.id;
    let steps: &[&'static str] = match status {
        Status::Queued => &[],
        Status::Running => &["update ops_jobs set status = 'running' where id = $1"],
        Status::Waiting => &[
            "update ops_jobs set status = 'running' where id = $1",
            "update ops_jobs set status = 'waiting' where id = $1",
        ],
        Status::Succeeded => &[
            "update ops_jobs set status = 'running' where id = $1",
            "update ops_jobs set status = 'succeeded' where id = $1",
        ],
        Status::Failed => &["update ops_jobs set status = 'failed' where id = $1"],
        Status::Aborted => &["update ops_jobs set status = 'aborted' where id = $1"],
    };
    for step in steps {
        assert_eq!(database.type_in(step, id).await.expect("a legal step"), 1);
    }
    id
}

fn refusal(error: &sqlx::Error) -> &PgDatabaseError {
    error
        .as_database_error()
        .expect("the database's own refusal")
        .downcast_ref::<PgDatabaseError>()
}

#[tokio::test]
async fn exactly_the_legal_ones_of_the_36_pairs_pass_by_hand_each_with_one_event() {
    let database = Database::new().await;
    for from in Status::ALL {
        for to in Status::ALL {
            let id = job_in(&database, from).await;
            let before = database.kinds(id).await;
            let done = sqlx::query("update ops_jobs set status = $2 where id = $1")
                .bind(id)
                .bind(to.as_str())
                .execute(&database.psql)
                .await;
            let after = database.kinds(id).await;
            match from.transition_to(to) {
                Some(kind) => {
                    assert_eq!(
                        done.expect("a legal transition").rows_affected(),
                        1,
                        "{from} to {to}"
                    );
                    assert_eq!(after.len(), before.len() + 1, "{from} to {to}");
                    assert_eq!(
                        after.last().map(String::as_str),
                        Some(kind),
                        "{from} to {to}"
                    );
                    let actor = database
                        .store
                        .events(id, 0, 100)
                        .await
                        .expect("events")
                        .pop()
                        .expect("one")
                        .actor;
                    let login: String = sqlx::query_scalar("select session_user::text")
                        .fetch_one(&database.psql)
                        .await
                        .expect("a login");
                    assert_eq!(actor, login, "{from} to {to}");
                }
                None => {
                    let error = done.expect_err("an illegal transition");
                    let refused = refusal(&error);
                    assert_eq!(refused.code(), "23514", "{from} to {to}");
                    let hint = refused.hint().expect("a hint");
                    assert!(
                        ["ops_abort(", "ops_retry(", "ops_enqueue("]
                            .iter()
                            .any(|f| hint.contains(f)),
                        "{hint}"
                    );
                    assert_eq!(after, before, "{from} to {to}");
                    assert_eq!(database.job(id).await.status, from);
                }
            }
        }
    }
}

#[tokio::test]
async fn the_transition_table_says_what_state_rs_says() {
    let database = Database::new().await;
    let rows = sqlx::query("select from_status, to_status, kind from ops_job_transitions")
        .fetch_all(&database.psql)
        .await
        .expect("the table");
    for from in Status::ALL {
        for to in Status::ALL {
            let in_sql = rows
                .iter()
                .find(|row| {
                    row.get::<&str, _>(0) == from.as_str() && row.get::<&str, _>(1) == to.as_str()
                })
                .map(|row| row.get::<&str, _>(2));
            assert_eq!(in_sql, from.transition_to(to), "{from} to {to}");
        }
    }
}

#[tokio::test]
async fn every_table_column_view_and_function_explains_itself() {
    let database = Database::new().await;
    let silent: Vec<String> = sqlx::query_scalar(
        "select c.relname || coalesce('.' || a.attname, '')
         from pg_class c
         left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relname like 'ops\\_%' and c.relkind in ('r', 'v', 'S')
           and (c.relkind <> 'S' and col_description(c.oid, a.attnum) is null or obj_description(c.oid, 'pg_class') is null)
         union all
         select p.proname from pg_proc p
         where p.proname like 'ops\\_%' and obj_description(p.oid, 'pg_proc') is null
         union all
         select i.relname from pg_class i
         join pg_index x on x.indexrelid = i.oid
         where i.relname like 'ops\\_%' and i.relname not like '%\\_pkey' and i.relname not like 'ops_schema%'
           and obj_description(i.oid, 'pg_class') is null",
    )
    .fetch_all(&database.psql)
    .await
    .expect("the catalogue");
    assert_eq!(silent, Vec::<String>::new());
    let tables: i64 = sqlx::query_scalar(
        "select count(*) from pg_class where relname like 'ops\\_%' and relkind = 'r'",
    )
    .fetch_one(&database.psql)
    .await
    .expect("the catalogue");
    assert!(tables >= 6, "the query above looked at nothing");
}

#[tokio::test]
async fn history_is_append_only_for_a_superuser_too() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    for sql in [
        "update ops_job_events set kind = 'x' where job_id = $1",
        "delete from ops_job_events where job_id = $1",
        "delete from ops_jobs where id = $1",
        "insert into ops_job_events (job_id, kind) values ($1, 'succeeded')",
        "insert into ops_job_events (job_id, kind) values ($1, 'lease_expired')",
    ] {
        let error = database.type_in(sql, id).await.expect_err(sql);
        assert_eq!(refusal(&error).code(), "23514", "{sql}");
    }
    for sql in [
        "truncate ops_job_events",
        "truncate ops_jobs",
        "delete from ops_job_transitions",
        "truncate ops_job_transitions",
    ] {
        let error = sqlx::query(sql)
            .execute(&database.psql)
            .await
            .expect_err(sql);
        assert_eq!(refusal(&error).code(), "23514", "{sql}");
    }
    assert_eq!(database.kinds(id).await, ["queued"]);
}

#[tokio::test]
async fn an_event_typed_in_by_hand_is_numbered_by_the_database() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    database
        .type_in("insert into ops_job_events (job_id, seq, kind, data) values ($1, 99, 'note', '{\"why\": \"looked at it\"}')", id)
        .await
        .expect("a note");
    database
        .type_in("update ops_jobs set status = 'running' where id = $1", id)
        .await
        .expect("a claim");
    assert_eq!(database.kinds(id).await, ["queued", "note", "running"]);
    let error = database
        .type_in(
            "insert into ops_job_events (job_id, kind) values (gen_random_uuid(), 'note')",
            id,
        )
        .await
        .expect_err("no such job");
    assert!(
        error.to_string().contains("parameter") || refusal(&error).code() == "P0002",
        "{error}"
    );
}

#[tokio::test]
async fn the_fence_only_grows_and_the_past_cannot_be_rewritten() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    TestRunner::new("r1", &["a"]).take(&database, id).await;
    for sql in [
        "update ops_jobs set fence = fence - 1 where id = $1",
        "update ops_jobs set id = gen_random_uuid() where id = $1",
        "update ops_jobs set job_type = 'b' where id = $1",
        "update ops_jobs set created_at = now() where id = $1",
        "update ops_jobs set created_by = 'me' where id = $1",
        "update ops_jobs set idempotency_key = 'k' where id = $1",
        "update ops_jobs set event_seq = event_seq + 1 where id = $1",
        "update ops_jobs set lease_expires_at = null where id = $1",
        "update ops_jobs set finished_at = now() where id = $1",
        "update ops_jobs set fence = fence + 1 where id = $1",
        "update ops_jobs set attempt = 2147483647 where id = $1",
        "update ops_jobs set lost_count = -9 where id = $1",
        "update ops_jobs set max_attempts = 0 where id = $1",
        "update ops_jobs set run_at = 'infinity' where id = $1",
        "update ops_jobs set labels = '{\"a\": 1}' where id = $1",
        "update ops_jobs set payload = '{\"a\": 1e400}' where id = $1",
    ] {
        let error = database.type_in(sql, id).await.expect_err(sql);
        assert_eq!(refusal(&error).code(), "23514", "{sql}");
    }
}

#[tokio::test]
async fn a_job_begins_as_queued_and_sane() {
    let database = Database::new().await;
    for sql in [
        "insert into ops_jobs (job_type, status) values ('a', 'running')",
        "insert into ops_jobs (job_type, status) values ('a', 'succeeded')",
        "insert into ops_jobs (job_type, attempt) values ('a', 1)",
        "insert into ops_jobs (job_type, fence) values ('a', 1)",
        "insert into ops_jobs (job_type) values ('A')",
        "insert into ops_jobs (job_type) values ('a b')",
        "insert into ops_jobs (job_type, queue) values ('a', 'no-dash')",
        "insert into ops_jobs (job_type, max_attempts) values ('a', 0)",
        "insert into ops_jobs (job_type, timeout_seconds) values ('a', 0)",
        "insert into ops_jobs (job_type, labels) values ('a', '[]')",
        "insert into ops_jobs (job_type, labels) values ('a', '{\"n\": 1}')",
        "insert into ops_jobs (job_type, run_at) values ('a', 'infinity')",
        "insert into ops_jobs (job_type, run_at) values ('a', '4000-01-01 BC')",
        "insert into ops_jobs (job_type, created_at) values ('a', '1999-01-01')",
        "insert into ops_jobs (job_type, idempotency_key) values ('a', '')",
        "insert into ops_jobs (job_type, payload) values ('a', '{\"a\": 1e30000}')",
        "insert into ops_jobs (job_type, payload) values ('a', (repeat('[', 65) || repeat(']', 65))::jsonb)",
    ] {
        let error = sqlx::query(sql)
            .execute(&database.psql)
            .await
            .expect_err(sql);
        assert_eq!(refusal(&error).code(), "23514", "{sql}");
    }
    let rows: i64 = sqlx::query_scalar("select count(*) from ops_jobs")
        .fetch_one(&database.psql)
        .await
        .expect("a count");
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_job_taken_away_by_hand_refuses_its_runner_afterwards() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    let leased = TestRunner::new("r1", &["a"]).take(&database, id).await;
    database
        .type_in("update ops_jobs set status = 'queued' where id = $1", id)
        .await
        .expect("legal by hand");
    let refused = database
        .store
        .finish(leased.lease, Outcome::Succeeded(json!(1)))
        .await
        .expect_err("stale");
    assert!(
        matches!(refused.error, jobs::StoreError::LeaseLost(_)),
        "{:?}",
        refused.error
    );
    assert_eq!(
        database.kinds(id).await,
        [
            "queued",
            "running",
            "retry_scheduled",
            "stale_result_refused"
        ]
    );
    assert_eq!(database.job(id).await.status, Status::Queued);
}

#[tokio::test]
async fn enqueue_is_transactional_and_idempotent_from_sql() {
    let database = Database::new().await;
    let mut transaction = database.psql.begin().await.expect("a transaction");
    sqlx::query("select ops_enqueue('a', '{}', priority => 5)")
        .execute(&mut *transaction)
        .await
        .expect("an id");
    transaction.rollback().await.expect("a rollback");
    let rows: i64 = sqlx::query_scalar("select count(*) from ops_jobs")
        .fetch_one(&database.psql)
        .await
        .expect("a count");
    assert_eq!(rows, 0, "rolled back with its transaction");

    let keyed = "select ops_enqueue('a', '{\"x\": 1, \"y\": 2}', idempotency_key => 'once')";
    let first: Uuid = sqlx::query_scalar(keyed)
        .fetch_one(&database.psql)
        .await
        .expect("an id");
    let again: Uuid = sqlx::query_scalar(
        "select ops_enqueue('a', '{\"y\": 2, \"x\": 1}', idempotency_key => 'once')",
    )
    .fetch_one(&database.psql)
    .await
    .expect("the same id");
    assert_eq!(first, again);
    let error = sqlx::query("select ops_enqueue('a', '{\"x\": 2}', idempotency_key => 'once')")
        .execute(&database.psql)
        .await
        .expect_err("another request");
    assert_eq!(refusal(&error).code(), "23505");
}

#[tokio::test]
async fn the_migrations_go_down_and_up_again() {
    let database = Database::new().await;
    database.record("a").await;
    let down = database.store.rollback_to(0).await.expect("all taken back");
    assert_eq!(down.current, 0);
    let left: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relname like 'ops\\_%' and relname not like 'ops_schema%'
         union all select proname::text from pg_proc where proname like 'ops\\_%'",
    )
    .fetch_all(&database.psql)
    .await
    .expect("the catalogue");
    assert_eq!(left, Vec::<String>::new(), "nothing of ours is left");
    let up = database.store.migrate().await.expect("applied again");
    assert!(up.is_expected());
    let versions: Vec<i64> = up
        .migrations
        .iter()
        .map(|migration| migration.version)
        .collect();
    for version in versions.iter().rev() {
        database
            .store
            .rollback_to(version - 1)
            .await
            .expect("one step down");
        database.store.migrate().await.expect("and up");
    }
    database.record("a").await;
}

#[tokio::test]
async fn a_running_job_is_aborted_from_a_trigger_of_the_users_own_too() {
    let database = Database::new().await;
    let id = database.record("a").await.id;
    TestRunner::new("r1", &["a"]).take(&database, id).await;
    sqlx::raw_sql(
        "create table stops (id uuid);
         create function stop() returns trigger language plpgsql as
         $$ begin perform ops_abort(new.id, 'from a trigger'); return null; end $$;
         create trigger stop after insert on stops for each row execute function stop();",
    )
    .execute(&database.psql)
    .await
    .expect("a trigger");
    database
        .type_in("insert into stops values ($1)", id)
        .await
        .expect("aborted");
    assert_eq!(
        database.kinds(id).await,
        ["queued", "running", "abort_requested"]
    );
}
