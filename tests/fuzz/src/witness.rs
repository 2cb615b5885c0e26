//! Whether a refusal changed nothing: the rows before and after it, by their number and their versions. Only where
//! nobody else asks anything meanwhile.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row as _};

use crate::request::{Request, Side};
use crate::wire::Came;

/// A look into the database.
#[derive(Debug)]
pub(crate) struct Witness(PgConnection);

/// What it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    rows: String,
    /// How much the runner has done, which it may do at any time: run jobs, keep house, fire schedules.
    by_runner: i64,
}

impl Witness {
    pub(crate) async fn of(url: &str) -> Self {
        Self(
            PgConnection::connect(url)
                .await
                .expect("a database to look into"),
        )
    }

    pub(crate) async fn look(&mut self) -> Seen {
        // A row that is written has another xmin, whatever else is the same.
        let row = sqlx::query(
            "select concat_ws('/',
               (select count(*) || ':' || coalesce(sum(xmin::text::bigint), 0) from ops_jobs),
               (select count(*) || ':' || coalesce(sum(xmin::text::bigint), 0) from ops_job_events)) as rows,
               (select count(*) from ops_job_events where runner_id is not null or actor ~ '^(runner|sweep|schedule):') as by_runner",
        )
        .fetch_one(&mut self.0)
        .await
        .expect("the rows");
        Seen {
            rows: row.get("rows"),
            by_runner: row.get("by_runner"),
        }
    }

    /// Whether the request was a refusal that can be judged; an error where it changed something.
    pub(crate) async fn judge(
        &mut self,
        before: &Seen,
        request: &Request,
        came: &Came,
    ) -> Result<bool, String> {
        let Came::Answer(answer) = came else {
            return Ok(false);
        };
        // After 408 a write may have happened, and a conflict of the runner's leaves what it recorded queued.
        let may_write =
            answer.status == 408 || (request.side == Side::Runner && answer.status == 409);
        if !(400..500).contains(&answer.status) || may_write {
            return Ok(false);
        }
        let after = self.look().await;
        if after.rows == before.rows {
            return Ok(true);
        }
        if after.by_runner != before.by_runner {
            // The runner was at work: it may have been that.
            return Ok(false);
        }
        Err(format!(
            "{} changed something: {} became {}",
            answer.status, before.rows, after.rows
        ))
    }
}
