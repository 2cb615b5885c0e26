//! A bound address, with TLS where certificate files are given.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What the kernel keeps at most of an answer that its client does not take, in bytes; it doubles the figure for its own
/// needs. Grown by the kernel's own measure, a stream of some MiB would fit whole, and nobody would notice that it is
/// not read. Enough for 10 MB/s over 100 ms.
const SEND_BUFFER: usize = 512 * 1024;

/// Where a certificate chain and its key are, both as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the server's own first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Why a service cannot listen.
#[derive(Debug)]
pub enum ServeError {
    /// The address cannot be bound.
    Bind(SocketAddr, io::Error),
    /// A certificate or key file cannot be read as PEM.
    Pem(PathBuf, rustls::pki_types::pem::Error),
    /// The certificate and the key cannot be used together.
    Tls(rustls::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(address, _) => write!(f, "cannot listen on {address}"),
            Self::Pem(path, _) => write!(f, "cannot read {} as PEM", path.display()),
            Self::Tls(_) => f.write_str("cannot serve HTTPS with this certificate and key"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind(_, error) => Some(error),
            Self::Pem(_, error) => Some(error),
            Self::Tls(error) => Some(error),
        }
    }
}

/// A bound address that [`super::serve`] accepts connections from.
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    pub(super) tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Binds an address; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound, or the TLS files cannot be used.
    pub async fn bind(address: SocketAddr, tls: Option<&TlsFiles>) -> Result<Self, ServeError> {
        let tls = tls.map(acceptor).transpose()?;
        let failed = |error| ServeError::Bind(address, error);
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        // What is accepted from it inherits this.
        rustix::net::sockopt::set_socket_send_buffer_size(&tcp, SEND_BUFFER)
            .map_err(|error| failed(error.into()))?;
        let address = tcp.local_addr().map_err(failed)?;
        Ok(Self { tcp, address, tls })
    }

    /// The address that was bound, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as a client on this machine would write it.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The next connection; out of file descriptors, it waits for better times.
    pub(super) async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.tcp.accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(event = "accept_failed", %error);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Whether an error concerns only the connection that was about to be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ServeError> {
    let no_cert = |error| ServeError::Pem(files.cert.clone(), error);
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .map_err(no_cert)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(no_cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| ServeError::Pem(files.key.clone(), error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ServeError::Tls)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(ServeError::Tls)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
