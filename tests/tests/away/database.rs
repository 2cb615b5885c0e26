//! The way to a database's server, with something between.

use std::path::PathBuf;

use fault_proxy::{Proxy, Target};

/// The folder of the server's socket, as the test server's addresses name it.
pub(crate) fn socket_folder(url: &str) -> PathBuf {
    let (_, host) = url
        .split_once("host=")
        .expect("a server that is reached over a unix socket");
    PathBuf::from(host.split('&').next().unwrap_or(host))
}

fn name(url: &str) -> &str {
    let (rest, _) = url.split_once('?').unwrap_or((url, ""));
    rest.rsplit('/').next().unwrap_or_default()
}

/// The address of the same database through another door.
pub(crate) fn through(address: std::net::SocketAddr, url: &str) -> String {
    format!("postgres://postgres@{address}/{}", name(url))
}

/// A proxy before the database's server, and the address through it.
pub(crate) async fn proxied(url: &str) -> (Proxy, String) {
    let socket = socket_folder(url).join(".s.PGSQL.5432");
    let proxy = Proxy::start(Target::Unix(socket)).await.expect("a proxy");
    let url = through(proxy.address(), url);
    (proxy, url)
}
