//! What careless and hostile callers send: texts that have broken other servers.

use gauntlet::seed::Numbers;

/// JSON texts, right and wrong, that may stand in any place.
const JSON: [&str; 56] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-0.0",
    "1",
    "-1",
    "1.0",
    "1.5",
    "1e2",
    "1E+2",
    "1e308",
    "1e400",
    "-1e400",
    "5e-324",
    "0.1e-400",
    "2147483647",
    "2147483648",
    "-2147483649",
    "32768",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "123456789012345678901234567890.5",
    "01",
    "+1",
    ".5",
    "1.",
    "0x10",
    "NaN",
    "Infinity",
    "nul",
    "[,]",
    "{,}",
    "{\"a\"}",
    "[1,]",
    "'a'",
    "\"\"",
    "\" \"",
    "\"\\u0000\"",
    "\"a\\u0000b\"",
    "\"\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"\\x\"",
    "\"\t\"",
    "{}",
    "[]",
    "[null]",
    "{\"\":{\"\":[[]]}}",
    "{\"\\u0000\":1}",
    "{\"a\":1,\"a\":2}",
    "\"\u{202e}\u{feff}\"",
    "\"00000000-0000-0000-0000-000000000000\"",
];

/// Texts that stand for instants, names and words.
const TEXTS: [&str; 31] = [
    "2026-01-02T03:04:05Z",
    "2026-01-02T03:04:05+23:59",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "2026-06-30T23:59:60Z",
    "2026-02-30T00:00:00Z",
    "-4713-01-01T00:00:00Z",
    "2026-01-02",
    "now",
    "infinity",
    "queued",
    "running",
    "failed",
    "aborted",
    "QUEUED",
    "metrics_refresh",
    "nobody_takes_it",
    "works",
    "A",
    "a-b",
    "a b",
    "_a",
    "default",
    "'; drop table ops_jobs; --",
    "%s%n",
    "../../etc/passwd",
    "${jndi:ldap://x}",
    "<script>",
    "a=b",
    "a:b=c",
    "*",
];

/// Pieces of a path or a query.
const PIECES: [&str; 30] = [
    "",
    ".",
    "..",
    "%2e%2e",
    "%2f",
    "%5c",
    "%00",
    "%FF%FE",
    "%C0%AF",
    "%F0%9F",
    "%",
    "%z",
    "%u0041",
    "+",
    "%2B",
    "%20",
    "//",
    ";a=b",
    "?",
    "&",
    "=",
    "&&==",
    "#",
    "%23",
    "\u{e9}",
    "{id}",
    "*",
    "jobs",
    "batch",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
];

/// Names of headers that change how a request is read.
pub(crate) const HEADERS: [&str; 26] = [
    "content-type",
    "content-length",
    "transfer-encoding",
    "expect",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "host",
    "x-request-id",
    "x-ops-key",
    "x-runner-token",
    "authorization",
    "idempotency-key",
    "accept",
    "accept-encoding",
    "content-encoding",
    "cookie",
    "origin",
    "access-control-request-method",
    "range",
    "if-none-match",
    "last-event-id",
    "x-forwarded-for",
    "x-http-method-override",
    "cache-control",
];

/// Values of headers.
const VALUES: [&str; 32] = [
    "",
    " ",
    "0",
    "-1",
    "+5",
    "5",
    "5, 5",
    "99999999999999999999",
    "0x10",
    "chunked",
    "gzip, chunked",
    "identity",
    "100-continue",
    "close",
    "keep-alive",
    "upgrade",
    "websocket",
    "application/json",
    "application/json; charset=utf-8",
    "application/json; charset=utf-16",
    "APPLICATION/JSON",
    "application/problem+json",
    "text/plain",
    "multipart/form-data",
    "application/",
    "Bearer",
    "Bearer  x",
    "Basic dXNlcg==",
    "https://a.example",
    "bytes=0-0,1-1",
    "\t",
    "\u{e9}",
];

/// Methods.
pub(crate) const METHODS: [&str; 15] = [
    "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "PRI",
    "BREW", "X", "M-SEARCH", "PROPFIND",
];

fn pick<'list>(numbers: &mut Numbers, list: &[&'list str]) -> &'list str {
    list[numbers.index(list.len())]
}

/// A JSON text.
pub(crate) fn json(numbers: &mut Numbers) -> Vec<u8> {
    match numbers.index(24) {
        0 => nested(numbers),
        1 => format!("\"{}\"", "x".repeat(long(numbers))).into_bytes(),
        2 => b"\"\xff\xfe\"".to_vec(),
        3 => b"\"\xed\xa0\x80\"".to_vec(),
        4 => vec![b'9'; long(numbers)],
        5..=9 => format!("\"{}\"", pick(numbers, &TEXTS)).into_bytes(),
        _ => pick(numbers, &JSON).as_bytes().to_vec(),
    }
}

/// Around the greatest depth that is taken, and far beyond.
fn nested(numbers: &mut Numbers) -> Vec<u8> {
    let depth = [1, 62, 63, 64, 65, 66, 127, 128, 129, 1000, 50_000][numbers.index(11)];
    let (open, close) = [("[", "]"), ("{\"a\":", "}")][numbers.index(2)];
    format!("{}1{}", open.repeat(depth), close.repeat(depth)).into_bytes()
}

/// Around the limits of names, keys, reasons, heads and bodies.
pub(crate) fn long(numbers: &mut Numbers) -> usize {
    let lengths = [
        63, 64, 65, 128, 255, 256, 257, 1000, 1001, 4096, 16_384, 70_000, 1_048_576,
    ];
    // The greatest are rare: they cost the most.
    let first = numbers.index(lengths.len());
    lengths[first.min(numbers.index(lengths.len()))]
}

/// A text for a query, a name or a header.
pub(crate) fn text(numbers: &mut Numbers) -> String {
    match numbers.index(8) {
        0 => "x".repeat(long(numbers).min(9000)),
        1 => pick(numbers, &PIECES).to_owned(),
        2 => String::from_utf8_lossy(&json(numbers))
            .chars()
            .take(300)
            .collect(),
        _ => pick(numbers, &TEXTS).to_owned(),
    }
}

/// A piece of a path or a query, percent-encoded or not.
pub(crate) fn piece(numbers: &mut Numbers) -> Vec<u8> {
    match numbers.index(8) {
        0 => vec![b'x'; long(numbers).min(20_000)],
        1 => noise(numbers, 12)
            .into_iter()
            .filter(|byte| !b" \r\n".contains(byte))
            .collect(),
        2 => encoded(&text(numbers)),
        _ => pick(numbers, &PIECES).as_bytes().to_vec(),
    }
}

/// A text, percent-encoded.
pub(crate) fn encoded(text: &str) -> Vec<u8> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let pieces = text.bytes().map(|byte| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    pieces.collect::<String>().into_bytes()
}

/// The value of a header, which holds no line break.
pub(crate) fn value(numbers: &mut Numbers) -> Vec<u8> {
    match numbers.index(6) {
        0 => vec![b'v'; long(numbers).min(20_000)],
        1 => text(numbers)
            .into_bytes()
            .into_iter()
            .filter(|byte| !b"\r\n\0".contains(byte))
            .collect(),
        2 => vec![0xff, b'a', 0x80],
        _ => pick(numbers, &VALUES).as_bytes().to_vec(),
    }
}

/// Bytes without a meaning.
pub(crate) fn noise(numbers: &mut Numbers, most: usize) -> Vec<u8> {
    let length = numbers.index(most) + 1;
    (0..length)
        .map(|_| numbers.draw().to_le_bytes()[0])
        .collect()
}
