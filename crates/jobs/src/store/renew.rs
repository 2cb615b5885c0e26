//! Renewals: a runner keeps all its leases in one statement.

use std::time::Duration;

use uuid::Uuid;

use super::persist::Again;
use super::{Store, seconds};
use crate::error::StoreError;
use crate::lease::LeaseKey;

impl Store {
    /// Renews leases, all in one statement. Gives those that still hold, each with whether its abort was asked for;
    /// one that is missing from the answer is lost.
    ///
    /// # Errors
    /// When the database does not answer; the leases then run on until their deadline.
    pub async fn renew(
        &self,
        leases: &[LeaseKey],
        lease: Duration,
    ) -> Result<Vec<(LeaseKey, bool)>, StoreError> {
        self.persist(Again::Always, || self.renew_once(leases, lease))
            .await
    }

    async fn renew_once(
        &self,
        leases: &[LeaseKey],
        lease: Duration,
    ) -> Result<Vec<(LeaseKey, bool)>, StoreError> {
        let ids: Vec<Uuid> = leases.iter().map(|key| key.job_id).collect();
        let fences: Vec<i64> = leases.iter().map(|key| key.fence).collect();
        let rows = sqlx::query!(
            r#"
            update ops_jobs j
            set lease_expires_at = clock_timestamp() + make_interval(secs => $3), heartbeat_at = clock_timestamp()
            from unnest($1::uuid[], $2::bigint[]) as held (id, fence)
            -- A lease is there exactly while it runs. Said so, each job is looked up by its id; by its status, all that ran since
            -- the last vacuum would be looked through.
            where j.id = held.id and j.fence = held.fence and j.lease_expires_at is not null
            returning j.id, j.fence, j.attempt, j.abort_requested_at is not null as "abort_requested!"
            "#,
            &ids,
            &fences,
            seconds(lease),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| {
                (
                    LeaseKey {
                        job_id: row.id,
                        fence: row.fence,
                        attempt: row.attempt,
                    },
                    row.abort_requested,
                )
            })
            .collect())
    }
}
