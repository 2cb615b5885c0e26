//! Deliveries to endpoints: taken to be sent, recorded, read, sent again by hand, and forgotten in time.

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::persist::Again;
use super::webhooks::found;
use crate::error::StoreError;
use crate::webhook::{
    ClaimedDelivery, Delivery, DeliveryAttempt, DeliveryState, WebhookName, WebhookOutcome,
    WebhookRecord,
};

/// One page of deliveries, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeliveryPage {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// The last of them, if there is a next page.
    pub next: Option<Uuid>,
}

/// Rows that are removed at once.
const PAGE: i32 = 1000;

struct DeliveryRow {
    id: Uuid,
    kind: String,
    job_id: Option<Uuid>,
    event_seq: Option<i32>,
    body: String,
    state: String,
    attempts: i32,
    due_at: OffsetDateTime,
    give_up_at: OffsetDateTime,
    sender: Option<String>,
    last_status: Option<i32>,
    last_error: Option<String>,
    created_at: OffsetDateTime,
    ended_at: Option<OffsetDateTime>,
}

impl TryFrom<DeliveryRow> for Delivery {
    type Error = StoreError;

    fn try_from(row: DeliveryRow) -> Result<Self, StoreError> {
        Ok(Self {
            state: word(&row.state)?,
            id: row.id,
            kind: row.kind,
            job_id: row.job_id,
            event_seq: row.event_seq,
            body: row.body,
            attempts: row.attempts,
            due_at: row.due_at,
            give_up_at: row.give_up_at,
            sender: row.sender,
            last_status: row.last_status,
            last_error: row.last_error,
            created_at: row.created_at,
            ended_at: row.ended_at,
        })
    }
}

/// Reads a word that the schema keeps within a known set.
fn word<T: std::str::FromStr<Err = String>>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|why| {
        StoreError::Internal(format!("a word of a delivery makes no sense: it {why}").into())
    })
}

impl Store {
    /// Takes due deliveries of the endpoints whose secrets come from one of these keys, the newest key first. Whoever does
    /// not record one in its time has lost it.
    ///
    /// # Errors
    /// When the database does not answer: what was taken then is sent by the next once its time is over.
    pub async fn claim_deliveries(
        &self,
        sender: &str,
        key_ids: &[String],
        most: i32,
    ) -> Result<Vec<ClaimedDelivery>, StoreError> {
        let claimed = sqlx::query_as!(
            ClaimedDelivery,
            r#"
            select
              delivery_id as "id!", attempt as "attempt!", unix_seconds as "unix_seconds!", body as "body!", url as "url!",
              timeout_seconds as "timeout_seconds!", webhook_id as "webhook_id!", webhook as "webhook!",
              secret_version as "secret_version!", old_secret as "old_secret!"
            from ops_claim_webhooks($1, $2, $3)
            "#,
            sender,
            key_ids,
            most,
        );
        Ok(claimed.fetch_all(&self.pool).await?)
    }

    /// Records how an attempt went; the delivery itself changes only while this is its newest attempt.
    ///
    /// # Errors
    /// When the database does not answer: then the delivery is sent again.
    pub async fn record_attempt(
        &self,
        sender: &str,
        delivery: Uuid,
        attempt: i32,
        outcome: &WebhookOutcome,
    ) -> Result<WebhookRecord, StoreError> {
        let ask = || async {
            let recorded = sqlx::query_scalar!(
                r#"select ops_record_webhook($1, $2, $3, $4, $5, $6, $7, $8) as "record!""#,
                sender,
                delivery,
                attempt,
                outcome.status,
                outcome.error,
                outcome.duration_ms,
                outcome.retry_after,
                outcome.gone,
            );
            Ok(recorded.fetch_one(&self.pool).await?)
        };
        word(&self.persist(Again::Always, ask).await?)
    }

    /// Gives up what waits for disabled endpoints in vain, and forgets what ended long ago; gives how many were forgotten.
    ///
    /// # Errors
    /// When the database does not answer; the next time does it.
    pub async fn keep_webhooks(&self) -> Result<u64, StoreError> {
        let ask = || async {
            let kept = sqlx::query_scalar!(r#"select ops_keep_webhooks($1) as "removed!""#, PAGE);
            Ok(kept.fetch_one(&self.pool).await?)
        };
        let removed = self.persist(Again::Always, ask).await?;
        Ok(u64::from(removed.unsigned_abs()))
    }

    /// A page of an endpoint's deliveries, newest first, those before `before`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn deliveries(
        &self,
        name: &WebhookName,
        state: Option<DeliveryState>,
        before: Option<Uuid>,
        limit: i64,
    ) -> Result<DeliveryPage, StoreError> {
        let ask = || async {
            let rows = sqlx::query_as!(
                DeliveryRow,
                r#"
                select
                  d.id, d.kind, d.job_id, d.event_seq, '' as "body!", d.state, d.attempts, d.due_at, d.give_up_at, d.sender,
                  d.last_status, d.last_error, d.created_at, d.ended_at
                from ops_webhook_deliveries d
                join ops_webhooks w on w.id = d.webhook_id
                where w.name = $1
                  and ($2::text is null or d.state = $2)
                  and ($3::uuid is null or d.id < $3)
                order by d.id desc
                limit $4
                "#,
                name.as_str(),
                state.map(DeliveryState::as_str),
                before,
                limit + 1,
            );
            Ok(rows.fetch_all(&self.pool).await?)
        };
        let rows = self.persist(Again::Always, ask).await?;
        let deliveries = rows.into_iter().map(Delivery::try_from);
        let mut deliveries = deliveries.collect::<Result<Vec<_>, _>>()?;
        let wanted = usize::try_from(limit).unwrap_or(0);
        let more = deliveries.len() > wanted;
        deliveries.truncate(wanted);
        let next = deliveries.last().filter(|_| more).map(|last| last.id);
        Ok(DeliveryPage { deliveries, next })
    }

    /// A delivery of an endpoint with its attempts, or `None`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delivery(
        &self,
        name: &WebhookName,
        id: Uuid,
    ) -> Result<Option<(Delivery, Vec<DeliveryAttempt>)>, StoreError> {
        let ask = || async {
            let row = sqlx::query_as!(
                DeliveryRow,
                r#"
                select
                  d.id, d.kind, d.job_id, d.event_seq, d.body, d.state, d.attempts, d.due_at, d.give_up_at, d.sender,
                  d.last_status, d.last_error, d.created_at, d.ended_at
                from ops_webhook_deliveries d
                join ops_webhooks w on w.id = d.webhook_id
                where w.name = $1 and d.id = $2
                "#,
                name.as_str(),
                id,
            );
            Ok(row.fetch_optional(&self.pool).await?)
        };
        let Some(row) = self.persist(Again::Always, ask).await? else {
            return Ok(None);
        };
        let ask = || async {
            let attempts = sqlx::query_as!(
                DeliveryAttempt,
                r#"
                select attempt, at, sender, status, error, duration_ms
                from ops_webhook_attempts
                where delivery_id = $1
                order by attempt
                "#,
                id,
            );
            Ok(attempts.fetch_all(&self.pool).await?)
        };
        let attempts = self.persist(Again::Always, ask).await?;
        Ok(Some((row.try_into()?, attempts)))
    }

    /// Has a delivery sent again at once, under its own id; `None` when there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn resend_delivery(
        &self,
        delivery: Uuid,
        actor: &str,
    ) -> Result<Option<()>, StoreError> {
        let resent = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_resend_webhook($2) as "state!" from acting where actor is not null
            "#,
            actor,
            delivery,
        );
        Ok(found(resent.fetch_one(&self.pool).await)?.map(drop))
    }

    /// Has everything sent again that was given up for an endpoint, of events since an instant; gives how many, or `None`
    /// when there is none of this name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn resend_dead_deliveries(
        &self,
        name: &WebhookName,
        since: Option<OffsetDateTime>,
        actor: &str,
    ) -> Result<Option<u64>, StoreError> {
        let resent = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_resend_dead_webhooks($2, coalesce($3, '-infinity'::timestamptz)) as "count!"
            from acting where actor is not null
            "#,
            actor,
            name.as_str(),
            since,
        );
        let resent = found(resent.fetch_one(&self.pool).await)?;
        Ok(resent.map(|count| u64::from(count.unsigned_abs())))
    }
}
