//! Listening: an accept loop with the limits that keep slow and greedy clients from others' places.
//!
//! It ends only when told to stop, and then within its drain time. It knows routers, not routes.

mod connections;
mod listener;
mod stall;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::stop::Stop;
use connections::{Connections, Heard};
pub use listener::{Listener, ServeError, TlsFiles};
use stall::Stall;

/// What connections may cost.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// How many may be open at once; those that have not asked for anything yet make room first.
    pub connections: usize,
    /// How long a client may take for the head of a request, and be idle before the next.
    pub head: Duration,
    /// How long a client may leave an answer unread.
    pub stall: Duration,
    /// How long requests at work may take to finish once stopping is requested.
    pub drain: Duration,
}

impl ConnectionLimits {
    /// Limits fit for a service that works on so many requests at once.
    pub fn for_concurrency(requests: usize) -> Self {
        Self {
            connections: requests.saturating_mul(2).saturating_add(200),
            head: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }

    /// The same limits with another drain time.
    #[must_use]
    pub fn with_drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }
}

/// How many headers a request may have; more are answered 431.
const MAX_HEADERS: usize = 100;

/// How many bytes the head of a request may have; more are answered 431.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// How many bytes may wait in either direction of a connection beside what the system keeps.
const MAX_BUFFERED_BYTES: usize = 32 * 1024;

/// Serves a router until stopping is requested and every connection is done or the drain time over.
pub async fn serve(listener: Listener, router: Router, limits: ConnectionLimits, stop: Stop) {
    let mut connections = Connections::new(limits.connections);
    loop {
        tokio::select! {
            biased;
            () = stop.requested() => break,
            () = connections.make_room() => {}
        }
        let (tcp, peer) = tokio::select! {
            biased;
            () = stop.requested() => break,
            () = connections.reap(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let heard = Heard::default();
        let connection = Connection {
            router: router.clone(),
            peer,
            heard: heard.clone(),
            limits,
            stop: stop.clone(),
        };
        let tls = listener.tls.clone();
        connections.start(connection.open(tcp, tls), heard);
    }
    drop(listener);
    tokio::select! {
        () = connections.all_done() => {}
        () = tokio::time::sleep(limits.drain) => {}
        () = stop.at_once() => {}
    }
    connections.abort_all().await;
}

struct Connection {
    router: Router,
    peer: SocketAddr,
    heard: Heard,
    limits: ConnectionLimits,
    stop: Stop,
}

impl Connection {
    async fn open(self, tcp: TcpStream, tls: Option<TlsAcceptor>) {
        // Answers are written whole; waiting for more to send would only delay them.
        let _ = tcp.set_nodelay(true);
        match tls {
            None => self.talk(tcp).await,
            Some(tls) => match tokio::time::timeout(self.limits.head, tls.accept(tcp)).await {
                Ok(Ok(stream)) => self.talk(stream).await,
                Ok(Err(error)) => tracing::debug!(event = "tls_refused", %error),
                Err(_) => tracing::debug!(event = "tls_refused", "the handshake took too long"),
            },
        }
    }

    async fn talk(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send) {
        let Self {
            router,
            peer,
            heard,
            limits,
            stop,
        } = self;
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            heard.set();
            request.extensions_mut().insert(ConnectInfo(peer));
            answer(router.clone(), request)
        });
        let stream = TokioIo::new(Stall::new(stream, limits.stall));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_BUFFERED_BYTES)
            .serve_connection(stream, service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.requested() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // Clients leave as they like; that is no event of ours.
            tracing::debug!(event = "connection_ended", %error);
        }
    }
}

async fn answer(
    router: Router,
    request: hyper::Request<Incoming>,
) -> Result<axum::response::Response, Infallible> {
    let mut response = router.oneshot(request).await?;
    if response.status() == StatusCode::UNAUTHORIZED {
        // Routers add it around every layer; a stranger need not know which methods there are.
        response.headers_mut().remove(header::ALLOW);
    }
    Ok(response)
}
