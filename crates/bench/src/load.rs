//! A load of HTTP requests, so light that what it measures is the server: prepared bytes over connections that stay.

use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Result;

/// What is sent, over and over.
#[derive(Clone, Debug)]
pub struct Request {
    /// `host:port`.
    pub address: String,
    /// The path.
    pub path: &'static str,
    /// Header lines, each ended by `\r\n`.
    pub headers: String,
    /// The JSON body.
    pub body: String,
    /// The status that counts as done.
    pub expected: u16,
}

impl Request {
    fn bytes(&self) -> Vec<u8> {
        let Self {
            address,
            path,
            headers,
            body,
            ..
        } = self;
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        )
        .into_bytes()
    }
}

/// One connection that stays open.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
    request: Vec<u8>,
    expected: u16,
    line: String,
    body: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect(request: &Request) -> Result<Self> {
        let stream = TcpStream::connect(&request.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            request: request.bytes(),
            expected: request.expected,
            line: String::new(),
            body: Vec::new(),
        })
    }

    /// Sends the request once and reads the whole answer.
    ///
    /// # Errors
    /// When the answer is another than expected.
    pub async fn send(&mut self) -> Result<()> {
        self.stream.write_all(&self.request).await?;
        let status = self.read_line().await?;
        let status: u16 = status.split(' ').nth(1).ok_or("no status")?.parse()?;
        let mut length = 0;
        loop {
            let line = self.read_line().await?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("content-length:") {
                length = rest.trim().parse()?;
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).await?;
        if status == self.expected {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&self.body);
        Err(format!("{status} instead of {}: {body}", self.expected).into())
    }

    async fn read_line(&mut self) -> Result<&str> {
        self.line.clear();
        self.stream.read_line(&mut self.line).await?;
        Ok(&self.line)
    }
}

/// What a load came to.
#[derive(Debug)]
pub struct Loaded {
    /// Answers a second.
    pub per_second: f64,
    /// How long each took, in milliseconds.
    pub milliseconds: Vec<f64>,
}

/// Sends requests over so many connections, each as fast as it is answered, for so long.
///
/// # Errors
/// When one is answered otherwise than expected.
pub async fn load(request: &Request, connections: usize, time: Duration) -> Result<Loaded> {
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let mut client = Client::connect(request).await?;
        clients.spawn(async move {
            let (begun, mut taken) = (Instant::now(), Vec::new());
            while begun.elapsed() < time {
                let sent = Instant::now();
                client.send().await?;
                taken.push(sent.elapsed().as_secs_f64() * 1000.0);
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(taken)
        });
    }
    let begun = Instant::now();
    let mut milliseconds = Vec::new();
    while let Some(ended) = clients.join_next().await {
        milliseconds.extend(ended??);
    }
    Ok(Loaded {
        per_second: milliseconds.len() as f64 / begun.elapsed().as_secs_f64(),
        milliseconds,
    })
}
