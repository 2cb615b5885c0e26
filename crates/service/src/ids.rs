//! The services' one place of randomness. The ids of jobs are the database's, not made here.

use uuid::Uuid;

/// A new random request id, as text.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of randomness"
)]
pub fn request_id() -> String {
    Uuid::new_v4().to_string()
}

/// A new id that sorts by the time it was made on this host.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of randomness"
)]
pub fn uuid_v7() -> Uuid {
    Uuid::now_v7()
}

/// Random bytes from the operating system, fit for keys.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of randomness"
)]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    for chunk in bytes.chunks_mut(6) {
        // The first six bytes of a version 4 UUID hold no fixed bit.
        chunk.copy_from_slice(&Uuid::new_v4().as_bytes()[..chunk.len()]);
    }
    bytes
}

/// Random lower-case hexadecimal text of twice as many characters as `N`, fit for keys and names.
pub fn random_hex<const N: usize>() -> String {
    random_bytes::<N>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_text_has_its_length_and_does_not_repeat() {
        assert_eq!(random_hex::<20>().len(), 40);
        assert_ne!(random_hex::<20>(), random_hex::<20>());
        assert_ne!(request_id(), request_id());
    }

    #[test]
    fn every_random_byte_takes_every_value() {
        let mut seen = [[false; 256]; 16];
        for _ in 0..10_000 {
            for (place, byte) in random_bytes::<16>().into_iter().enumerate() {
                seen[place][usize::from(byte)] = true;
            }
        }
        assert!(seen.iter().flatten().all(|seen| *seen));
    }
}
