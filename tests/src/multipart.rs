//! Multipart bodies as a stranger writes them, right or wrong.

use serde_json::Value;

use crate::call::{Answer, Client};

const BOUNDARY: &str = "a-boundary-of-the-system-tests";

/// A body in the making.
#[derive(Clone, Debug, Default)]
#[must_use = "a body is sent when it is posted"]
pub struct Multipart(Vec<u8>, bool);

impl Multipart {
    /// A body without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part of JSON.
    pub fn json(self, name: &str, value: &Value) -> Self {
        self.text(name, &value.to_string())
    }

    /// Adds a part of text.
    pub fn text(self, name: &str, text: &str) -> Self {
        self.part(&format!("name=\"{name}\""), text.as_bytes())
    }

    /// Adds a file under any name.
    pub fn file(self, name: &str, file_name: &str, bytes: &[u8]) -> Self {
        self.part(&format!("name=\"{name}\"; filename=\"{file_name}\""), bytes)
    }

    /// Leaves the end away.
    pub fn broken(self) -> Self {
        Self(self.0, true)
    }

    /// Posts it.
    pub async fn post(self, client: &Client, path: &str) -> Answer {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let mut body = self.0;
        if !self.1 {
            body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        }
        let call = client.call("POST", path).header("content-type", &kind);
        call.bytes(body).send().await
    }

    fn part(mut self, disposition: &str, bytes: &[u8]) -> Self {
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n");
        self.0.extend_from_slice(head.as_bytes());
        self.0.extend_from_slice(bytes);
        self.0.extend_from_slice(b"\r\n");
        self
    }
}
