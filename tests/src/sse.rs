//! A reader of server-sent events over a bare socket: as little memory and work as can be, so that a thousand of them fit
//! beside what they watch.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A stream that is open.
#[derive(Debug)]
pub struct Sse {
    socket: TcpStream,
    begun: Vec<u8>,
    /// The status that it was answered.
    pub status: u16,
    id: Option<i64>,
    event: String,
    data: String,
}

/// One event of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its id, where it has one.
    pub id: Option<i64>,
    /// Its name.
    pub event: String,
    /// What it says.
    pub data: String,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// An event, whole.
    Frame(Frame),
    /// A comment.
    Comment,
    /// The stream has ended as streams do.
    End,
}

impl Sse {
    /// Opens a stream behind an id.
    ///
    /// # Errors
    /// When the connection breaks before the head of an answer is there.
    pub async fn open(
        authority: &str,
        path: &str,
        key: &str,
        last_event_id: Option<i64>,
    ) -> io::Result<Self> {
        let mut socket = TcpStream::connect(authority).await?;
        let behind =
            last_event_id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nX-Ops-Key: {key}\r\n{behind}\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut sse = Self {
            socket,
            begun: Vec::new(),
            status: 0,
            id: None,
            event: String::new(),
            data: String::new(),
        };
        loop {
            let line = sse.line().await?;
            if line.is_empty() {
                return Ok(sse);
            }
            if let Some(status) = line.strip_prefix("HTTP/1.1 ") {
                sse.status = status
                    .get(..3)
                    .and_then(|status| status.parse().ok())
                    .unwrap_or(0);
            }
        }
    }

    /// What comes next. The sizes of the chunks that it comes in are passed over: no field looks like one.
    ///
    /// # Errors
    /// When the connection is cut.
    pub async fn next(&mut self) -> io::Result<Next> {
        loop {
            let line = self.line().await?;
            if line == "0" {
                return Ok(Next::End);
            } else if line == ":" {
                return Ok(Next::Comment);
            } else if let Some(id) = line.strip_prefix("id: ") {
                self.id = id.parse().ok();
            } else if let Some(event) = line.strip_prefix("event: ") {
                event.clone_into(&mut self.event);
            } else if let Some(data) = line.strip_prefix("data: ") {
                data.clone_into(&mut self.data);
            } else if line.is_empty() && !self.data.is_empty() {
                return Ok(Next::Frame(Frame {
                    id: self.id.take(),
                    event: std::mem::take(&mut self.event),
                    data: std::mem::take(&mut self.data),
                }));
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.begun.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line[..end]);
                return Ok(line.trim_end_matches('\r').to_owned());
            }
            let mut piece = [0; 4096];
            match self.socket.read(&mut piece).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.begun.extend_from_slice(&piece[..read]),
            }
        }
    }
}
