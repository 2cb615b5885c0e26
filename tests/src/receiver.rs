//! The receiver of webhooks: an HTTP server that answers as it was told to, remembers what it heard, and verifies
//! signatures by the words of the standard, with nothing of the product's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What it does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Answers this status, with these header lines.
    Status(u16, &'static str),
    /// Never answers.
    Never,
}

/// A request that it took.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its headers, by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Its body, letter for letter.
    pub body: String,
}

impl Heard {
    /// The message's id.
    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// How many of its signatures are right for a secret as receivers have it, `whsec_…`.
    pub fn right_signatures(&self, secret: &str) -> usize {
        let expected = signature(
            secret,
            self.id(),
            &self.headers["webhook-timestamp"],
            &self.body,
        );
        let given = self.headers["webhook-signature"].split(' ');
        given.filter(|given| **given == expected).count()
    }
}

/// What a message must be signed with: the standard's own words, and HMAC as RFC 2104 defines it.
pub fn signature(secret: &str, id: &str, timestamp: &str, body: &str) -> String {
    let encoded = secret.strip_prefix("whsec_").expect("a secret");
    let key = STANDARD.decode(encoded).expect("base64");
    assert!(key.len() <= 64, "no key is longer than a block");
    let pad = |with: u8| {
        let mut block = [with; 64];
        for (byte, key) in block.iter_mut().zip(&key) {
            *byte ^= key;
        }
        block
    };
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(format!("{id}.{timestamp}.{body}"))
        .finalize();
    let outer = Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize();
    format!("v1,{}", STANDARD.encode(outer))
}

/// A server that ends with this value.
#[derive(Debug)]
pub struct Receiver {
    port: u16,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    heard: Mutex<Vec<Heard>>,
    /// The next replies, and then the last for ever.
    replies: Mutex<VecDeque<Reply>>,
}

impl Receiver {
    /// A server that gives these replies in turn, and the last of them from then on.
    pub async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            heard: Mutex::new(Vec::new()),
            replies: Mutex::new(replies.into_iter().collect()),
        });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&shared)));
        Self {
            port,
            shared,
            _serving: serving,
        }
    }

    /// A server that takes everything.
    pub async fn taking() -> Self {
        Self::start([Reply::Status(204, "")]).await
    }

    /// Where it listens, by the number of this machine.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// The port, for other names of this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on it gives this reply.
    pub fn reply(&self, reply: Reply) {
        *lock(&self.shared.replies) = VecDeque::from([reply]);
    }

    /// What it heard, in order.
    pub fn heard(&self) -> Vec<Heard> {
        lock(&self.shared.heard).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(answer(stream, Arc::clone(&shared)));
        }
    }
}

async fn answer(mut stream: TcpStream, shared: Arc<Shared>) {
    let Some(heard) = read(&mut stream).await else {
        return;
    };
    let reply = {
        let mut replies = lock(&shared.replies);
        let next = if replies.len() > 1 {
            replies.pop_front()
        } else {
            replies.front().cloned()
        };
        next.expect("a reply")
    };
    lock(&shared.heard).push(heard);
    match reply {
        Reply::Never => std::future::pending().await,
        Reply::Status(status, lines) => {
            let answer = format!(
                "HTTP/1.1 {status} As Told\r\n{lines}Connection: close\r\nContent-Length: 0\r\n\r\n"
            );
            // Whoever sent may have gone.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Heard> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let headers: BTreeMap<String, String> = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length = headers.get("content-length");
            if body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0) {
                let body = body.to_owned();
                return Some(Heard { headers, body });
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
        }
    }
}
