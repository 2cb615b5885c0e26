//! A request as bytes, and what is known of it: to whom it goes, and whether an answer is due.

use std::net::SocketAddr;

/// Which of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The control plane.
    ControlPlane,
    /// The runner.
    Runner,
}

/// What the programs accept.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The control plane's key.
    pub ops: String,
    /// The runner's token.
    pub runner: String,
}

/// Where the requests go.
#[derive(Clone, Debug)]
pub struct Target {
    /// The control plane.
    pub control_plane: SocketAddr,
    /// The runner.
    pub runner: SocketAddr,
    /// What they accept.
    pub keys: Keys,
}

impl Target {
    pub(crate) fn address(&self, side: Side) -> SocketAddr {
        match side {
            Side::ControlPlane => self.control_plane,
            Side::Runner => self.runner,
        }
    }
}

/// How a body is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By its length; nothing where it is empty.
    Length,
    /// In pieces.
    Chunked,
    /// By whatever the headers say, which need not be true.
    Untrue,
}

/// Whether a whole request was sent, so that a whole answer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Exactly one answer.
    Answer,
    /// An answer or an end, but no hanging.
    End,
}

/// Who it says it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// One with the right key.
    Known,
    /// One without, or with a wrong one.
    Stranger,
    /// It was changed by chance.
    Unclear,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) side: Side,
    /// The route that it was made from, for the counts.
    pub(crate) route: String,
    pub(crate) method: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) framing: Framing,
    pub(crate) due: Due,
    pub(crate) caller: Caller,
    /// Whether path and method are still those of the route.
    pub(crate) path_intact: bool,
    /// Whether anything of it was changed by chance.
    pub(crate) is_changed: bool,
    /// Bytes instead of all of the above.
    pub(crate) raw: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn header(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.headers.push((name.as_bytes().to_vec(), value.into()));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.headers
            .retain(|(header, _)| !header.eq_ignore_ascii_case(name.as_bytes()));
    }

    pub(crate) fn is_head(&self) -> bool {
        match &self.raw {
            Some(raw) => raw.starts_with(b"HEAD "),
            None => self.method == b"HEAD",
        }
    }

    /// What goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut bytes = self.method.clone();
        bytes.push(b' ');
        bytes.extend_from_slice(&self.target);
        bytes.extend_from_slice(b" HTTP/1.1\r\nHost: fuzz\r\n");
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        match self.framing {
            Framing::Length if !self.body.is_empty() => {
                let length = format!("Content-Length: {}\r\n", self.body.len());
                bytes.extend_from_slice(length.as_bytes());
            }
            Framing::Chunked => bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Framing::Length | Framing::Untrue => {}
        }
        bytes.extend_from_slice(b"\r\n");
        if self.framing == Framing::Chunked {
            for piece in self.body.chunks((self.body.len() / 3).max(1)) {
                bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }

    /// The beginning of it, fit for a report.
    pub(crate) fn shown(&self) -> String {
        let bytes = self.bytes();
        let beginning = &bytes[..bytes.len().min(1200)];
        format!(
            "{:?} ({} bytes) {}",
            self.side,
            bytes.len(),
            beginning.escape_ascii()
        )
    }
}
