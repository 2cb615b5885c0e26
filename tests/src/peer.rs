//! The other side of a call: a tiny HTTP server that answers as its paths say, remembers what it heard, or never answers.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A server that ends with this value.
#[derive(Debug)]
pub struct Peer {
    url: String,
    heard: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

/// What it does with a request.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Answering,
    Silent,
}

impl Peer {
    /// A server that answers `/404` with 404, `/200` with 200, and so on, always with a small JSON document.
    pub async fn answering() -> Self {
        Self::start(Manner::Answering).await
    }

    /// A server that takes every request and answers none.
    pub async fn silent() -> Self {
        Self::start(Manner::Silent).await
    }

    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, manner, Arc::clone(&heard)));
        Self { url, heard, _serving: serving }
    }

    /// Its address, without a path.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The requests that it took, head and body.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(listener: TcpListener, manner: Manner, heard: Arc<Mutex<Vec<String>>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.spawn(answer(stream, manner, Arc::clone(&heard)));
    }
}

async fn answer(mut stream: TcpStream, manner: Manner, heard: Arc<Mutex<Vec<String>>>) {
    let Some(request) = read(&mut stream).await else { return };
    let status = status(&request);
    heard.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    match manner {
        Manner::Silent => std::future::pending().await,
        Manner::Answering => {
            let body = format!("{{\"said\": {status}}}");
            let head = format!("HTTP/1.1 {status} As Asked\r\nContent-Type: application/json\r\nConnection: close\r\n");
            let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
            // Whoever asked may have gone.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}

/// The status that the path asks for; 200 where it asks for none.
fn status(request: &str) -> u16 {
    let path = request.split(' ').nth(1).unwrap_or_default();
    path.trim_start_matches('/').parse().unwrap_or(200)
}

/// A whole request.
async fn read(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
        }
    }
}
