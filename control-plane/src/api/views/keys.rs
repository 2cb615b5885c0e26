//! What keys look like in JSON: never themselves. Holds no logic.

use jobs::ApiKey;
use serde::Serialize;
use service::FailureCounts;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A key that is kept, without itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub(crate) struct KeyView {
    /// What events name it by: the beginning of its digest.
    id: String,
    /// Who or what bears it.
    name: String,
    /// `read`, `enqueue`, `operate` or `admin`; each also opens what those before it do.
    scope: String,
    /// Whether it opens anything now.
    good: bool,
    /// When it was kept.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Who had it kept.
    created_by: String,
    /// From when on it opens nothing; null: never.
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// Since when it opens nothing.
    #[serde(with = "time::serde::rfc3339::option")]
    revoked_at: Option<OffsetDateTime>,
    /// Who revoked it.
    revoked_by: Option<String>,
    /// When it last opened something, within a minute.
    #[serde(with = "time::serde::rfc3339::option")]
    last_used_at: Option<OffsetDateTime>,
}

impl From<ApiKey> for KeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name,
            scope: key.scope,
            good: key.is_good,
            created_at: key.created_at,
            created_by: key.created_by,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            revoked_by: key.revoked_by,
            last_used_at: key.last_used_at,
        }
    }
}

/// The keys that are kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Keys)]
pub(crate) struct KeysView {
    /// The newest first, at most 1,000.
    pub(crate) keys: Vec<KeyView>,
    /// Callers that were refused.
    pub(crate) failed_authentications: FailuresView,
}

/// Callers that were refused by this copy of the control plane, since it began.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FailedAuthentications)]
pub(crate) struct FailuresView {
    /// Without a key.
    missing: u64,
    /// With a key that is not accepted.
    wrong: u64,
    /// Of these, answered 429, because too many came from one address.
    limited: u64,
}

impl From<FailureCounts> for FailuresView {
    fn from(counts: FailureCounts) -> Self {
        Self {
            missing: counts.missing,
            wrong: counts.wrong,
            limited: counts.limited,
        }
    }
}

/// A key that is to be kept.
#[derive(ToSchema)]
#[schema(as = NewKey)]
#[expect(dead_code, reason = "describes a request, which KeyRequest parses")]
pub(crate) struct KeyRequestView {
    /// Who or what bears it.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// `read`, `enqueue`, `operate` or `admin`.
    scope: String,
    /// Its SHA-256, in lower-case hexadecimal digits.
    #[schema(min_length = 64, max_length = 64)]
    digest: String,
    /// From when on it opens nothing.
    #[schema(minimum = 1, maximum = 315_360_000)]
    expires_in_seconds: Option<i32>,
}
