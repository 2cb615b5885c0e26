//! The control plane as seen from the command: one call, one answer. Knows paths, shows nothing, retries nothing.

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use service::Secret;

use crate::answer::Refusal;
use crate::error::Error;
use crate::settings::Access;

const BASE: &str = "/api/v1/ops";

/// A trigger may take ten seconds and more, so a call may too.
const TIMEOUT: Duration = Duration::from_secs(30);

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

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{BASE}{path}", self.url))
            .header("x-ops-key", self.key.expose())
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value, Error> {
        let body = self
            .bytes(request.header("accept", "application/json, application/problem+json"))
            .await?;
        serde_json::from_slice(&body).map_err(|_| Error::Foreign {
            url: self.url.clone(),
        })
    }

    async fn bytes(&self, request: RequestBuilder) -> Result<Vec<u8>, Error> {
        let answer = request
            .send()
            .await
            .map_err(|error| self.unreachable(error))?;
        let status = answer.status();
        let body = answer
            .bytes()
            .await
            .map_err(|error| self.unreachable(error))?;
        match status {
            StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => Ok(body.into()),
            status if status.is_client_error() || status.is_server_error() => {
                Err(Error::Refused(Refusal::read(status.as_u16(), &body)))
            }
            _ => Err(Error::Foreign {
                url: self.url.clone(),
            }),
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> Error {
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
