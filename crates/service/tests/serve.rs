//! The promises of a listening service, seen through real sockets.

#![expect(clippy::expect_used, reason = "a test's own steps may fail it")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use futures_util::stream;
use service::{
    Concurrency, ConnectionLimits, Fields, Guard, Json, KeySet, Limits, Listener, Parse, Secret,
    Stop, Stopper, edge, health, read, serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const BODY_LIMIT: u64 = 64;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(15);

struct Note(String);

impl Parse for Note {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let text = fields.required("text", read::text);
        Some(Self(text?))
    }
}

struct Service {
    address: SocketAddr,
    stopper: Stopper,
    serving: JoinSet<()>,
    /// Says that a slow request is at work.
    at_work: mpsc::UnboundedReceiver<()>,
}

impl Service {
    async fn start(limits: ConnectionLimits, timeout: Duration) -> Self {
        let (started, at_work) = mpsc::unbounded_channel();
        let slow = get(move || {
            let started = started.clone();
            async move {
                let _ = started.send(());
                tokio::time::sleep(Duration::from_secs(1)).await;
                "done"
            }
        });
        let flood = get(|| async {
            let piece = || Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 65_536]));
            Body::from_stream(stream::repeat_with(piece))
        });
        let notes = Router::new()
            .route(
                "/notes",
                post(|Json(Note(text)): Json<Note>| async { text }),
            )
            .route("/slow", slow)
            .route("/flood", flood);
        let notes = Limits::of_body(BODY_LIMIT)
            .with_timeout(timeout)
            .with_concurrency(Concurrency::new(1, Duration::ZERO))
            .around(notes);
        let notes = Guard::ops_key(KeySet::new(&[Secret::new("k")])).nest("/ops", notes);
        let app = edge::wear(notes.merge(health::routes()), None, None);
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(loopback, None).await.expect("a free port");
        let address = listener.address();
        let (stopper, stop) = Stop::new();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, app, limits, stop));
        Self {
            address,
            stopper,
            serving,
            at_work,
        }
    }

    async fn ordinary() -> Self {
        Self::start(
            ConnectionLimits::for_concurrency(10),
            Duration::from_secs(10),
        )
        .await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("a connection")
    }

    /// Sends a text on a connection of its own and reads what comes until the other side closes.
    async fn exchange(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.expect("sent");
        until_closed(&mut stream).await
    }

    async fn work_began(&mut self) {
        let began = tokio::time::timeout(PATIENCE, self.at_work.recv()).await;
        began.expect("in time").expect("a service");
    }

    async fn ended(mut self) {
        let ended = tokio::time::timeout(PATIENCE, self.serving.join_next()).await;
        ended.expect("in time").expect("a task").expect("no panic");
    }
}

/// What comes until the other side closes; a reset after the answer is a close too.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    assert!(read.is_ok(), "not closed in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn request(line: &str, headers: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n{body}")
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

const KEY: &str = "X-Ops-Key: k\r\n";
const JSON: &str = "X-Ops-Key: k\r\nContent-Type: application/json\r\n";

#[tokio::test]
async fn a_request_is_answered_and_dressed() {
    let service = Service::ordinary().await;
    let answer = service
        .exchange(&request("GET /healthz", "X-Request-Id: r1\r\n", ""))
        .await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(answer.contains("x-request-id: r1"), "{answer}");
    assert!(!answer.contains("server:"), "{answer}");
    let body = r#"{"text":"hello"}"#;
    let length = format!("{JSON}Content-Length: {}\r\n", body.len());
    let answer = service
        .exchange(&request("POST /ops/notes", &length, body))
        .await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_body_may_have_exactly_as_many_bytes_as_the_limit_says() {
    let service = Service::ordinary().await;
    for (size, expected) in [(63, "200"), (64, "200"), (65, "413")] {
        let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(size - 11));
        assert_eq!(body.len(), size);
        let announced = format!("{JSON}Content-Length: {size}\r\n");
        let answer = service
            .exchange(&request("POST /ops/notes", &announced, &body))
            .await;
        assert_eq!(status(&answer), expected, "announced {size}: {answer}");
        let chunked = format!("{JSON}Transfer-Encoding: chunked\r\n");
        let (first, second) = body.split_at(size / 2);
        let chunks = format!(
            "{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
            first.len(),
            second.len()
        );
        let answer = service
            .exchange(&request("POST /ops/notes", &chunked, &chunks))
            .await;
        assert_eq!(status(&answer), expected, "chunked {size}: {answer}");
        assert!(
            expected == "200" || answer.contains("application/problem+json"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_stranger_is_refused_before_its_body_is_read() {
    let service = Service::ordinary().await;
    let headers = "Content-Length: 1000000\r\nExpect: 100-continue\r\n";
    let answer = service
        .exchange(&request("POST /ops/notes", headers, ""))
        .await;
    assert_eq!(status(&answer), "401", "{answer}");
    assert!(answer.contains("Invalid or missing X-Ops-Key"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_431() {
    let service = Service::ordinary().await;
    let long = format!("X-Long: {}\r\n", "x".repeat(20_000));
    let many: String = (0..120).map(|n| format!("X-{n}: 1\r\n")).collect();
    for headers in [long, many] {
        let answer = service
            .exchange(&request("GET /healthz", &headers, ""))
            .await;
        assert_eq!(status(&answer), "431", "{answer}");
    }
}

#[tokio::test]
async fn work_that_takes_too_long_is_answered_408() {
    let limits = ConnectionLimits::for_concurrency(10);
    let service = Service::start(limits, Duration::from_millis(50)).await;
    let answer = service.exchange(&request("GET /ops/slow", KEY, "")).await;
    assert_eq!(status(&answer), "408", "{answer}");
    let unfinished = format!("{JSON}Content-Length: 20\r\n");
    let answer = service
        .exchange(&request("POST /ops/notes", &unfinished, "{"))
        .await;
    assert_eq!(status(&answer), "408", "{answer}");
}

#[tokio::test]
async fn one_request_too_many_is_answered_429_at_once() {
    let mut service = Service::ordinary().await;
    let mut first = service.connect().await;
    first
        .write_all(request("GET /ops/slow", KEY, "").as_bytes())
        .await
        .expect("sent");
    service.work_began().await;
    let answer = service.exchange(&request("GET /ops/slow", KEY, "")).await;
    assert_eq!(status(&answer), "429", "{answer}");
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    let answer = service.exchange(&request("GET /healthz", "", "")).await;
    assert_eq!(status(&answer), "200", "health needs no place: {answer}");
    assert_eq!(status(&until_closed(&mut first).await), "200");
}

#[tokio::test]
async fn a_client_that_says_nothing_or_too_slowly_is_cut_off() {
    let limits = ConnectionLimits {
        head: Duration::from_millis(200),
        ..ConnectionLimits::for_concurrency(10)
    };
    let service = Service::start(limits, Duration::from_secs(10)).await;
    let began = Instant::now();
    let mut silent = service.connect().await;
    let mut slow = service.connect().await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nX-Never-")
        .await
        .expect("sent");
    until_closed(&mut silent).await;
    until_closed(&mut slow).await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn silent_connections_make_room_for_those_that_ask() {
    let limits = ConnectionLimits {
        connections: 4,
        ..ConnectionLimits::for_concurrency(10)
    };
    let service = Service::start(limits, Duration::from_secs(10)).await;
    let mut crowd = Vec::new();
    for _ in 0..12 {
        crowd.push(service.connect().await);
    }
    let began = Instant::now();
    let answer = service.exchange(&request("GET /healthz", "", "")).await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "not held up until the silent ones time out"
    );
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let limits = ConnectionLimits {
        stall: Duration::from_millis(200),
        ..ConnectionLimits::for_concurrency(10)
    };
    let service = Service::start(limits, Duration::from_secs(10)).await;
    let mut stream = service.connect().await;
    stream
        .write_all(request("GET /ops/flood", KEY, "").as_bytes())
        .await
        .expect("sent");
    // A write of ours fails once the other side is gone, and only then.
    let began = Instant::now();
    while stream.write_all(b"x").await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "never cut off");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_graceful_stop_lets_work_finish_and_takes_nothing_new() {
    let mut service = Service::ordinary().await;
    let address = service.address;
    let mut idle = service.connect().await;
    let mut busy = service.connect().await;
    busy.write_all(b"GET /ops/slow HTTP/1.1\r\nHost: h\r\nX-Ops-Key: k\r\n\r\n")
        .await
        .expect("sent");
    service.work_began().await;
    service.stopper.stop();
    let answer = until_closed(&mut busy).await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert_eq!(until_closed(&mut idle).await, "");
    service.ended().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_at_once_waits_for_nobody_and_a_graceful_one_not_for_ever() {
    for at_once in [true, false] {
        let limits = ConnectionLimits::for_concurrency(10).with_drain(Duration::from_millis(50));
        let mut service = Service::start(limits, Duration::from_secs(10)).await;
        let mut busy = service.connect().await;
        busy.write_all(request("GET /ops/slow", KEY, "").as_bytes())
            .await
            .expect("sent");
        service.work_began().await;
        let began = Instant::now();
        if at_once {
            service.stopper.stop_at_once();
        } else {
            service.stopper.stop();
        }
        service.ended().await;
        assert!(
            began.elapsed() < Duration::from_millis(900),
            "at once: {at_once}"
        );
    }
}
