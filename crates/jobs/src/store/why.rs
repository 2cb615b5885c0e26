//! Why a job is where it is. The reasons are found by the database's own function, so that psql, HTTP and the command agree.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use super::Store;
use super::operate::code_of;
use super::persist::Again;
use crate::error::StoreError;

/// One reason for which a job is where it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// A word for programs.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// What would change it.
    pub remedy: String,
    /// What the sentence was made of.
    pub data: Value,
}

impl Store {
    /// The reasons, the weightiest first; never none. `closed` are the job types whose flag is off, each with the flag's name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn why(
        &self,
        id: Uuid,
        closed: &[(&str, &str)],
        stall_after: Duration,
    ) -> Result<Vec<Reason>, StoreError> {
        self.persist(Again::Always, || self.why_once(id, closed, stall_after))
            .await
    }

    async fn why_once(
        &self,
        id: Uuid,
        closed: &[(&str, &str)],
        stall_after: Duration,
    ) -> Result<Vec<Reason>, StoreError> {
        let closed: Map<String, Value> = closed
            .iter()
            .map(|&(job_type, flag)| (job_type.to_owned(), flag.into()))
            .collect();
        let stall_after = PgInterval {
            months: 0,
            days: 0,
            microseconds: i64::try_from(stall_after.as_micros()).unwrap_or(i64::MAX),
        };
        let reasons = sqlx::query_as!(
            Reason,
            r#"
            select w.code as "code!", w.message as "message!", w.remedy as "remedy!", w.data as "data!"
            from ops_why($1, $2, $3) w
            order by w.place
            "#,
            id,
            Value::Object(closed),
            stall_after,
        )
        .fetch_all(&self.pool)
        .await;
        match reasons {
            Err(error) if code_of(&error) == Some("P0002") => Err(StoreError::NotFound(id)),
            answer => Ok(answer?),
        }
    }
}
