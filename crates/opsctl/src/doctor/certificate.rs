//! How long a certificate lasts: the one field of it that is looked at. That it is to be trusted is TLS's to say.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

use super::Came;

const SOON: Duration = Duration::days(21);

const UTC_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day][hour][minute][second]Z");

/// Whether it lasts a while yet, by this host's clock, as TLS sees it.
#[expect(
    clippy::disallowed_methods,
    reason = "TLS goes by the host's clock, so this does too"
)]
pub(super) fn lasts(der: &[u8]) -> Came {
    let Some(end) = end_of(der) else {
        return Came::Doubtful("its end cannot be read".to_owned());
    };
    let left = end - OffsetDateTime::now_utc();
    let said = format!(
        "it is good for {} days more, until {end}",
        left.whole_days()
    );
    if left < SOON {
        Came::Doubtful(format!("{said}: renew it"))
    } else {
        Came::Right(said)
    }
}

/// Tag, content and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        let length = digits
            .iter()
            .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        (length, rest)
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// `notAfter`: certificate, what is signed of it, its validity, the second of two instants.
fn end_of(der: &[u8]) -> Option<OffsetDateTime> {
    let (_, certificate, _) = element(der)?;
    let (_, mut rest, _) = element(certificate)?;
    if rest.first() == Some(&0xa0) {
        // The version, which the oldest do not have.
        rest = element(rest)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        // UTCTime has two digits of the year: from 50 on they are of the twentieth century.
        0x17 if text < "50" => format!("20{text}"),
        0x17 => format!("19{text}"),
        _ => text.to_owned(),
    };
    let instant = PrimitiveDateTime::parse(&text, UTC_TIME).ok()?;
    Some(instant.assume_utc())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn wrapped(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut der = vec![tag];
        match u8::try_from(content.len()) {
            Ok(length) if length < 0x80 => der.push(length),
            _ => {
                der.push(0x82);
                der.extend(u16::try_from(content.len()).expect("short").to_be_bytes());
            }
        }
        der.extend_from_slice(content);
        der
    }

    fn certificate(end: &[u8], tag: u8) -> Vec<u8> {
        let instants = [wrapped(0x17, b"240101000000Z"), wrapped(tag, end)].concat();
        let parts = [
            wrapped(0xa0, &wrapped(2, &[2])),
            wrapped(2, &[1; 20]),
            wrapped(0x30, &[5, 0]),
            wrapped(0x30, &[0; 200]),
            wrapped(0x30, &instants),
        ];
        wrapped(0x30, &wrapped(0x30, &parts.concat()))
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_ways_of_writing_it() {
        let end = end_of(&certificate(b"340102030405Z", 0x17));
        assert_eq!(end, Some(datetime!(2034-01-02 03:04:05 UTC)));
        let end = end_of(&certificate(b"20510102030405Z", 0x18));
        assert_eq!(end, Some(datetime!(2051-01-02 03:04:05 UTC)));
        assert!(matches!(
            lasts(&certificate(b"20510102030405Z", 0x18)),
            Came::Right(_)
        ));
        assert!(matches!(
            lasts(&certificate(b"200102030405Z", 0x17)),
            Came::Doubtful(_)
        ));
    }

    #[test]
    fn what_is_no_certificate_has_no_end_and_breaks_nothing() {
        let whole = certificate(b"340102030405Z", 0x17);
        for length in 0..whole.len() - 1 {
            assert_eq!(end_of(&whole[..length]), None, "{length}");
        }
    }
}
