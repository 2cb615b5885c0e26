//! A connection, and the answers that come over it, taken apart as a strict client would.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::request::{Due, Request};

/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(45);
/// A server cuts off who says half a thing, but not at once.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(header, _)| header == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// Events for as long as the job goes on: nobody waits for the end of these.
    fn is_stream(&self) -> bool {
        self.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/event-stream"))
    }
}

/// What came of a request.
#[derive(Clone, Debug)]
pub(crate) enum Came {
    /// A whole answer.
    Answer(Answer),
    /// The end of the connection, after so many bytes of no answer.
    End(Vec<u8>),
    /// Nothing, for longer than may be.
    Silence,
    /// What came is no HTTP.
    Nonsense(Vec<u8>),
    /// Nobody listens.
    NoConnection,
}

/// A connection that is kept while both sides agree.
#[derive(Debug)]
pub(crate) struct Wire {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Wire {
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
        }
    }

    pub(crate) async fn ask(&mut self, request: &Request) -> Came {
        let reused = self.stream.is_some();
        let came = self.ask_once(request).await;
        // A kept connection may have ended while nothing was said; every client asks again then.
        if reused && matches!(&came, Came::End(bytes) if bytes.is_empty()) {
            self.stream = None;
            return self.ask_once(request).await;
        }
        came
    }

    async fn ask_once(&mut self, request: &Request) -> Came {
        if request.due == Due::End {
            // What is left over on the wire must not meet the next request.
            self.stream = None;
        }
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => match TcpStream::connect(self.address).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    stream
                }
                Err(_) => return Came::NoConnection,
            },
        };
        let exchange = exchange(&mut stream, request);
        let Ok((came, sent)) = tokio::time::timeout(PATIENCE, exchange).await else {
            return Came::Silence;
        };
        if let Came::Answer(answer) = &came {
            let stays = answer.header("connection") != Some("close") && !answer.is_stream();
            if sent && stays && request.due == Due::Answer {
                self.stream = Some(stream);
            }
        }
        came
    }
}

/// Sends and reads at once, since an answer may come before everything is sent.
async fn exchange(stream: &mut TcpStream, request: &Request) -> (Came, bool) {
    let bytes = request.bytes();
    let (mut from, mut to) = stream.split();
    let mut sent = false;
    let write = async {
        let written = to.write_all(&bytes).await.is_ok();
        if request.due == Due::End {
            // Nothing more will come: so the other side need not wait for it.
            let _ = to.shutdown().await;
        }
        written
    };
    let read = read(&mut from, request.is_head());
    tokio::pin!(write, read);
    let came = tokio::select! {
        biased;
        written = &mut write => {
            sent = written;
            read.await
        }
        came = &mut read => came,
    };
    (came, sent)
}

async fn read(from: &mut (impl AsyncReadExt + Unpin), is_head: bool) -> Came {
    let mut bytes = Vec::new();
    loop {
        match parse(&bytes, is_head) {
            Parsed::Whole(answer) if (100..200).contains(&answer.status) => {
                // An interim answer; the real one follows.
                let end = head_end(&bytes).unwrap_or(bytes.len());
                bytes.drain(..end);
                continue;
            }
            Parsed::Whole(answer) => return Came::Answer(answer),
            Parsed::Nonsense => return Came::Nonsense(bytes),
            Parsed::More if bytes.len() > LARGEST_ANSWER => return Came::Nonsense(Vec::new()),
            Parsed::More => {}
        }
        match from.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Came::End(bytes),
            Ok(_) => {}
        }
    }
}

enum Parsed {
    More,
    Whole(Answer),
    Nonsense,
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(at + 4)
}

fn parse(bytes: &[u8], is_head: bool) -> Parsed {
    let beginning = &bytes[..bytes.len().min(9)];
    if !b"HTTP/1.1 ".starts_with(beginning) && !b"HTTP/1.0 ".starts_with(beginning) {
        return Parsed::Nonsense;
    }
    let Some(end) = head_end(bytes) else {
        return Parsed::More;
    };
    let Ok(head) = std::str::from_utf8(&bytes[..end - 4]) else {
        return Parsed::Nonsense;
    };
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok());
    let Some(status) = status else {
        return Parsed::Nonsense;
    };
    let mut headers = Vec::new();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            return Parsed::Nonsense;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
    };
    let rest = &bytes[end..];
    let bodiless = is_head || status < 200 || status == 204 || status == 304;
    if bodiless {
        return Parsed::Whole(answer);
    }
    if answer.is_stream() {
        answer.body = rest.to_vec();
        return Parsed::Whole(answer);
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        return match unchunk(rest) {
            Some(body) => {
                answer.body = body;
                Parsed::Whole(answer)
            }
            None => Parsed::More,
        };
    }
    let length = answer
        .header("content-length")
        .and_then(|length| length.parse::<usize>().ok());
    match length {
        None => Parsed::Nonsense,
        Some(length) if rest.len() < length => Parsed::More,
        Some(length) => {
            answer.body = rest[..length].to_vec();
            Parsed::Whole(answer)
        }
    }
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..line]).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let piece = rest.get(line + 2..line + 2 + size + 2)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(&piece[..size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Option<Answer> {
        match parse(text.as_bytes(), false) {
            Parsed::Whole(answer) => Some(answer),
            Parsed::More | Parsed::Nonsense => None,
        }
    }

    #[test]
    fn answers_are_whole_by_length_or_by_their_last_piece() {
        let answer = whole("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("whole");
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (200, b"ok".as_slice())
        );
        let pieces =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n";
        assert_eq!(whole(pieces).expect("whole").body, b"ok!");
        for part in [
            "",
            "HTT",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
            &pieces[..pieces.len() - 1],
        ] {
            assert!(
                matches!(parse(part.as_bytes(), false), Parsed::More),
                "{part}"
            );
        }
        for wrong in ["SSH-2.0", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            assert!(
                matches!(parse(wrong.as_bytes(), false), Parsed::Nonsense),
                "{wrong}"
            );
        }
    }
}
