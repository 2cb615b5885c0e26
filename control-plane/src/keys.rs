//! The keys that are kept in the database: asked for by digest, remembered for some seconds. Sees no key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jobs::Store;
use service::auth::Found;
use service::{Caller, Keeper, KeyDigest, Problem, Scope};
use tokio::sync::Semaphore;

use crate::app::ask;
use crate::error;

/// How long an answer holds: so long a key that was revoked may still open something here.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(5);

/// How long a key that opened something is no guess.
const FAMILIAR: Duration = Duration::from_secs(3600);

/// So many keys are remembered; only keys that are kept are.
const MOST: usize = 4096;

/// So many questions about keys that nobody has seen here before are asked at once: strangers must not take every
/// connection.
const STRANGERS: usize = 3;

/// The keys of the database, as one process knows them.
pub(crate) struct Keys {
    store: Store,
    seen: Mutex<HashMap<KeyDigest, Seen>>,
    strangers: Semaphore,
}

#[derive(Clone, Copy)]
struct Seen {
    scope: Scope,
    at: Instant,
}

impl Keys {
    pub(crate) fn new(store: Store) -> Arc<Self> {
        Arc::new(Self {
            store,
            seen: Mutex::default(),
            strangers: Semaphore::new(STRANGERS),
        })
    }

    /// Asks anew for every key at its next use: here a revocation holds at once.
    pub(crate) fn forget_all(&self) {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn seen(&self, digest: &KeyDigest) -> Option<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(digest)
            .copied()
            .filter(|seen| seen.at.elapsed() < FAMILIAR)
    }

    async fn scope(&self, digest: KeyDigest) -> Result<Option<Scope>, Problem> {
        let seen = self.seen(&digest);
        if let Some(seen) = seen
            && seen.at.elapsed() < REMEMBERED
        {
            return Ok(Some(seen.scope));
        }
        let asked_at = Instant::now();
        let word = ask(async {
            let _place = match seen {
                Some(_) => None,
                None => self.strangers.acquire().await.ok(),
            };
            self.store.api_key_scope(digest.as_bytes()).await
        })
        .await?;
        let scope = word.map(|word| word.parse::<Scope>()).transpose();
        let scope = scope.map_err(|_| error::unavailable())?;
        self.remember(digest, scope, asked_at);
        Ok(scope)
    }

    fn remember(&self, digest: KeyDigest, scope: Option<Scope>, at: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match scope {
            None => {
                seen.remove(&digest);
            }
            Some(scope) => {
                if seen.len() >= MOST {
                    seen.retain(|_, seen| seen.at.elapsed() < REMEMBERED);
                }
                // With more than that in use at once, the rest is asked for each time.
                if seen.len() < MOST {
                    seen.insert(digest, Seen { scope, at });
                }
            }
        }
    }
}

impl Keeper for Keys {
    fn remembers(&self, digest: &KeyDigest) -> bool {
        self.seen(digest).is_some()
    }

    fn find(&self, digest: KeyDigest) -> Found<'_> {
        Box::pin(async move {
            let scope = self.scope(digest).await?;
            Ok(scope.map(|scope| Caller {
                key_id: digest.id(),
                scope,
            }))
        })
    }
}
