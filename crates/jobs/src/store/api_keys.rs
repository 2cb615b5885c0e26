//! Keys to the control plane that are kept in the database, by their digests alone. Knows what they open by its word only.

use time::OffsetDateTime;

use super::Store;
use super::persist::Again;
use crate::error::StoreError;

/// A key that is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct NewApiKey<'a> {
    /// Who or what bears it.
    pub name: &'a str,
    /// SHA-256 of it.
    pub digest: &'a [u8; 32],
    /// What it opens: a word that the database knows.
    pub scope: &'a str,
    /// For how long; `None`: until it is revoked.
    pub lasts_seconds: Option<i32>,
}

/// A key, as far as anybody may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// What events name it by.
    pub id: String,
    /// Who or what bears it.
    pub name: String,
    /// What it opens.
    pub scope: String,
    /// When it was recorded.
    pub created_at: OffsetDateTime,
    /// Who recorded it.
    pub created_by: String,
    /// From when on it opens nothing.
    pub expires_at: Option<OffsetDateTime>,
    /// Since when it opens nothing.
    pub revoked_at: Option<OffsetDateTime>,
    /// Who revoked it.
    pub revoked_by: Option<String>,
    /// When it last opened something, within a minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// Whether it opens anything now, by the database's clock.
    pub is_good: bool,
}

/// So many keys are listed, the newest.
const LISTED: i64 = 1000;

impl Store {
    /// What a key opens, if it is kept, good, and not revoked; that it was used is noted once a minute.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn api_key_scope(&self, digest: &[u8; 32]) -> Result<Option<String>, StoreError> {
        let find = || async {
            let scope = sqlx::query_scalar!(
                r#"
                with found as materialized (
                  select k.digest, k.scope, k.last_used_at
                  from ops_api_keys k
                  where k.digest = $1
                    and k.revoked_at is null
                    and (k.expires_at is null or k.expires_at > clock_timestamp())
                ),
                used as (
                  update ops_api_keys k
                  set last_used_at = clock_timestamp()
                  from found f
                  where k.digest = f.digest
                    and (f.last_used_at is null or f.last_used_at < clock_timestamp() - interval '1 minute')
                )
                select f.scope from found f
                "#,
                digest,
            );
            Ok(scope.fetch_optional(&self.pool).await?)
        };
        self.persist(Again::Always, find).await
    }

    /// Keeps a key.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the key, or another whose id it would share, is kept already.
    pub async fn add_api_key(&self, new: NewApiKey<'_>, actor: &str) -> Result<ApiKey, StoreError> {
        let key = sqlx::query_as!(
            ApiKey,
            r#"
            with acting as materialized (select set_config('ops.actor', $1, true) as actor)
            insert into ops_api_keys (name, digest, scope, expires_at)
            select $2, $3, $4, clock_timestamp() + make_interval(secs => $5)
            from acting
            where actor is not null
            returning id, name, scope, created_at, created_by, expires_at, revoked_at, revoked_by, last_used_at, true as "is_good!"
            "#,
            actor,
            new.name,
            new.digest,
            new.scope,
            new.lasts_seconds.map(f64::from),
        );
        Ok(key.fetch_one(&self.pool).await?)
    }

    /// Every key, the newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let list = || async {
            let keys = sqlx::query_as!(
                ApiKey,
                r#"
                select
                  id, name, scope, created_at, created_by, expires_at, revoked_at, revoked_by, last_used_at,
                  revoked_at is null and (expires_at is null or expires_at > clock_timestamp()) as "is_good!"
                from ops_api_keys
                order by created_at desc, id
                limit $1
                "#,
                LISTED,
            );
            Ok(keys.fetch_all(&self.pool).await?)
        };
        self.persist(Again::Always, list).await
    }

    /// Revokes a key for good; one that is revoked stays as it was revoked. `None` where there is no such key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revoke_api_key(
        &self,
        id: &str,
        actor: &str,
    ) -> Result<Option<ApiKey>, StoreError> {
        let revoke = || async {
            let key = sqlx::query_as!(
                ApiKey,
                r#"
                with acting as materialized (select set_config('ops.actor', $1, true) as actor)
                update ops_api_keys k
                set revoked_at = clock_timestamp(), revoked_by = a.actor
                from acting a
                where k.id = $2 and a.actor is not null
                returning
                  k.id, k.name, k.scope, k.created_at, k.created_by, k.expires_at, k.revoked_at, k.revoked_by, k.last_used_at,
                  false as "is_good!"
                "#,
                actor,
                id,
            );
            Ok(key.fetch_optional(&self.pool).await?)
        };
        self.persist(Again::Always, revoke).await
    }
}
