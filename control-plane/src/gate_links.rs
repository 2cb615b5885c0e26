//! Links that decide one gate once, signed with `SECRET_KEY`: nothing is kept of them, and nothing in them can be changed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jobs::Decision;
use serde::{Deserialize, Serialize};
use service::Secret;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Keeps these signatures apart from others under the same `SECRET_KEY`.
const PURPOSE: &[u8] = b"ops-jobs gate link 1\0";
const TAG_BYTES: usize = 32;

/// What a link is good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// The job.
    pub(crate) job_id: Uuid,
    /// The gate.
    pub(crate) name: String,
    /// Its revision: a gate that opened anew needs a new link.
    pub(crate) revision: i32,
    /// What was shown.
    pub(crate) document_hash: String,
    /// What it decides.
    pub(crate) decision: Decision,
    /// Who asked for the link, and so decides by it.
    pub(crate) issuer: String,
    /// Until when it is good, in seconds since 1970 by the database's clock.
    pub(crate) expires_at: i64,
}

/// Signs and checks links.
pub(crate) struct Links {
    mac: Hmac<Sha256>,
}

impl Links {
    /// Signs with a key derived from `SECRET_KEY`.
    pub(crate) fn new(secret_key: &Secret) -> Self {
        let mut block = [0; 64];
        block[..32].copy_from_slice(&Sha256::digest(secret_key.expose().as_bytes()));
        Self {
            mac: Hmac::new(&block.into()),
        }
    }

    /// The last part of a link's path.
    pub(crate) fn sign(&self, grant: &Grant) -> String {
        // Texts, numbers and an id always serialise.
        let mut bytes = serde_json::to_vec(grant).unwrap_or_default();
        let tag = self.mac_of(&bytes).finalize().into_bytes();
        bytes.splice(0..0, tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a link is good for, or `None` for one that was not made here.
    pub(crate) fn check(&self, token: &str) -> Option<Grant> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (tag, signed) = bytes.split_at_checked(TAG_BYTES)?;
        self.mac_of(signed).verify_slice(tag).ok()?;
        serde_json::from_slice(signed).ok()
    }

    fn mac_of(&self, signed: &[u8]) -> Hmac<Sha256> {
        self.mac.clone().chain_update(PURPOSE).chain_update(signed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        Grant {
            job_id: Uuid::from_u128(7),
            name: "draft".to_owned(),
            revision: 2,
            document_hash: "ab".repeat(32),
            decision: Decision::Approve,
            issuer: "key:1".to_owned(),
            expires_at: 1_800_000_000,
        }
    }

    #[test]
    fn a_link_leads_back_to_what_it_is_good_for() {
        let links = Links::new(&Secret::new("secret"));
        let token = links.sign(&grant());
        assert_eq!(links.check(&token), Some(grant()));
        assert_eq!(Links::new(&Secret::new("other")).check(&token), None);
    }

    #[test]
    fn a_link_that_was_changed_anywhere_is_refused() {
        let links = Links::new(&Secret::new("secret"));
        let token = links.sign(&grant());
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(links.check(&changed), None, "{changed}");
        }
        for wrong in ["", "A", "not base64!", &token[1..], &format!("{token}AAAA")] {
            assert_eq!(links.check(wrong), None, "{wrong}");
        }
    }
}
