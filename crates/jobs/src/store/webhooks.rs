//! Endpoints as people and programs make, change, switch and remove them. What is sent to them is in `deliveries.rs`.

use sqlx::postgres::PgDatabaseError;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::persist::Again;
use crate::error::StoreError;
use crate::name::Name;
use crate::webhook::{Webhook, WebhookName, WebhookTerms};

/// One page of endpoints, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WebhookPage {
    /// The endpoints.
    pub webhooks: Vec<Webhook>,
    /// The last of them, if there is a next page.
    pub next: Option<WebhookName>,
}

/// What came of a change of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum WebhookChanged {
    /// The endpoint as it is now.
    Yes(Box<Webhook>),
    /// It has changed since the revision that was named; this is its revision now.
    Outdated(i64),
}

struct WebhookRow {
    name: String,
    id: Uuid,
    url: String,
    events: Vec<String>,
    job_types: Option<Vec<String>>,
    queues: Option<Vec<String>>,
    with_payload: bool,
    with_result: bool,
    timeout_seconds: i32,
    give_up_after_seconds: i32,
    disable_after_seconds: i32,
    enabled: bool,
    disabled_at: Option<OffsetDateTime>,
    disabled_by: Option<String>,
    disabled_reason: Option<String>,
    failing_since: Option<OffsetDateTime>,
    secret_version: i32,
    old_secret_until: Option<OffsetDateTime>,
    signing_key_id: Option<String>,
    revision: i64,
    created_by: String,
    created_at: OffsetDateTime,
    updated_by: String,
    updated_at: OffsetDateTime,
    pending: i64,
    dead: i64,
}

impl TryFrom<WebhookRow> for Webhook {
    type Error = StoreError;

    fn try_from(row: WebhookRow) -> Result<Self, StoreError> {
        let name = row.name.parse().map_err(|why: String| {
            StoreError::Internal(format!("the name of a webhook makes no sense: it {why}").into())
        })?;
        Ok(Self {
            name,
            id: row.id,
            terms: WebhookTerms {
                url: row.url,
                events: row.events,
                job_types: row.job_types.as_deref().map(names).transpose()?,
                queues: row.queues.as_deref().map(names).transpose()?,
                with_payload: row.with_payload,
                with_result: row.with_result,
                timeout_seconds: row.timeout_seconds,
                give_up_after_seconds: row.give_up_after_seconds,
                disable_after_seconds: row.disable_after_seconds,
            },
            enabled: row.enabled,
            disabled_at: row.disabled_at,
            disabled_by: row.disabled_by,
            disabled_reason: row.disabled_reason,
            failing_since: row.failing_since,
            secret_version: row.secret_version,
            old_secret_until: row.old_secret_until,
            signing_key_id: row.signing_key_id,
            revision: row.revision,
            created_by: row.created_by,
            created_at: row.created_at,
            updated_by: row.updated_by,
            updated_at: row.updated_at,
            pending: row.pending,
            dead: row.dead,
        })
    }
}

fn names(texts: &[String]) -> Result<Vec<Name>, StoreError> {
    let names = texts.iter().map(|text| text.parse::<Name>());
    names
        .collect::<Result<_, _>>()
        .map_err(|error| StoreError::Internal(Box::new(error)))
}

fn texts(names: Option<&[Name]>) -> Option<Vec<String>> {
    names.map(|names| names.iter().map(ToString::to_string).collect())
}

impl Store {
    /// Makes an endpoint; `None` when there is one of this name.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the schema refuses a value.
    pub async fn create_webhook(
        &self,
        name: &WebhookName,
        terms: &WebhookTerms,
        enabled: bool,
        actor: &str,
    ) -> Result<Option<Webhook>, StoreError> {
        let made = sqlx::query!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            insert into ops_webhooks (
              name, url, events, job_types, queues, with_payload, with_result, timeout_seconds, give_up_after_seconds,
              disable_after_seconds, enabled, created_by, updated_by
            )
            select $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $1, $1
            from acting where actor is not null
            on conflict (name) do nothing
            "#,
            actor,
            name.as_str(),
            terms.url,
            &terms.events,
            texts(terms.job_types.as_deref()) as Option<Vec<String>>,
            texts(terms.queues.as_deref()) as Option<Vec<String>>,
            terms.with_payload,
            terms.with_result,
            terms.timeout_seconds,
            terms.give_up_after_seconds,
            terms.disable_after_seconds,
            enabled,
        )
        .execute(&self.pool)
        .await?;
        if made.rows_affected() == 0 {
            return Ok(None);
        }
        self.webhook(name).await
    }

    /// Gives an endpoint other terms; `None` when there is none of this name. With a revision, only where it is still of
    /// that revision.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the schema refuses a value.
    pub async fn change_webhook(
        &self,
        name: &WebhookName,
        terms: &WebhookTerms,
        enabled: Option<bool>,
        revision: Option<i64>,
        actor: &str,
    ) -> Result<Option<WebhookChanged>, StoreError> {
        let changed = sqlx::query!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            update ops_webhooks w
            set url = $3, events = $4, job_types = $5, queues = $6, with_payload = $7, with_result = $8,
              timeout_seconds = $9, give_up_after_seconds = $10, disable_after_seconds = $11,
              enabled = coalesce($12, w.enabled)
            from acting a
            where w.name = $2 and ($13::bigint is null or w.revision = $13) and a.actor is not null
            "#,
            actor,
            name.as_str(),
            terms.url,
            &terms.events,
            texts(terms.job_types.as_deref()) as Option<Vec<String>>,
            texts(terms.queues.as_deref()) as Option<Vec<String>>,
            terms.with_payload,
            terms.with_result,
            terms.timeout_seconds,
            terms.give_up_after_seconds,
            terms.disable_after_seconds,
            enabled,
            revision,
        )
        .execute(&self.pool)
        .await?;
        let now = self.webhook(name).await?;
        Ok(now.map(|now| match changed.rows_affected() {
            0 => WebhookChanged::Outdated(now.revision),
            _ => WebhookChanged::Yes(Box::new(now)),
        }))
    }

    /// Removes an endpoint and its deliveries; `false` when there was none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_webhook(&self, name: &WebhookName) -> Result<bool, StoreError> {
        let deleted = sqlx::query!("delete from ops_webhooks where name = $1", name.as_str());
        Ok(deleted.execute(&self.pool).await?.rows_affected() == 1)
    }

    /// Switches an endpoint on; `None` when there is none of this name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn enable_webhook(
        &self,
        name: &WebhookName,
        actor: &str,
    ) -> Result<Option<Webhook>, StoreError> {
        let enabled = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_enable_webhook($2) from acting where actor is not null
            "#,
            actor,
            name.as_str(),
        );
        match found(enabled.fetch_one(&self.pool).await)? {
            Some(_) => self.webhook(name).await,
            None => Ok(None),
        }
    }

    /// Switches an endpoint off, with who and why; `None` when there is none of this name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn disable_webhook(
        &self,
        name: &WebhookName,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<Option<Webhook>, StoreError> {
        let disabled = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_disable_webhook($2, $3) from acting where actor is not null
            "#,
            actor,
            name.as_str(),
            reason,
        );
        match found(disabled.fetch_one(&self.pool).await)? {
            Some(_) => self.webhook(name).await,
            None => Ok(None),
        }
    }

    /// Gives an endpoint another secret, beside which the old one holds for so many seconds; `None` when there is none of
    /// this name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn rotate_webhook(
        &self,
        name: &WebhookName,
        overlap_seconds: i32,
        actor: &str,
    ) -> Result<Option<Webhook>, StoreError> {
        let rotated = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_rotate_webhook($2, make_interval(secs => $3)) from acting where actor is not null
            "#,
            actor,
            name.as_str(),
            f64::from(overlap_seconds),
        );
        match found(rotated.fetch_one(&self.pool).await)? {
            Some(_) => self.webhook(name).await,
            None => Ok(None),
        }
    }

    /// Has a trial sent to an endpoint, and gives its delivery's id; `None` when there is none of this name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ping_webhook(
        &self,
        name: &WebhookName,
        actor: &str,
    ) -> Result<Option<Uuid>, StoreError> {
        let pinged = sqlx::query_scalar!(
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            select ops_ping_webhook($2) as "delivery!" from acting where actor is not null
            "#,
            actor,
            name.as_str(),
        );
        found(pinged.fetch_one(&self.pool).await)
    }

    /// The endpoint, or `None`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn webhook(&self, name: &WebhookName) -> Result<Option<Webhook>, StoreError> {
        let mut found = self.list_webhooks(Some(name.as_str()), "", 1).await?;
        Ok(found.pop())
    }

    /// A page of endpoints by name, those after `after`, at most `limit`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn webhooks(&self, after: &str, limit: i64) -> Result<WebhookPage, StoreError> {
        let mut webhooks = self.list_webhooks(None, after, limit + 1).await?;
        let wanted = usize::try_from(limit).unwrap_or(0);
        let more = webhooks.len() > wanted;
        webhooks.truncate(wanted);
        let next = webhooks
            .last()
            .filter(|_| more)
            .map(|last| last.name.clone());
        Ok(WebhookPage { webhooks, next })
    }

    async fn list_webhooks(
        &self,
        name: Option<&str>,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Webhook>, StoreError> {
        let ask = || async {
            let rows = sqlx::query_as!(
                WebhookRow,
                r#"
                select
                  w.*,
                  (
                    select count(*) from ops_webhook_deliveries d where d.webhook_id = w.id and d.state = 'pending'
                  ) as "pending!",
                  (
                    select count(*) from ops_webhook_deliveries d where d.webhook_id = w.id and d.state = 'dead'
                  ) as "dead!"
                from ops_webhooks w
                where ($1::text is null or w.name = $1) and w.name collate "C" > $2
                order by w.name collate "C"
                limit $3
                "#,
                name,
                after,
                limit,
            );
            Ok(rows.fetch_all(&self.pool).await?)
        };
        let rows = self.persist(Again::Always, ask).await?;
        rows.into_iter().map(Webhook::try_from).collect()
    }
}

/// What a function of the schema answered; `None` where it found nothing of that name or id.
pub(super) fn found<T>(answer: Result<T, sqlx::Error>) -> Result<Option<T>, StoreError> {
    let error = match answer {
        Ok(answer) => return Ok(Some(answer)),
        Err(error) => error,
    };
    let refusal = error
        .as_database_error()
        .and_then(|db| db.try_downcast_ref::<PgDatabaseError>());
    if refusal.is_some_and(|refusal| refusal.code() == "P0002") {
        Ok(None)
    } else {
        Err(error.into())
    }
}
