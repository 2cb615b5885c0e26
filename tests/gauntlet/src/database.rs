//! The suite's own look into PostgreSQL, past all proxies: what stands there, and which backends there are.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row as _};
use uuid::Uuid;

use crate::history::{Chunk, Event, History, Row};
use crate::terms::CANARY;

const PAUSE: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(60);

/// A connection, once there is one to be had.
async fn connection(url: &str) -> PgConnection {
    let begun = std::time::Instant::now();
    loop {
        match PgConnection::connect(url).await {
            Ok(connection) => return connection,
            Err(error) => assert!(
                begun.elapsed() < LIMIT,
                "PostgreSQL does not answer: {error}"
            ),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until PostgreSQL answers again.
pub(crate) async fn answers(url: &str) {
    drop(connection(url).await);
}

/// The first moment in which it accepts again.
pub(crate) async fn accepts(url: &str) -> std::time::Instant {
    drop(connection(url).await);
    std::time::Instant::now()
}

/// The status of a job.
pub(crate) async fn status(url: &str, job: Uuid) -> Option<String> {
    sqlx::query_scalar("select status from ops_jobs where id = $1")
        .bind(job)
        .fetch_optional(&mut connection(url).await)
        .await
        .ok()?
}

/// How many jobs a runner is running.
pub(crate) async fn running_on(url: &str, runner: &str) -> i64 {
    sqlx::query_scalar("select count(*) from ops_jobs where status = 'running' and runner_id = $1")
        .bind(runner)
        .fetch_one(&mut connection(url).await)
        .await
        .unwrap_or(0)
}

/// One of the backends that serve the programs.
pub(crate) async fn a_backend(url: &str, victim: usize) -> Option<i32> {
    let pids: Vec<i32> = sqlx::query_scalar(
        "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() order by pid",
    )
    .fetch_all(&mut connection(url).await)
    .await
    .ok()?;
    pids.get(victim % pids.len().max(1)).copied()
}

/// Ends a backend as an administrator does.
pub(crate) async fn terminate(url: &str, pid: i32) {
    // It may have ended meanwhile.
    let _ = sqlx::query("select pg_terminate_backend($1)")
        .bind(pid)
        .execute(&mut connection(url).await)
        .await;
}

/// How many jobs have not ended.
pub(crate) async fn unsettled(url: &str) -> Option<i64> {
    sqlx::query_scalar("select count(*) from ops_jobs where status in ('queued', 'running')")
        .fetch_one(&mut connection(url).await)
        .await
        .ok()
}

/// How many sessions the programs have.
pub(crate) async fn sessions(url: &str) -> i64 {
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() and datname = current_database()",
    )
    .fetch_one(&mut connection(url).await)
    .await
    .expect("a count")
}

/// Advisory locks, and sessions that wait in a transaction.
pub(crate) async fn held(url: &str) -> (i64, i64) {
    let row = sqlx::query(
        "select (select count(*) from pg_locks where locktype = 'advisory') as locks, (select count(*) from pg_stat_activity where state like 'idle in transaction%') as idle",
    )
    .fetch_one(&mut connection(url).await)
    .await
    .expect("two counts");
    (row.get("locks"), row.get("idle"))
}

/// The tables in which a secret stands.
pub(crate) async fn canaries(url: &str) -> Vec<String> {
    let mut connection = connection(url).await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname = 'public'",
    )
    .fetch_all(&mut connection)
    .await
    .expect("the tables");
    let mut found = Vec::new();
    for table in tables {
        let count =
            format!("select count(*) from {table} as seen where seen::text like '%' || $1 || '%'");
        // The name comes from the catalogue and is quoted there.
        let seen: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count))
            .bind(CANARY)
            .fetch_one(&mut connection)
            .await
            .expect("a count");
        if seen > 0 {
            found.push(format!("{seen} rows of {table}"));
        }
    }
    found
}

/// Reads all rows, events and stored output into the history.
pub(crate) async fn read(url: &str, history: &mut History) {
    let mut connection = connection(url).await;
    let rows = sqlx::query(
        "select id, job_type, status, attempt, max_attempts, runner_id, fence, idempotency_key, started_at, finished_at, dead_lettered_at from ops_jobs",
    )
    .fetch_all(&mut connection)
    .await
    .expect("the jobs");
    for row in rows {
        let id: Uuid = row.get("id");
        history.rows.insert(
            id,
            Row {
                job_type: row.get("job_type"),
                status: row.get("status"),
                attempt: row.get("attempt"),
                max_attempts: row.get("max_attempts"),
                runner: row.get("runner_id"),
                fence: row.get("fence"),
                key: row.get("idempotency_key"),
                started_at: row.get("started_at"),
                finished_at: row.get("finished_at"),
                dead_lettered_at: row.get("dead_lettered_at"),
            },
        );
    }
    let events = sqlx::query(
        "select job_id, seq, kind, at, attempt, runner_id, actor, data from ops_job_events order by job_id, seq",
    )
    .fetch_all(&mut connection)
    .await
    .expect("the events");
    for event in events {
        let id: Uuid = event.get("job_id");
        history.events.entry(id).or_default().push(Event {
            seq: event.get("seq"),
            kind: event.get("kind"),
            at: event.get("at"),
            attempt: event.get("attempt"),
            runner: event.get("runner_id"),
            actor: event.get("actor"),
            data: event.get("data"),
        });
    }
    read_logs(&mut connection, history).await;
}

async fn read_logs(connection: &mut PgConnection, history: &mut History) {
    let chunks = sqlx::query(
        "select job_id, fence, chunk, stream, first_line, lines, body from ops_job_log order by job_id, fence, chunk",
    )
    .fetch_all(connection)
    .await
    .expect("the output");
    for chunk in chunks {
        let claim: (Uuid, i64) = (chunk.get("job_id"), chunk.get("fence"));
        history.logs.entry(claim).or_default().push(Chunk {
            number: chunk.get("chunk"),
            stream: chunk.get("stream"),
            first_line: chunk.get("first_line"),
            lines: chunk.get("lines"),
            body: chunk.get("body"),
        });
    }
}
