//! Connection addresses: made for our socket, or taken apart so that no password reaches a command line.

use std::fmt::Write as _;
use std::path::Path;

/// The superuser of every cluster that we make.
pub(crate) const SUPERUSER: &str = "postgres";

/// The port, which over a unix socket is only part of the socket's file name.
pub(crate) const PORT: u16 = 5432;

/// The address of a database over the socket in this directory.
pub(crate) fn over_socket(socket: &Path, database: &str) -> String {
    // The port stands there because clients else take it from PGPORT.
    format!(
        "postgres://{SUPERUSER}@localhost:{PORT}/{database}?host={}",
        encode(&socket.to_string_lossy())
    )
}

/// The same server, another database.
pub(crate) fn with_database(url: &str, database: &str) -> String {
    let (rest, query) = url
        .split_once('?')
        .map_or((url, None), |(rest, query)| (rest, Some(query)));
    let (scheme, after) = rest.split_once("://").unwrap_or(("postgres", rest));
    let authority = after
        .split_once('/')
        .map_or(after, |(authority, _)| authority);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}/{database}{query}")
}

/// The address without its password, and the password: between user and host, or among the parameters.
pub(crate) fn without_password(url: &str) -> (String, Option<String>) {
    let (address, query) = match url.split_once('?') {
        Some((address, query)) => (address, Some(query)),
        None => (url, None),
    };
    let (address, mut password) = without_login_password(address);
    let kept: Vec<&str> = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter(|parameter| match parameter.split_once('=') {
            Some(("password", given)) => {
                password = Some(decode(given));
                false
            }
            _ => true,
        })
        .collect();
    let query = if kept.is_empty() {
        String::new()
    } else {
        format!("?{}", kept.join("&"))
    };
    (format!("{address}{query}"), password)
}

fn without_login_password(address: &str) -> (String, Option<String>) {
    let whole = || (address.to_owned(), None);
    let Some((scheme, after)) = address.split_once("://") else {
        return whole();
    };
    let (authority, rest) = after.split_at(after.find('/').unwrap_or(after.len()));
    let Some((login, host)) = authority.rsplit_once('@') else {
        return whole();
    };
    match login.split_once(':') {
        Some((user, password)) => (
            format!("{scheme}://{user}@{host}{rest}"),
            Some(decode(password)),
        ),
        None => whole(),
    }
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = (first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() {
            after.get(2..).unwrap_or_default()
        } else {
            after
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_over_a_socket_names_user_port_database_and_directory() {
        assert_eq!(
            over_socket(Path::new("/a b/c"), "ops_jobs"),
            "postgres://postgres@localhost:5432/ops_jobs?host=/a%20b/c"
        );
    }

    #[test]
    fn another_database_keeps_everything_else() {
        let cases = [
            ("postgres://u:p@h:1/old?x=1", "postgres://u:p@h:1/new?x=1"),
            ("postgresql://h", "postgresql://h/new"),
            (
                "postgres://u@localhost/old?host=/a/b",
                "postgres://u@localhost/new?host=/a/b",
            ),
        ];
        for (url, expected) in cases {
            assert_eq!(with_database(url, "new"), expected);
        }
    }

    #[test]
    fn a_password_is_taken_out_and_decoded() {
        let (url, password) = without_password("postgres://me:p%40ss:1%@host:1/db?a=b@c");
        assert_eq!(url, "postgres://me@host:1/db?a=b@c");
        assert_eq!(password.as_deref(), Some("p@ss:1%"));
        assert_eq!(
            without_password("postgres://me@host/db"),
            ("postgres://me@host/db".to_owned(), None)
        );
        let (url, password) =
            without_password("postgres://me@host/db?sslmode=require&password=p%40ss&host=/a");
        assert_eq!(url, "postgres://me@host/db?sslmode=require&host=/a");
        assert_eq!(password.as_deref(), Some("p@ss"));
    }
}
