//! Where a list goes on: the last job's id, signed together with the filter, so that a cursor can be neither made up nor moved.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use service::Secret;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The layout below; another layout gets another number.
const VERSION: u8 = 1;
/// Keeps these signatures apart from others under the same `SECRET_KEY`.
const PURPOSE: &[u8] = b"ops-jobs cursor\0";
const ID_END: usize = 1 + 16;
const TAG_BYTES: usize = 16;

/// Signs and checks cursors.
pub(crate) struct Cursors {
    mac: Hmac<Sha256>,
}

impl Cursors {
    /// Signs with a key derived from `SECRET_KEY`.
    pub(crate) fn new(secret_key: &Secret) -> Self {
        let mut block = [0; 64];
        block[..32].copy_from_slice(&Sha256::digest(secret_key.expose().as_bytes()));
        Self {
            mac: Hmac::new(&block.into()),
        }
    }

    /// The text by which the list under this filter goes on after this job.
    pub(crate) fn sign(&self, last: Uuid, filter: &str) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(last.as_bytes());
        let tag = self.mac_of(&bytes, filter).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The job after which the list goes on, or `None` for a cursor that was not given for this filter.
    pub(crate) fn check(&self, cursor: &str, filter: &str) -> Option<Uuid> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (signed, tag) = bytes.split_at_checked(ID_END)?;
        if tag.len() != TAG_BYTES || signed[0] != VERSION {
            return None;
        }
        self.mac_of(signed, filter)
            .verify_truncated_left(tag)
            .ok()?;
        Uuid::from_slice(&signed[1..]).ok()
    }

    fn mac_of(&self, signed: &[u8], filter: &str) -> Hmac<Sha256> {
        self.mac
            .clone()
            .chain_update(PURPOSE)
            .chain_update(signed)
            .chain_update(filter.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_job_under_its_filter_only() {
        let cursors = Cursors::new(&Secret::new("secret"));
        let id = Uuid::from_u128(7);
        let cursor = cursors.sign(id, "status=queued");
        assert_eq!(cursors.check(&cursor, "status=queued"), Some(id));
        assert_eq!(cursors.check(&cursor, "status=failed"), None);
        assert_eq!(
            Cursors::new(&Secret::new("other")).check(&cursor, "status=queued"),
            None
        );
    }

    #[test]
    fn a_cursor_that_was_changed_anywhere_is_refused() {
        let cursors = Cursors::new(&Secret::new("secret"));
        let cursor = cursors.sign(Uuid::from_u128(7), "");
        for place in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(cursors.check(&changed, ""), None, "{changed}");
        }
        for wrong in [
            "",
            "A",
            "not base64!",
            &cursor[1..],
            &format!("{cursor}AAAA"),
        ] {
            assert_eq!(cursors.check(wrong, ""), None, "{wrong}");
        }
    }
}
