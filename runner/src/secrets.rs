//! What is secret of all that the runner was told: its own settings and the environment of its commands. Opens secrets
//! only to mask them.

use reqwest::Url;

use crate::config::{DeclaredType, DeclaredWork};

/// A variable whose name has one of these words in it holds a secret.
const WORDS: [&str; 18] = [
    "SECRET",
    "SECRETS",
    "TOKEN",
    "TOKENS",
    "PASSWORD",
    "PASSWD",
    "PASS",
    "PWD",
    "PASSPHRASE",
    "KEY",
    "KEYS",
    "APIKEY",
    "CREDENTIAL",
    "CREDENTIALS",
    "AUTH",
    "AUTHORIZATION",
    "COOKIE",
    "DSN",
];
/// Names are not always written in words.
const PARTS: [&str; 5] = ["SECRET", "TOKEN", "PASSWORD", "APIKEY", "CREDENTIAL"];

/// The secrets of a declared type: of its environment, or of its address and headers.
pub(crate) fn of_type(table: &DeclaredType) -> Vec<String> {
    match &table.work {
        DeclaredWork::Command(line) => of_environment(
            line.environment
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        ),
        DeclaredWork::Http(call) => {
            let headers = call
                .headers
                .iter()
                .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
            let mut secrets = of_environment(headers);
            // `Bearer x`: x is one by itself, too.
            let bare = secrets
                .iter()
                .filter_map(|secret| Some(secret.split_once(' ')?.1.trim().to_owned()));
            let bare: Vec<String> = bare.collect();
            secrets.extend(bare);
            secrets.extend(of_address(call.url.as_str()));
            secrets
        }
    }
}

/// The secrets of an environment: what is named like one, and passwords in addresses.
pub(crate) fn of_environment<'value>(
    environment: impl IntoIterator<Item = (&'value str, &'value str)>,
) -> Vec<String> {
    let mut secrets = Vec::new();
    for (name, value) in environment {
        if names_a_secret(name) {
            secrets.push(value.to_owned());
        }
        secrets.extend(of_address(value));
    }
    secrets
}

fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    // The shell's own PWD is a folder.
    let words = || {
        name.split(['_', '-'])
            .filter(|word| *word != name || *word != "PWD")
    };
    words().any(|word| WORDS.contains(&word)) || PARTS.iter().any(|part| name.contains(part))
}

/// The password in an address, as it is written and as it is meant, and the whole address where it has one.
pub(crate) fn of_address(text: &str) -> Vec<String> {
    let Ok(url) = Url::parse(text) else {
        return Vec::new();
    };
    let mut secrets = Vec::new();
    if let Some(password) = url.password().filter(|password| !password.is_empty()) {
        secrets.push(password.to_owned());
        secrets.push(percent_decoded(password));
        // As it was typed: the parser writes some characters otherwise.
        let typed = text
            .split_once("://")
            .and_then(|(_, rest)| rest.rsplit_once('@'));
        let typed = typed.and_then(|(user, _)| user.split_once(':'));
        secrets.extend(typed.map(|(_, password)| password.to_owned()));
    }
    for (name, value) in url.query_pairs() {
        if names_a_secret(&name) {
            secrets.push(value.into_owned());
        }
    }
    if !secrets.is_empty() {
        secrets.push(text.to_owned());
    }
    secrets
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let digits = others
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        (rest, _) = match byte {
            Some(byte) if *first == b'%' => (&others[2..], bytes.push(byte)),
            _ => (others, bytes.push(*first)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_name() {
        for name in [
            "API_KEY",
            "github_token",
            "DB_PWD",
            "MYSECRET",
            "dbpassword",
            "SSH_PRIVATE_KEY",
            "AUTH",
            "Authorization",
            "x-api-key",
        ] {
            assert!(names_a_secret(name), "{name}");
        }
        for name in [
            "INDEX",
            "PWD",
            "KEYBOARD",
            "MONKEY",
            "AUTHOR",
            "PATH",
            "BYPASS_CACHE",
        ] {
            assert!(!names_a_secret(name), "{name}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_a_secret_in_each_way_of_writing_it() {
        let secrets = of_address("postgres://u:p%40ss%2Fword@h/d?password=other-one");
        for secret in ["p%40ss%2Fword", "p@ss/word", "other-one"] {
            assert!(
                secrets.iter().any(|found| found == secret),
                "{secret}: {secrets:?}"
            );
        }
        assert!(of_address("https://host/path?page=2").is_empty());
        assert!(of_address("no address").is_empty());
        let secrets = of_environment([
            ("WHERE", "redis://:hidden@h"),
            ("API_KEY", "k1"),
            ("MODE", "fast"),
        ]);
        assert!(secrets.contains(&"hidden".to_owned()) && secrets.contains(&"k1".to_owned()));
        assert!(!secrets.contains(&"fast".to_owned()));
    }
}
