//! The one way to make an HTTP client: bounded, without redirects, without a proxy from nowhere.

use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect;

use crate::egress::{self, Egress, Guarded};

/// A client whose every call ends within `timeout`, connecting included.
///
/// It follows no redirect, because a redirect would carry credentials to where they were not
/// meant. It ignores `HTTP_PROXY` and its kin: what is not a setting of ours changes nothing. TLS
/// trusts the machine's certificate authorities. Its errors bear the address: strip it with
/// `without_url` before logging.
///
/// # Errors
///
/// When no TLS provider is installed ([`crate::install_crypto`]) or the machine has no usable
/// certificate authorities.
pub fn client(timeout: Duration, user_agent: &str) -> Result<reqwest::Client, reqwest::Error> {
    builder(timeout, user_agent).build()
}

/// The same, but each call has a connection of its own: for asking again when one that was kept has ended, as others may have.
///
/// # Errors
///
/// As [`client`].
pub fn unpooled(timeout: Duration, user_agent: &str) -> Result<reqwest::Client, reqwest::Error> {
    builder(timeout, user_agent)
        .pool_max_idle_per_host(0)
        .build()
}

/// The same for addresses that a user has named: names lead only to what may be called, and each call has a connection of
/// its own, to an address that was just looked at. An address that is written without a name must be checked before
/// ([`Egress::check`]): nothing resolves it.
///
/// # Errors
///
/// As [`client`].
pub fn guarded(
    egress: &Egress,
    timeout: Duration,
    user_agent: &str,
) -> Result<reqwest::Client, reqwest::Error> {
    builder(timeout, user_agent)
        .pool_max_idle_per_host(0)
        .dns_resolver(Guarded(Arc::new(egress.clone())))
        .build()
}

/// The same as [`client`], with the certificate that was shown beside each answer.
///
/// # Errors
///
/// As [`client`].
pub fn client_that_tells_of_tls(
    timeout: Duration,
    user_agent: &str,
) -> Result<reqwest::Client, reqwest::Error> {
    builder(timeout, user_agent).tls_info(true).build()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where clients are made"
)]
fn builder(timeout: Duration, user_agent: &str) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .timeout(timeout)
        .connect_timeout(timeout.min(Duration::from_secs(5)))
        .pool_idle_timeout(Duration::from_secs(8))
        .redirect(redirect::Policy::none())
        .no_proxy()
        .user_agent(user_agent)
}

/// Why a call failed, in words that hold no address: the client's own would, and in it perhaps a token of the receiver's.
pub fn why(error: &reqwest::Error) -> String {
    if let Some(forbidden) = egress::refusal(error) {
        format!("the address {forbidden}")
    } else if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        match root(error) {
            Some(kind) => format!("no connection: {kind}"),
            None => "no connection, or no certificate that is trusted".to_owned(),
        }
    } else {
        "the connection broke before an answer".to_owned()
    }
}

/// What the operating system said, where it was that.
fn root(error: &reqwest::Error) -> Option<std::io::ErrorKind> {
    let mut cause = std::error::Error::source(error);
    let mut kind = None;
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            kind = Some(io.kind());
        }
        cause = error.source();
    }
    // What TLS does not like comes in the same clothes.
    kind.filter(|kind| {
        !matches!(
            kind,
            std::io::ErrorKind::Other | std::io::ErrorKind::InvalidData
        )
    })
}
