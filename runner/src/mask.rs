//! Keeps secrets out of what handlers print: masks them, and the forms in which they are usually passed on, in a stream
//! that may be cut anywhere. Knows nothing of lines, jobs or settings.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// What stands in a secret's place.
const MASK: &[u8] = b"[masked]";
/// Shorter ones would mask words that are none; who has so short a secret has none.
const SHORTEST: usize = 6;
/// A line of a secret of several lines is a secret of its own from this length on.
const SHORTEST_LINE: usize = 16;
/// The beginning of a secret at the end of everything is taken for one that was cut off from this length on.
const CUT_OFF: usize = 8;

/// The secrets of one job type, in every form that is looked for.
pub(crate) struct Masks {
    /// `None`: there are none.
    automaton: Option<AhoCorasick>,
    /// Sorted.
    patterns: Vec<Vec<u8>>,
    longest: usize,
    first_bytes: [bool; 256],
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masks({} patterns)", self.patterns.len())
    }
}

impl Masks {
    pub(crate) fn new<'secret>(secrets: impl IntoIterator<Item = &'secret str>) -> Self {
        let mut patterns = BTreeSet::new();
        for secret in secrets {
            add_forms(secret.trim(), SHORTEST, &mut patterns);
            if secret.trim().contains('\n') {
                for line in secret.lines() {
                    add_forms(line.trim(), SHORTEST_LINE, &mut patterns);
                }
            }
        }
        let patterns: Vec<_> = patterns.into_iter().collect();
        let mut first_bytes = [false; 256];
        for pattern in &patterns {
            first_bytes[usize::from(pattern[0])] = true;
        }
        // It can only fail for more patterns than fit into memory.
        let automaton = (!patterns.is_empty())
            .then(|| AhoCorasick::new(&patterns).ok())
            .flatten();
        Self {
            automaton,
            longest: patterns.iter().map(Vec::len).max().unwrap_or(0),
            patterns,
            first_bytes,
        }
    }

    /// A whole text, with what is secret in it masked.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut clean = Vec::with_capacity(text.len());
        self.write(text.as_bytes(), 0, text.len(), |piece| {
            clean.extend_from_slice(piece);
        });
        String::from_utf8_lossy(&clean).into_owned()
    }

    /// JSON with every text in it masked.
    pub(crate) fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(members) => Value::Object(
                members
                    .into_iter()
                    .map(|(key, member)| (self.text(&key), self.value(member)))
                    .collect(),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    /// Gives the bytes before `end` without what is secret in them, of which the first `covered` were given as a mask
    /// already; gives back up to where a mask reaches. What begins at `end` or after it is left for later.
    fn write(
        &self,
        bytes: &[u8],
        covered: usize,
        end: usize,
        mut give: impl FnMut(&[u8]),
    ) -> usize {
        let mut covered = covered;
        for (from, to) in self.found(bytes) {
            if from >= end {
                break;
            }
            if from > covered || (from == covered && covered == 0) {
                give(&bytes[covered..from]);
                give(MASK);
            } else if from == covered {
                give(MASK);
            }
            covered = covered.max(to);
        }
        if covered < end {
            give(&bytes[covered..end]);
        }
        covered
    }

    /// Where secrets stand, also those that overlap, in the order of their beginnings.
    fn found(&self, bytes: &[u8]) -> Vec<(usize, usize)> {
        let Some(automaton) = &self.automaton else {
            return Vec::new();
        };
        // Nearly always there is none, and this is the fastest way to know.
        if !automaton.is_match(bytes) {
            return Vec::new();
        }
        let found = automaton.find_overlapping_iter(bytes);
        let mut found: Vec<_> = found.map(|found| (found.start(), found.end())).collect();
        found.sort_unstable();
        found
    }

    /// Where a secret may begin whose end is still to come; the length of the bytes where none does.
    fn may_begin(&self, bytes: &[u8]) -> usize {
        let first = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        let begins = |from: &usize| {
            let rest = &bytes[*from..];
            self.first_bytes[usize::from(rest[0])] && {
                let at = self
                    .patterns
                    .partition_point(|pattern| pattern.as_slice() < rest);
                self.patterns[at..]
                    .iter()
                    .take(2)
                    .any(|pattern| pattern.len() > rest.len() && pattern.starts_with(rest))
            }
        };
        (first..bytes.len()).find(begins).unwrap_or(bytes.len())
    }
}

/// One stream on its way through the masks.
#[derive(Debug)]
pub(crate) struct Masker {
    masks: Arc<Masks>,
    /// What may be the beginning of a secret.
    held: Vec<u8>,
    /// How much of it was masked already.
    covered: usize,
}

impl Masker {
    pub(crate) fn new(masks: Arc<Masks>) -> Self {
        Self {
            masks,
            held: Vec::new(),
            covered: 0,
        }
    }

    /// Takes the next bytes, and gives those that can be told from secrets by now.
    pub(crate) fn push(&mut self, bytes: &[u8], give: impl FnMut(&[u8])) {
        let mut held = std::mem::take(&mut self.held);
        let bytes = if held.is_empty() {
            bytes
        } else {
            held.extend_from_slice(bytes);
            &held
        };
        let end = self.masks.may_begin(bytes);
        let covered = self.masks.write(bytes, self.covered, end, give);
        self.covered = covered.saturating_sub(end);
        self.held = bytes[end..].to_vec();
    }

    /// Gives what is still held, at the end of the stream.
    pub(crate) fn finish(&mut self, mut give: impl FnMut(&[u8])) {
        let held = std::mem::take(&mut self.held);
        let covered = std::mem::take(&mut self.covered);
        if held.len() >= CUT_OFF {
            if covered < held.len() {
                give(MASK);
            }
        } else {
            self.masks.write(&held, covered, held.len(), give);
        }
    }
}

/// Adds a secret as it is, and as it looks in JSON, in hexadecimal, in base64 and in addresses.
fn add_forms(secret: &str, shortest: usize, patterns: &mut BTreeSet<Vec<u8>>) {
    if secret.len() < shortest {
        return;
    }
    let bytes = secret.as_bytes();
    let mut add = |form: String| {
        if form.len() >= SHORTEST {
            patterns.insert(form.into_bytes());
        }
    };
    add(secret.to_owned());
    let json = Value::from(secret).to_string();
    let json = &json[1..json.len() - 1];
    for form in [json.to_owned(), in_ascii(json)] {
        add(form.replace('/', "\\/"));
        add(form);
    }
    add(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    add(bytes.iter().map(|byte| format!("{byte:02X}")).collect());
    for before in 0..3 {
        // In base64, three bytes are four characters: with one or two bytes before it, the secret looks different.
        let mut text = vec![0; before];
        text.extend_from_slice(bytes);
        let from = [0, 2, 3][before];
        let to = text.len() * 8 / 6;
        for encoded in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
            add(encoded[from..to].to_owned());
        }
    }
    for kept in ["-_.~", "-_.!~*'()", "-_.~/", "-_.*", ";,/?:@&=+$#-_.!~*'()"] {
        for (lower, space) in [(false, "%20"), (true, "%20"), (false, "+")] {
            add(percent_encoded(bytes, kept, lower, space));
        }
    }
}

/// JSON as those write it who leave nothing but ASCII in it.
fn in_ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            ascii.push(letter);
        } else {
            let units = letter.encode_utf16(&mut [0; 2]).to_vec();
            ascii.extend(units.into_iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    ascii
}

fn percent_encoded(bytes: &[u8], kept: &str, lower: bool, space: &str) -> String {
    let of = |byte: &u8| match *byte {
        byte if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) => {
            char::from(byte).to_string()
        }
        b' ' => space.to_owned(),
        byte if lower => format!("%{byte:02x}"),
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr3t/with+odd=chars&\"quotes\" ü";

    fn masked(secrets: &[&str], pieces: &[&[u8]]) -> String {
        let mut masker = Masker::new(Arc::new(Masks::new(secrets.iter().copied())));
        let mut clean = Vec::new();
        for piece in pieces {
            masker.push(piece, |bytes| {
                clean.extend_from_slice(bytes);
            });
        }
        masker.finish(|bytes| {
            clean.extend_from_slice(bytes);
        });
        String::from_utf8_lossy(&clean).into_owned()
    }

    /// The same text, whole and cut at every place.
    fn masked_everywhere(secrets: &[&str], text: &str) -> String {
        let whole = masked(secrets, &[text.as_bytes()]);
        for cut in 0..text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            assert_eq!(masked(secrets, &[first, second]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(masked(secrets, &bytes), whole, "byte by byte");
        whole
    }

    #[test]
    fn a_secret_is_masked_wherever_it_is_cut() {
        let text = format!("before {SECRET} after\n{SECRET}{SECRET}\n");
        assert_eq!(
            masked_everywhere(&[SECRET], &text),
            "before [masked] after\n[masked][masked]\n"
        );
    }

    #[test]
    fn the_usual_forms_of_a_secret_are_masked_too() {
        let json = Value::from(SECRET).to_string();
        assert_eq!(masked_everywhere(&[SECRET], &json), "\"[masked]\"");
        for other in [json.replace('ü', "\\u00fc"), json.replace('/', "\\/")] {
            assert_eq!(masked_everywhere(&[SECRET], &other), "\"[masked]\"");
        }
        let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            masked_everywhere(&[SECRET], &format!("0x{hex}!")),
            "0x[masked]!"
        );
        for encoded in [
            "s3cr3t%2Fwith%2Bodd%3Dchars%26%22quotes%22%20%C3%BC",
            "s3cr3t%2fwith%2bodd%3dchars%26%22quotes%22%20%c3%bc",
            "s3cr3t%2Fwith%2Bodd%3Dchars%26%22quotes%22+%C3%BC",
            "s3cr3t/with%2Bodd%3Dchars%26%22quotes%22%20%C3%BC",
            "s3cr3t/with+odd=chars&%22quotes%22%20%C3%BC",
        ] {
            assert_eq!(
                masked_everywhere(&[SECRET], &format!("?a={encoded};b")),
                "?a=[masked];b"
            );
        }
    }

    #[test]
    fn base64_is_masked_whatever_stands_before_and_after_it() {
        for secret in [
            "a-token-of-18-char",
            "a-token-of-19-chars",
            "a-token-of-20-chars!",
        ] {
            for before in ["", "u", "us", "use", "user:"] {
                for after in ["", "x", "xy", "xyz"] {
                    let text = format!("{before}{secret}{after}");
                    for encoded in [
                        base64::engine::general_purpose::STANDARD.encode(&text),
                        URL_SAFE_NO_PAD.encode(&text),
                    ] {
                        let clean = masked_everywhere(&[secret], &encoded);
                        assert!(clean.contains("[masked]"), "{text}: {clean}");
                        // At most what stands around it, and the bits that it shares a character with.
                        let rest = clean.replace("[masked]", "");
                        assert!(
                            rest.len() <= (before.len() + after.len()) * 8 / 6 + 6,
                            "{text}: {clean}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn secrets_that_overlap_leave_nothing_of_either() {
        let secrets = ["abcdefgh", "efghijkl", "abcdefghXYZ", "efghijklmnop"];
        assert_eq!(masked_everywhere(&secrets, "-abcdefghijkl-"), "-[masked]-");
        assert_eq!(masked_everywhere(&secrets, "-abcdefghXYZ-"), "-[masked]-");
        assert_eq!(
            masked_everywhere(&secrets, "-abcdefghijklmnop-abcdefgh"),
            "-[masked]-[masked]"
        );
    }

    #[test]
    fn a_secret_of_several_lines_is_masked_as_a_whole_and_by_its_lines() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nshort\n-----END KEY-----\n";
        assert_eq!(
            masked_everywhere(&[key], &format!("<{key}>")),
            "<[masked]\n>"
        );
        assert_eq!(
            masked_everywhere(&[key], "  MIIEvQIBADANBgkqhkiG9w0\r\n"),
            "  [masked]\r\n"
        );
        assert_eq!(
            masked_everywhere(&[key], "a short line\n"),
            "a short line\n"
        );
    }

    #[test]
    fn what_cannot_be_a_secret_is_not_held_back() {
        let mut masker = Masker::new(Arc::new(Masks::new([SECRET, "another\nsecret"])));
        for line in ["a whole line\n", "half a line", " s3cr3 and so on\n"] {
            let mut clean = Vec::new();
            masker.push(line.as_bytes(), |bytes| {
                clean.extend_from_slice(bytes);
            });
            assert_eq!(clean, line.as_bytes());
        }
    }

    #[test]
    fn the_beginning_of_a_secret_at_the_end_of_everything_is_masked() {
        assert_eq!(masked(&[SECRET], &[b"x s3cr3t/with+o"]), "x [masked]");
        assert_eq!(masked(&[SECRET], &[b"x s3c"]), "x s3c");
    }

    #[test]
    fn whatever_is_printed_however_it_is_cut_no_secret_is_left_and_nothing_else_is_lost() {
        use proptest::prelude::*;
        let secrets = [
            "hunter2hunter2",
            "ter2hun",
            "aaaaaaab",
            "p%40ss/w+rd=",
            "zwölf Zeichen",
        ];
        let masks = Arc::new(Masks::new(secrets));
        let patterns: Vec<String> = masks
            .patterns
            .iter()
            .map(|pattern| String::from_utf8_lossy(pattern).into_owned())
            .collect();
        // Words, whole patterns, and the beginnings of some.
        let piece = prop_oneof![
            "[a-z2 \n/+=%]{0,6}",
            proptest::sample::select(patterns.clone()),
            (proptest::sample::select(patterns), 0..9_usize)
                .prop_map(|(pattern, length)| { pattern.chars().take(length).collect::<String>() }),
        ];
        let text = proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
        let cuts = proptest::collection::vec(1..9_usize, 1..40);
        proptest!(|(text in text, cuts in cuts)| {
            let mut masker = Masker::new(Arc::clone(&masks));
            let (mut clean, mut rest) = (Vec::new(), text.as_bytes());
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(cut.min(rest.len()));
                masker.push(now, |bytes| clean.extend_from_slice(bytes));
                rest = later;
            }
            masker.finish(|bytes| clean.extend_from_slice(bytes));
            let clean = String::from_utf8_lossy(&clean).into_owned();
            let parts: Vec<&str> = clean.split("[masked]").collect();
            for part in &parts {
                for secret in secrets {
                    prop_assert!(!part.contains(secret), "{text:?}: {clean:?}");
                }
            }
            // What is left stands in the text, in its order.
            let mut from = 0;
            for part in parts {
                let at = text[from..].find(part);
                prop_assert!(at.is_some(), "{text:?}: {clean:?}");
                from += at.unwrap_or(0) + part.len();
            }
        });
    }

    #[test]
    fn short_words_and_no_secrets_mask_nothing() {
        assert_eq!(
            masked_everywhere(&["1", "", "prod", "  "], "1 prod\n"),
            "1 prod\n"
        );
        assert_eq!(masked_everywhere(&[], "text"), "text");
    }

    #[test]
    fn a_value_is_masked_down_to_its_keys() {
        let masks = Masks::new(["topsecret"]);
        let value = serde_json::json!({"message": "is topsecret", "a": ["topsecret", 1], "topsecret": null});
        assert_eq!(
            masks.value(value),
            serde_json::json!({"message": "is [masked]", "a": ["[masked]", 1], "[masked]": null})
        );
    }
}
