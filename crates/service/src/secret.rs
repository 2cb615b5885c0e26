//! Texts that must never be shown, and the comparison of presented keys with accepted ones.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// A text that prints as `[secret]`; only `expose` opens it, so that every opening can be found.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Closes a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for handing to the one thing that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Its length in characters, which rules about strength may look at.
    pub fn length(&self) -> usize {
        self.0.chars().count()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Names an accepted key without telling it: the beginning of its digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key:{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The accepted keys, held as digests only; an empty set accepts nothing.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    digests: Vec<KeyDigest>,
}

/// The SHA-256 of a key, which is all that is ever kept of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 32]);

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.id(), f)
    }
}

impl KeyDigest {
    /// The digest of a key.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the key is named by.
    pub fn id(&self) -> KeyId {
        KeyId([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

impl KeySet {
    /// Accepts these keys; empty ones are left out.
    pub fn new(keys: &[Secret]) -> Self {
        let digests = keys
            .iter()
            .filter(|key| !key.expose().is_empty())
            .map(|key| KeyDigest::of(key.expose()))
            .collect();
        Self { digests }
    }

    /// Which accepted key this is, in a time that tells neither how much of it was right nor
    /// which one it was.
    pub fn accepts(&self, presented: &str) -> Option<KeyId> {
        let presented = KeyDigest::of(presented);
        let mut found = Choice::from(0);
        for digest in &self.digests {
            found |= digest.0.ct_eq(&presented.0);
        }
        // Equal digests have equal ids, so the presented one names the key without a look-up.
        bool::from(found).then(|| presented.id())
    }

    /// Whether no key is accepted.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Whether the two sets accept a key in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.digests.iter().any(|mine| {
            other
                .digests
                .iter()
                .any(|theirs| bool::from(mine.0.ct_eq(&theirs.0)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(texts: &[&str]) -> KeySet {
        KeySet::new(
            &texts
                .iter()
                .map(|text| Secret::new(*text))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_secret_prints_as_nothing() {
        let secret = Secret::new("canary");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", Some(&secret)),
            "[secret] [secret] Some([secret])"
        );
        assert!(!format!("{:?}", keys(&["canary"])).contains("canary"));
    }

    #[test]
    fn every_accepted_key_opens_and_nothing_near_it_does() {
        let set = keys(&["first-key", "second-key"]);
        assert!(set.accepts("first-key").is_some());
        assert!(set.accepts("second-key").is_some());
        for wrong in [
            "",
            "first-ke",
            "first-keys",
            "First-key",
            "first-key,second-key",
            " first-key",
        ] {
            assert_eq!(set.accepts(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_empty_set_accepts_nothing() {
        assert_eq!(KeySet::default().accepts(""), None);
        assert_eq!(keys(&[""]).accepts(""), None);
    }

    #[test]
    fn a_key_is_named_by_the_beginning_of_its_digest() {
        let id = keys(&["abc"]).accepts("abc").expect("accepted");
        assert_eq!(id.to_string(), "key:ba7816bf");
    }

    #[test]
    fn sets_overlap_when_they_share_a_key() {
        assert!(keys(&["a", "b"]).overlaps(&keys(&["c", "b"])));
        assert!(!keys(&["a"]).overlaps(&keys(&["b"])));
    }
}
