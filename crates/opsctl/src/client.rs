//! The control plane as seen from the command: one call, one answer. Knows paths, shows nothing, retries nothing.

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use service::Secret;

use crate::answer::Refusal;
use crate::error::Error;
use crate::settings::Access;

const BASE: &str = "/api/v1/ops";

/// A trigger may take ten seconds and more, so a call may too.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A stream may take as long as the control plane lets it.
const STREAM_TIMEOUT: Duration = Duration::from_secs(2 * 3600);

/// A control plane and the key to it.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlane {
    http: reqwest::Client,
    url: String,
    key: Secret,
}

impl ControlPlane {
    pub(crate) fn new(access: Access) -> Result<Self, Error> {
        let user_agent = concat!("opsctl/", env!("CARGO_PKG_VERSION"));
        let http = service::http_client::client(TIMEOUT, user_agent).map_err(|error| {
            Error::Failed(format!("no HTTP client can be made here: {}", told(&error)))
        })?;
        Ok(Self {
            http,
            url: access.url,
            key: access.key,
        })
    }

    /// What is at a path.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Error> {
        self.json(self.request(Method::GET, path).query(query))
            .await
    }

    /// What is at a path, as text.
    pub(crate) async fn get_text(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.bytes(
            self.request(Method::GET, path)
                .header("accept", "text/plain"),
        )
        .await
    }

    /// Opens a stream behind what was seen; `None` where there is nothing more to come.
    pub(crate) async fn stream(
        &self,
        path: &str,
        after: i64,
    ) -> Result<Option<reqwest::Response>, Error> {
        let request = self
            .request(Method::GET, path)
            .timeout(STREAM_TIMEOUT)
            .header("accept", "text/event-stream")
            .header("last-event-id", after.to_string());
        let answer = request
            .send()
            .await
            .map_err(|error| self.unreachable(error))?;
        let kind = answer.headers().get("content-type");
        let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        match answer.status() {
            StatusCode::OK if is_stream => Ok(Some(answer)),
            StatusCode::NO_CONTENT => Ok(None),
            _ => Err(Error::Foreign {
                url: self.url.clone(),
            }),
        }
    }

    /// Asks for something to be done.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &Value,
        headers: &[(&str, String)],
    ) -> Result<Value, Error> {
        let request = headers.iter().fold(
            self.request(Method::POST, path).json(body),
            |request, (name, value)| request.header(*name, value),
        );
        self.json(request).await
    }

    /// Puts something in the place of what is at a path.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.json(self.request(Method::PUT, path).json(body)).await
    }

    /// Removes what is at a path.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Error> {
        self.bytes(self.request(Method::DELETE, path))
            .await
            .map(drop)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{BASE}{path}", self.url))
            .header("x-ops-key", self.key.expose())
    }

    pub(crate) async fn json(&self, request: RequestBuilder) -> Result<Value, Error> {
        let body = self
            .bytes(request.header("accept", "application/json, application/problem+json"))
            .await?;
        serde_json::from_slice(&body).map_err(|_| Error::Foreign {
            url: self.url.clone(),
        })
    }

    async fn bytes(&self, request: RequestBuilder) -> Result<Vec<u8>, Error> {
        let body = self.answer(request).await?.bytes().await;
        Ok(body.map_err(|error| self.unreachable(error))?.into())
    }

    /// The answer, its body still to be read, unless it is a refusal.
    pub(crate) async fn answer(&self, request: RequestBuilder) -> Result<Response, Error> {
        let answer = request
            .send()
            .await
            .map_err(|error| self.unreachable(error))?;
        match answer.status() {
            StatusCode::OK
            | StatusCode::CREATED
            | StatusCode::ACCEPTED
            | StatusCode::NO_CONTENT => Ok(answer),
            status if status.is_client_error() || status.is_server_error() => {
                let body = answer
                    .bytes()
                    .await
                    .map_err(|error| self.unreachable(error))?;
                Err(Error::Refused(Refusal::read(status.as_u16(), &body)))
            }
            _ => Err(Error::Foreign {
                url: self.url.clone(),
            }),
        }
    }

    pub(crate) fn unreachable(&self, error: reqwest::Error) -> Error {
        Error::Unreachable {
            url: self.url.clone(),
            source: Box::new(error.without_url()),
        }
    }
}

fn told(error: &dyn StdError) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}
