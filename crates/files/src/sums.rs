//! Size and digests, counted while bytes pass by.

use jobs::Sum;
use sha2::{Digest as _, Sha256};

use crate::writer::Uploaded;

/// What has passed so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    size: u64,
    sha256: Sha256,
    crc32: crc32fast::Hasher,
}

impl Sums {
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.sha256.update(bytes);
        self.crc32.update(bytes);
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn sum(self) -> Sum {
        Sum {
            size: self.size,
            sha256: self.sha256.finalize().into(),
            crc32: self.crc32.finalize(),
        }
    }
}

/// Stands for names and bytes of files in their order: what an idempotency key is for, beside the request itself.
pub fn digest_of(files: &[Uploaded]) -> Option<[u8; 32]> {
    let mut all = Sha256::new();
    for Uploaded { name, sum, .. } in files {
        // The length parts the name from what follows.
        all.update((name.len() as u64).to_be_bytes());
        all.update(name.as_bytes());
        all.update(sum.sha256);
    }
    (!files.is_empty()).then(|| all.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bytes_and_their_order_all_matter() {
        let mut sums = Sums::default();
        sums.pass(b"a");
        let (a, empty) = (sums.sum(), Sums::default().sum());
        let file = |name: &str, sum: &Sum| Uploaded {
            id: uuid::Uuid::nil(),
            name: name.to_owned(),
            sum: *sum,
        };
        let uploads = [
            vec![file("x", &a), file("y", &empty)],
            vec![file("y", &empty), file("x", &a)],
            vec![file("x", &empty), file("y", &a)],
            vec![file("xy", &a)],
            vec![file("x", &a)],
        ];
        let digests: std::collections::BTreeSet<_> =
            uploads.iter().map(|files| digest_of(files)).collect();
        assert_eq!(digests.len(), 5);
        assert_eq!(digest_of(&[]), None);
    }
}
