//! Counts of transitions: has the database keep them, and adds up what it has noted. What they say is in `figures.rs`.

use super::Store;
use crate::error::StoreError;

/// So many notes are added up by one statement.
const PAGE: i32 = 20_000;
/// So many statements at a time, so that a long backlog keeps no tick.
const PAGES: usize = 10;
/// Whoever reads adds up no more than this on the way.
const SMALL_PAGE: i32 = 2_000;

impl Store {
    /// Has the database count every transition, from now on and for a day beyond the last call; begins with that where it
    /// does not yet. Only with `FEATURE_METRICS` on.
    ///
    /// # Errors
    /// When the database does not answer, or somebody keeps the table for too long; the next call does it.
    pub async fn count_jobs(&self) -> Result<(), StoreError> {
        sqlx::query_scalar!("select ops_count_jobs()")
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }

    /// Has transitions counted, and adds up what was noted since the last time. Any number may do it at once.
    ///
    /// # Errors
    /// As [`Store::count_jobs`].
    pub async fn keep_counts(&self) -> Result<(), StoreError> {
        self.count_jobs().await?;
        for _ in 0..PAGES {
            if self.fold(PAGE).await? < PAGE {
                break;
            }
        }
        Ok(())
    }

    /// As [`Store::keep_counts`], for whoever reads next and does not want to wait long.
    ///
    /// # Errors
    /// As [`Store::count_jobs`].
    pub async fn keep_counts_in_passing(&self) -> Result<(), StoreError> {
        self.count_jobs().await?;
        self.fold(SMALL_PAGE).await.map(drop)
    }

    async fn fold(&self, most: i32) -> Result<i32, StoreError> {
        let folded = sqlx::query_scalar!("select ops_fold_counts($1)", most)
            .fetch_one(&self.pool)
            .await?;
        Ok(folded.unwrap_or_default())
    }

    /// Notes that `POST /tick` was called.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note_tick(&self, actor: &str) -> Result<(), StoreError> {
        sqlx::query!(r#"select ops_note_tick($1)::text as "noted""#, actor)
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }
}
