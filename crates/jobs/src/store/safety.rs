//! Whether what the database has acknowledged is safe there. Changes no setting.

use super::Store;
use super::persist::Again;
use crate::error::StoreError;

impl Store {
    /// What of the server's settings would lose acknowledged jobs, each with what to do; empty when they are safe.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn dangers(&self) -> Result<Vec<&'static str>, StoreError> {
        self.persist(Again::Always, || self.dangers_once()).await
    }

    async fn dangers_once(&self) -> Result<Vec<&'static str>, StoreError> {
        let server = sqlx::query!(
            r#"
            select
              current_setting('fsync') = 'off' as "no_fsync!",
              current_setting('full_page_writes') = 'off' as "no_full_page_writes!",
              current_setting('synchronous_commit') = 'off' as "no_synchronous_commit!",
              pg_is_in_recovery() as "standby!"
            "#
        )
        .fetch_one(&self.pool)
        .await?;
        let dangers = [
            (server.standby, "it is a standby: connect to the primary"),
            (server.no_fsync, "fsync is off: turn it on"),
            (
                server.no_full_page_writes,
                "full_page_writes is off: turn it on",
            ),
            (
                server.no_synchronous_commit,
                "synchronous_commit is off: turn it on",
            ),
        ];
        Ok(dangers
            .into_iter()
            .filter_map(|(there, danger)| there.then_some(danger))
            .collect())
    }
}
