//! A request written onto the wire as it is, by nobody who tidies it up.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The status that the head of a request is answered with; its body is never sent.
pub async fn status(authority: &str, method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
    let mut stream = TcpStream::connect(authority).await.expect("a connection");
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {authority}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    while !answer.windows(2).any(|end| end == b"\r\n") {
        let mut piece = [0; 256];
        let read = stream.read(&mut piece).await.expect("an answer");
        assert!(read > 0, "no answer to {target}");
        answer.extend_from_slice(&piece[..read]);
    }
    let line = String::from_utf8_lossy(&answer);
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no status: {line}"))
}
