//! Keys that are kept elsewhere than in the settings, as digests: how they look, and the question who bears one.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use super::Caller;
use crate::ids::random_hex;
use crate::problem::Problem;
use crate::secret::{KeyDigest, Secret};

/// What such a key begins with; nothing else is ever asked for.
const PREFIX: &str = "opsd_";

/// What follows it: 256 random bits.
const DIGITS: usize = 64;

/// A new one.
pub fn new_key() -> Secret {
    Secret::new(format!("{PREFIX}{}", random_hex::<{ DIGITS / 2 }>()))
}

/// The digest of what looks like such a key; whatever else a caller shows is not worth a question.
pub(super) fn digest_of(presented: &str) -> Option<KeyDigest> {
    let digits = presented.strip_prefix(PREFIX)?;
    let fits = digits.len() == DIGITS
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    fits.then(|| KeyDigest::of(presented))
}

/// The answer to who bears a key: nobody, or a problem where it cannot be told.
pub type Found<'a> = Pin<Box<dyn Future<Output = Result<Option<Caller>, Problem>> + Send + 'a>>;

/// Who bears keys that are kept elsewhere.
pub trait Keeper: Send + Sync {
    /// Whether the key opened something a moment ago, so that it is no guess.
    fn remembers(&self, digest: &KeyDigest) -> bool;

    /// Who bears it.
    fn find(&self, digest: KeyDigest) -> Found<'_>;
}

/// A keeper, as a guard holds it.
#[derive(Clone)]
pub(super) struct Kept(pub(super) Arc<dyn Keeper>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_such_a_key_is_asked_for() {
        let key = new_key();
        assert!(digest_of(key.expose()).is_some());
        assert_ne!(key.expose(), new_key().expose());
        for other in [
            "",
            "opsd_",
            "wrong",
            &key.expose()[..60],
            &key.expose().to_uppercase(),
            &format!("{}0", key.expose()),
            &key.expose().replace("opsd_", "opsk_"),
        ] {
            assert!(digest_of(other).is_none(), "{other}");
        }
    }
}
