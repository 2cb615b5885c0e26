//! Each fault as the two ends see it.
#![expect(clippy::expect_used, reason = "a test that cannot be set up must fail")]

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use fault_proxy::{Direction, Fault, Proxy, Reach, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(10);
/// How long a silence must last to be one.
const SILENCE: Duration = Duration::from_millis(200);

/// A server that says back what it hears.
async fn echo() -> (Proxy, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut said = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            said.spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let proxy = Proxy::start(Target::Tcp(address)).await.expect("a proxy");
    (proxy, serving)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address())
        .await
        .expect("a connection")
}

async fn hears(stream: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    timeout(LONG, stream.read_exact(&mut heard))
        .await
        .expect("in time")
        .expect("an answer");
    assert_eq!(heard, text.as_bytes());
}

async fn says_and_hears(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("said");
    hears(stream, text).await;
}

async fn hears_nothing(stream: &mut TcpStream) {
    let mut heard = [0; 1];
    let silence = timeout(SILENCE, stream.read(&mut heard)).await;
    assert!(silence.is_err(), "{silence:?}");
}

async fn is_reset(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut rest))
        .await
        .expect("in time");
    assert_eq!(
        read.expect_err("a reset").kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn what_passes_arrives_and_an_end_is_an_end() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await;
    let text = "x".repeat(100_000);
    let (mut from, mut to) = stream.split();
    let saying = async {
        to.write_all(text.as_bytes()).await.expect("said");
        to.shutdown().await.expect("an end");
    };
    let mut heard = Vec::new();
    let ((), read) = tokio::join!(saying, from.read_to_end(&mut heard));
    assert_eq!(read.expect("all"), text.len());
    assert_eq!(heard, text.as_bytes());
    let counts = proxy.counts();
    assert_eq!(
        (counts.accepted, counts.bytes_up, counts.bytes_down),
        (1, 100_000, 100_000)
    );
}

#[tokio::test]
async fn a_black_hole_on_the_established_ones_is_silence_for_them_only_and_for_ever() {
    let (proxy, _server) = echo().await;
    let (mut talking, mut idle) = (connect(&proxy).await, connect(&proxy).await);
    says_and_hears(&mut talking, "hello").await;
    says_and_hears(&mut idle, "hello").await;
    proxy.set(Reach::Established, Direction::Both, Fault::BlackHole);
    talking.write_all(b"anyone?").await.expect("taken");
    hears_nothing(&mut talking).await;
    says_and_hears(&mut connect(&proxy).await, "a new one").await;
    proxy.pass();
    hears_nothing(&mut talking).await;
    says_and_hears(&mut idle, "still here").await;
    assert_eq!(proxy.counts().swallowed, 1);
}

#[tokio::test]
async fn a_black_hole_for_all_takes_new_connections_and_says_nothing() {
    let (proxy, _server) = echo().await;
    proxy.set(Reach::All, Direction::Both, Fault::BlackHole);
    let mut stream = connect(&proxy).await;
    stream.write_all(b"anyone?").await.expect("taken");
    hears_nothing(&mut stream).await;
    assert_eq!(proxy.counts().bytes_up, 0);
}

#[tokio::test]
async fn one_direction_may_be_black_and_the_other_pass() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await;
    says_and_hears(&mut stream, "hello").await;
    proxy.set(Reach::All, Direction::Down, Fault::BlackHole);
    stream.write_all(b"heard").await.expect("taken");
    hears_nothing(&mut stream).await;
    assert_eq!(
        (proxy.counts().bytes_up, proxy.counts().bytes_down),
        (10, 5)
    );
}

#[tokio::test]
async fn what_is_held_arrives_when_it_passes_again() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await;
    says_and_hears(&mut stream, "hello").await;
    proxy.set(Reach::All, Direction::Up, Fault::Hold);
    stream.write_all(b"late").await.expect("taken");
    hears_nothing(&mut stream).await;
    proxy.pass();
    hears(&mut stream, "late").await;
}

#[tokio::test]
async fn a_delay_is_as_long_as_ordered() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.set(Reach::All, Direction::Up, Fault::Delay(SILENCE));
    let begun = Instant::now();
    says_and_hears(&mut stream, "late").await;
    assert!(begun.elapsed() >= SILENCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_reset_reaches_the_established_ones_or_all() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await;
    says_and_hears(&mut stream, "hello").await;
    proxy.reset_established();
    is_reset(&mut stream).await;
    says_and_hears(&mut connect(&proxy).await, "a new one").await;
    proxy.set(Reach::New, Direction::Both, Fault::Reset);
    is_reset(&mut connect(&proxy).await).await;
    assert_eq!(proxy.counts().reset, 2);
}

#[tokio::test]
async fn a_cut_comes_after_exactly_so_many_bytes() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await;
    says_and_hears(&mut stream, "hello").await;
    proxy.set(Reach::All, Direction::Up, Fault::CutAfter(3));
    stream.write_all(b"abcdef").await.expect("taken");
    is_reset(&mut stream).await;
    assert_eq!((proxy.counts().bytes_up, proxy.counts().cut), (8, 1));
}

#[tokio::test]
async fn a_closed_door_refuses_and_keeps_its_port_and_its_guests() {
    let (proxy, _server) = echo().await;
    let mut guest = connect(&proxy).await;
    says_and_hears(&mut guest, "hello").await;
    proxy.refuse().await;
    let refused = TcpStream::connect(proxy.address()).await;
    assert_eq!(
        refused.expect_err("refused").kind(),
        ErrorKind::ConnectionRefused
    );
    says_and_hears(&mut guest, "still here").await;
    proxy.admit().await;
    says_and_hears(&mut connect(&proxy).await, "a new one").await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_reset_and_another_can_take_its_place() {
    let (proxy, _server) = echo().await;
    let (other, _other_server) = echo().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let gone = nobody.local_addr().expect("its address");
    drop(nobody);
    proxy.target(Target::Tcp(gone));
    is_reset(&mut connect(&proxy).await).await;
    assert_eq!(proxy.counts().unreachable, 1);
    proxy.target(Target::Tcp(other.address()));
    says_and_hears(&mut connect(&proxy).await, "another").await;
}
