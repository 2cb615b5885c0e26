//! The text of one setting to its typed value. Pure; what it says never bears the text.

use std::net::SocketAddr;

use url::{Host, Url};

use super::table::Kind;
use super::values::wrong_kind;

/// What is wrong with a text and what to do.
pub(super) type Fault = String;

pub(super) fn switch(text: &str) -> Result<bool, Fault> {
    match text.trim() {
        "1" => Ok(true),
        "0" => Ok(false),
        word if word.eq_ignore_ascii_case("true") => Ok(true),
        word if word.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(wrong_kind(Kind::Switch)),
    }
}

/// A whole number within the bounds of its kind.
pub(super) fn whole(kind: Kind, text: &str) -> Result<u64, Fault> {
    let (Kind::Integer(low, high) | Kind::Seconds(low, high)) = kind else {
        return Err(wrong_kind(kind));
    };
    let digits = text.trim();
    // u64's own parser would take a leading plus sign.
    let number = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse::<u64>().ok())
        .flatten()
        .ok_or_else(|| wrong_kind(kind))?;
    if (low..=high).contains(&number) {
        Ok(number)
    } else {
        Err(format!("is out of range: set it to {}", kind.describe()))
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, Fault> {
    text.trim()
        .parse()
        .map_err(|_| "is no IP address and port: write it like 127.0.0.1:8000".to_owned())
}

pub(super) fn url(text: &str) -> Result<Url, Fault> {
    let wrong = || "is no http:// or https:// address: write it like https://host:8010".to_owned();
    let url = Url::parse(text.trim()).map_err(|_| wrong())?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err(wrong())
    }
}

pub(super) fn database_url(text: &str) -> Result<(), Fault> {
    let wrong =
        || "is no PostgreSQL address: write it like postgres://user@host:5432/database".to_owned();
    let url = Url::parse(text).map_err(|_| wrong())?;
    if matches!(url.scheme(), "postgres" | "postgresql") {
        Ok(())
    } else {
        Err(wrong())
    }
}

pub(super) fn choice(words: &[&'static str], text: &str) -> Result<&'static str, Fault> {
    words
        .iter()
        .copied()
        .find(|word| *word == text.trim())
        .ok_or_else(|| format!("is no known word: set it to one of {}", words.join(", ")))
}

/// The items of a comma-separated text, trimmed, without the empty ones.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// Whether an address leads to this machine, as it is written.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_one_of_four_words() {
        for (text, expected) in [("1", true), ("true", true), ("0", false), ("False", false)] {
            assert_eq!(switch(text), Ok(expected), "{text}");
        }
        for text in ["yes", "2", "on", "t"] {
            assert!(switch(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_whole_number_is_digits_within_its_bounds() {
        let kind = Kind::Integer(1, 10);
        assert_eq!(whole(kind, "10"), Ok(10));
        assert_eq!(whole(kind, " 7 "), Ok(7));
        assert_eq!(whole(kind, "007"), Ok(7));
        for text in [
            "0",
            "11",
            "-1",
            "+1",
            "1.0",
            "1s",
            "",
            "99999999999999999999",
        ] {
            assert!(whole(kind, text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_postgresql_is_a_database() {
        for text in [
            "postgres://h/d",
            "postgresql:///d?host=/tmp",
            "postgres://u:p@h:1/d",
        ] {
            assert_eq!(database_url(text), Ok(()), "{text}");
        }
        for text in [
            "sqlite:a.db",
            "sqlite::memory:",
            "mysql://h/d",
            "host=h",
            "postgres",
            " ",
        ] {
            let fault = database_url(text).expect_err(text);
            assert!(fault.contains("PostgreSQL"), "{fault}");
        }
    }

    #[test]
    fn an_address_needs_a_scheme_and_a_host() {
        assert!(url("https://runner.internal:8010/base").is_ok());
        for text in ["runner:8010", "ftp://h", "http://", "/run", "h"] {
            assert!(url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn empty_items_are_dropped() {
        assert_eq!(items(" a, ,b,,").collect::<Vec<_>>(), ["a", "b"]);
    }
}
