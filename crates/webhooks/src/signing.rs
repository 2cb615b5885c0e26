//! What deliveries are signed with. The secret of an endpoint is derived, so that it stands nowhere: whoever has the key
//! can say it, and nobody else. Pure.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use service::Secret;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Keeps what is derived here apart from all else under the same key.
const SECRET_PURPOSE: &[u8] = b"ops-jobs webhook secret 1\0";
const KEY_PURPOSE: &[u8] = b"ops-jobs webhook signing key 1\0";

/// The signing key that a `SECRET_KEY` gives: what runners are told, who must not have the `SECRET_KEY` itself.
pub fn derived_signing_key(secret_key: &Secret) -> Secret {
    let derived = mac(secret_key.expose().as_bytes(), &[KEY_PURPOSE]);
    Secret::new(
        derived
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>(),
    )
}

/// The signing keys, the newest first. Prints nothing of them.
#[derive(Clone)]
pub struct SigningKeys(Vec<Secret>);

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKeys").field(&self.0.len()).finish()
    }
}

impl SigningKeys {
    /// `None` without any key: then nothing can be signed.
    pub fn new(keys: Vec<Secret>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// This one key.
    pub fn one(key: Secret) -> Self {
        Self(vec![key])
    }

    /// By which endpoints say whose secret they have: parts of the keys' digests.
    pub fn ids(&self) -> Vec<String> {
        let id = |key: &Secret| {
            let digest = Sha256::digest(mac(key.expose().as_bytes(), &[KEY_PURPOSE, b"id"]));
            digest[..4]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        };
        self.0.iter().map(id).collect()
    }

    /// The secret of an endpoint as its receiver is given it, by the newest key.
    pub fn secret(&self, webhook: Uuid, version: i32) -> Secret {
        let key = self.0.first().cloned().unwrap_or_default();
        Secret::new(format!(
            "whsec_{}",
            STANDARD.encode(endpoint_key(&key, webhook, version))
        ))
    }

    /// The value of `webhook-signature`: one signature a key, and as many again while the endpoint's old secret holds.
    pub(crate) fn signatures(
        &self,
        webhook: Uuid,
        version: i32,
        old_secret: bool,
        message: &Message<'_>,
    ) -> String {
        let oldest = if old_secret { version - 1 } else { version };
        let versions = (oldest..=version).rev();
        let signatures: Vec<String> = versions
            .flat_map(|version| {
                let keys = self.0.iter();
                keys.map(move |key| message.signature(&endpoint_key(key, webhook, version)))
            })
            .collect();
        signatures.join(" ")
    }
}

fn endpoint_key(key: &Secret, webhook: Uuid, version: i32) -> [u8; 32] {
    mac(
        key.expose().as_bytes(),
        &[SECRET_PURPOSE, webhook.as_bytes(), &version.to_be_bytes()],
    )
}

/// What is signed.
pub(crate) struct Message<'a> {
    pub(crate) id: &'a str,
    pub(crate) unix_seconds: i64,
    pub(crate) body: &'a str,
}

impl Message<'_> {
    fn signature(&self, key: &[u8]) -> String {
        let seconds = self.unix_seconds.to_string();
        let parts = [
            self.id.as_bytes(),
            b".",
            seconds.as_bytes(),
            b".",
            self.body.as_bytes(),
        ];
        format!("v1,{}", STANDARD.encode(mac(key, &parts)))
    }
}

/// HMAC-SHA256 over the parts, one after another.
fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // What is longer than a block is hashed first, as HMAC itself has it; a block of any bytes is a right key.
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mac = Hmac::<Sha256>::new(&block.into());
    let mac = parts.iter().fold(mac, |mac, part| mac.chain_update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEBHOOK: Uuid = Uuid::from_u128(7);

    fn keys(keys: &[&str]) -> SigningKeys {
        SigningKeys::new(keys.iter().map(|key| Secret::new(*key)).collect()).expect("keys")
    }

    fn message() -> Message<'static> {
        Message {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
            unix_seconds: 1_614_265_330,
            body: r#"{"test": 2432232314}"#,
        }
    }

    /// The vector that the reference libraries of Standard Webhooks are tested with.
    #[test]
    fn a_message_is_signed_as_the_published_vector_has_it() {
        let key = STANDARD
            .decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            .expect("base64");
        assert_eq!(
            message().signature(&key),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    /// RFC 4231, cases 1, 2 and 6: a key shorter than a block, and one that is longer.
    #[test]
    fn a_mac_is_what_the_standard_says() {
        let hex = |bytes: [u8; 32]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(mac(&[0x0b; 20], &[b"Hi ", b"There"])),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            hex(mac(b"Jefe", &[b"what do ya want for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(mac(
                &[0xaa; 131],
                &[b"Test Using Larger Than Block-Size Key - Hash Key First"]
            )),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn a_secret_depends_on_key_endpoint_and_version_and_on_nothing_else() {
        let one = keys(&["one"]);
        let secret = one.secret(WEBHOOK, 1);
        assert!(secret.expose().starts_with("whsec_"));
        assert_eq!(
            secret.expose(),
            keys(&["one", "two"]).secret(WEBHOOK, 1).expose()
        );
        for other in [
            keys(&["two"]).secret(WEBHOOK, 1),
            one.secret(Uuid::from_u128(8), 1),
            one.secret(WEBHOOK, 2),
        ] {
            assert_ne!(secret.expose(), other.expose());
        }
        assert_eq!(format!("{one:?} {secret:?}"), "SigningKeys(1) [secret]");
    }

    #[test]
    fn during_a_rotation_each_secret_has_its_signature() {
        let signatures = |keys: &SigningKeys, version, old| {
            let all = keys.signatures(WEBHOOK, version, old, &message());
            all.split(' ').map(str::to_owned).collect::<Vec<_>>()
        };
        let (old, new) = (keys(&["old"]), keys(&["new", "old"]));
        assert_eq!(signatures(&old, 1, false).len(), 1);
        assert!(signatures(&new, 1, false).contains(&signatures(&old, 1, false)[0]));
        let rotated = signatures(&old, 2, true);
        assert_eq!(rotated.len(), 2);
        assert!(rotated.contains(&signatures(&old, 1, false)[0]));
        assert!(!signatures(&old, 2, false).contains(&signatures(&old, 1, false)[0]));
    }

    #[test]
    fn what_is_derived_for_runners_tells_nothing_of_the_secret_key() {
        let derived = derived_signing_key(&Secret::new("canary"));
        assert_eq!(derived.length(), 64);
        assert!(!derived.expose().contains("canary"));
        assert_ne!(keys(&["a"]).ids(), keys(&["b"]).ids());
        assert_eq!(keys(&["a", "b"]).ids()[1], keys(&["b"]).ids()[0]);
    }
}
