//! A look at the raw text of a JSON body before it is parsed: how deep it nests, and which of its
//! numbers would come out of the parser changed.
//!
//! The parser turns integers beyond 64 bits into floats and tiny floats into zero without a word,
//! and answers a number out of range as if the text were malformed; after parsing it is too late.

/// What a raw look at a text has found.
pub(super) struct Scan {
    /// How many arrays and objects are open at once, at most.
    pub(super) depth: usize,
    /// The text with each number that cannot be kept replaced by a zero of the same length.
    pub(super) text: Vec<u8>,
    /// Which numbers of the text, counted from zero, these were.
    pub(super) refused: Vec<usize>,
}

/// Looks at a text, which may be malformed.
pub(super) fn scan(text: &[u8]) -> Scan {
    let mut scan = Scan {
        depth: 0,
        text: text.to_vec(),
        refused: Vec::new(),
    };
    let (mut at, mut open, mut numbers) = (0, 0_usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = string_end(text, at),
            b'{' | b'[' => {
                open += 1;
                scan.depth = scan.depth.max(open);
            }
            b'}' | b']' => open = open.saturating_sub(1),
            b'-' | b'0'..=b'9' => {
                let end = number_end(text, at);
                if is_changed_by_parsing(&text[at..end]) {
                    scan.refused.push(numbers);
                    scan.text[at..end].fill(b' ');
                    scan.text[at] = b'0';
                }
                numbers += 1;
                at = end - 1;
            }
            _ => {}
        }
        at += 1;
    }
    scan
}

/// The index of a string's closing quote, or of the last byte if there is none.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

fn number_end(text: &[u8], start: usize) -> usize {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    start
        + text[start..]
            .iter()
            .take_while(|byte| is_part(byte))
            .count()
}

/// Whether a token is a JSON number which neither 64 bits nor a float can hold as it is written.
fn is_changed_by_parsing(token: &[u8]) -> bool {
    let Some(written) = std::str::from_utf8(token)
        .ok()
        .filter(|text| is_json_number(text))
    else {
        return false; // The parser says what is wrong with it.
    };
    if written.contains(['.', 'e', 'E']) {
        let Ok(float) = written.parse::<f64>() else {
            return true;
        };
        // As it will be written again: of two decimals that are equally near to a float, others may choose the other one.
        return !float.is_finite()
            || serde_json::to_string(&float)
                .is_ok_and(|again| Decimal::of(written) != Decimal::of(&again));
    }
    written.parse::<i64>().is_err() && written.parse::<u64>().is_err()
}

fn is_json_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)))
}

/// A number's value apart from how it is written: its digits and the power of ten of the last.
#[derive(PartialEq, Eq)]
struct Decimal {
    digits: String,
    power: i64,
}

impl Decimal {
    fn of(written: &str) -> Self {
        let unsigned = written.trim_start_matches('-');
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let kept = digits.trim_end_matches('0');
        let dropped = digits.len() - kept.len();
        let shift = i64::try_from(dropped).unwrap_or(i64::MAX)
            - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
        let kept = kept.trim_start_matches('0');
        if kept.is_empty() {
            return Self {
                digits: String::new(),
                power: 0,
            };
        }
        // An exponent that no i64 holds belongs to no float but zero and infinity.
        let exponent = exponent.parse::<i64>().unwrap_or(i64::MAX);
        Self {
            digits: kept.to_owned(),
            power: exponent.saturating_add(shift),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_come_out_as_written_are_kept() {
        for text in [
            "0",
            "-0",
            "7",
            "-9223372036854775808",
            "18446744073709551615",
            "0.1",
            "1.10",
            "1e5",
            "-2.5E-3",
            "1e308",
            "0.0",
            "0e400",
            "123456789.123",
            "1e22",
            "100.0",
            "5e-324",
            "2221470802759583.2",
        ] {
            assert!(!is_changed_by_parsing(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn numbers_that_would_come_out_changed_are_refused() {
        for text in [
            "18446744073709551616",
            "-9223372036854775809",
            "12345678901234567890123",
            "1e400",
            "-1e400",
            "1e-400",
            "0.1000000000000000055511151231257827",
            "1e99999999999999999999",
            "9007199254740993.0",
        ] {
            assert!(is_changed_by_parsing(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_left_to_the_parser() {
        for text in ["01", "1.", "-", "1e", "1-2", "--1", "1.2.3"] {
            assert!(!is_changed_by_parsing(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn strings_hide_brackets_and_numbers() {
        let scan = scan(br#"{"a [[[ 1e400 \" [": [1, 1e400, "]"], "b": 99999999999999999999}"#);
        assert_eq!(scan.depth, 2);
        assert_eq!(scan.refused, [1, 2]);
        assert_eq!(
            String::from_utf8(scan.text).expect("text"),
            r#"{"a [[[ 1e400 \" [": [1, 0    , "]"], "b": 0                   }"#
        );
    }

    #[test]
    fn malformed_text_is_scanned_without_harm() {
        for text in ["\"", "\"\\", "]]]]", "[", "-", "{\"a\":", "1e"] {
            scan(text.as_bytes());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_scanned_without_harm(bytes: Vec<u8>) {
            scan(&bytes);
        }

        #[test]
        fn every_finite_float_is_kept(float in proptest::num::f64::NORMAL) {
            let text = serde_json::to_string(&float).expect("JSON");
            proptest::prop_assert!(!is_changed_by_parsing(text.as_bytes()), "{}", text);
        }
    }
}
