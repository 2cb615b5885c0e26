//! The requests to Notion's API, its answers, and why one failed, in words that hold neither the token nor the address.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use service::{NotionSettings, http_client};
use sha2::{Digest, Sha256};
use url::Url;
use uuid::Uuid;

use crate::page::JOB_ID;

/// The version of the API that all this was written for.
pub const VERSION: &str = "2022-06-28";

/// No request takes longer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// Longer answers are not read: a database with thousands of options has fewer bytes.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;
/// So much of what Notion says of an error is kept.
const LONGEST_MESSAGE: usize = 300;

/// Notion's API for one database. Prints nothing of its token.
#[derive(Debug)]
pub(crate) struct Api {
    http: reqwest::Client,
    settings: NotionSettings,
}

/// Why a request failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// What Notion answered.
    pub(crate) status: Option<StatusCode>,
    /// The same in words, with Notion's own.
    pub(crate) error: String,
    /// Without what Notion says itself: for the log.
    pub(crate) short: String,
    /// Seconds.
    pub(crate) retry_after: Option<i32>,
}

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Nothing was done, and nothing can be just now.
    Busy,
    /// The same, but perhaps it was done.
    Unknown,
    /// Somebody else was at it.
    Conflict,
    /// The token is refused.
    Unauthorized,
    /// What was asked for is not there, or not shared.
    Missing,
    /// It will be refused every time.
    Refused,
}

/// What a search for the page of a job has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The page that was made first.
    pub(crate) page_id: Option<String>,
    /// Whether there are others.
    pub(crate) several: bool,
    /// Where the search goes on, if nothing was found yet.
    pub(crate) cursor: Option<String>,
}

impl Api {
    pub(crate) fn new(settings: NotionSettings) -> Result<Self, reqwest::Error> {
        let agent = concat!("ops-jobs-notion/", env!("CARGO_PKG_VERSION"));
        Ok(Self {
            http: http_client::client(TIMEOUT, agent)?,
            settings,
        })
    }

    /// The database, as Notion writes its id.
    pub(crate) fn database_id(&self) -> String {
        self.settings.database_id.to_string()
    }

    /// What is published with, by a part of its digest, so that programs with other settings are told apart.
    pub(crate) fn key(&self) -> String {
        let digest = Sha256::new()
            .chain_update(b"ops-jobs notion key 1\0")
            .chain_update(self.settings.token.expose())
            .chain_update(b"\0")
            .chain_update(self.settings.database_id.as_bytes())
            .chain_update(self.settings.api_url.as_str())
            .finalize();
        digest[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// `GET /v1/databases/{id}`: the database with its properties.
    pub(crate) async fn database(&self, longest: Duration) -> Result<Value, Failure> {
        let path = format!("v1/databases/{}", self.settings.database_id);
        self.call(Method::GET, &path, None, longest).await
    }

    /// `POST /v1/databases/{id}/query`: the page of a job, the oldest where somebody has made several.
    pub(crate) async fn find(
        &self,
        job: Uuid,
        cursor: Option<&str>,
        longest: Duration,
    ) -> Result<Found, Failure> {
        let path = format!("v1/databases/{}/query", self.settings.database_id);
        let mut body = json!({
            "filter": {"property": JOB_ID, "rich_text": {"equals": job.to_string()}},
            "sorts": [{"timestamp": "created_time", "direction": "ascending"}],
            "page_size": 2,
        });
        if let Some(cursor) = cursor {
            body["start_cursor"] = cursor.into();
        }
        let answer = self.call(Method::POST, &path, Some(body), longest).await?;
        let results = answer["results"].as_array().map_or(&[][..], Vec::as_slice);
        let page_id = results.first().and_then(|page| page["id"].as_str());
        let cursor = answer["next_cursor"].as_str();
        Ok(Found {
            page_id: page_id.map(str::to_owned),
            several: results.len() > 1,
            cursor: cursor.filter(|_| page_id.is_none()).map(str::to_owned),
        })
    }

    /// `POST /v1/pages`: makes a page and gives its id.
    pub(crate) async fn create(
        &self,
        properties: Value,
        longest: Duration,
    ) -> Result<String, Failure> {
        let body = json!({
            "parent": {"type": "database_id", "database_id": self.database_id()},
            "properties": properties,
        });
        let answer = self
            .call(Method::POST, "v1/pages", Some(body), longest)
            .await?;
        match answer["id"].as_str() {
            Some(id) => Ok(id.to_owned()),
            None => Err(Failure::unread("the page that was made has no id")),
        }
    }

    /// `PATCH /v1/pages/{id}`: changes a page.
    pub(crate) async fn update(
        &self,
        page_id: &str,
        properties: Value,
        longest: Duration,
    ) -> Result<(), Failure> {
        let path = format!("v1/pages/{page_id}");
        let body = json!({ "properties": properties });
        self.call(Method::PATCH, &path, Some(body), longest).await?;
        Ok(())
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        longest: Duration,
    ) -> Result<Value, Failure> {
        let request = self
            .http
            .request(method, self.address(path))
            .timeout(longest.min(TIMEOUT))
            .bearer_auth(self.settings.token.expose())
            .header("notion-version", VERSION);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        answer(request).await
    }

    fn address(&self, path: &str) -> Url {
        let mut url = self.settings.api_url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{path}"));
        url
    }
}

async fn answer(request: RequestBuilder) -> Result<Value, Failure> {
    let sent = request.send().await;
    let mut response = sent.map_err(|error| Failure::unsent(&error))?;
    let body = read(&mut response).await;
    let status = response.status();
    if status.is_success() {
        let body = body.ok_or_else(|| Failure::unread("the answer broke off, or is too long"))?;
        return serde_json::from_slice(&body)
            .map_err(|_| Failure::unread("the answer is no JSON: is NOTION_API_URL Notion's?"));
    }
    let said = body.and_then(|body| serde_json::from_slice(&body).ok());
    Err(Failure::answered(&response, &said.unwrap_or_default()))
}

/// The whole body; `None` when it broke off, or is longer than anything that Notion answers.
async fn read(response: &mut Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.ok()? {
        if body.len() + piece.len() > LONGEST_ANSWER {
            return None;
        }
        body.extend_from_slice(&piece);
    }
    Some(body)
}

impl Failure {
    fn new(kind: FailureKind, why: &str) -> Self {
        Self {
            kind,
            status: None,
            error: why.to_owned(),
            short: why.to_owned(),
            retry_after: None,
        }
    }

    fn unsent(error: &reqwest::Error) -> Self {
        let kind = if error.is_connect() {
            FailureKind::Busy
        } else {
            FailureKind::Unknown
        };
        Self::new(kind, &http_client::why(error))
    }

    fn unread(why: &str) -> Self {
        Self::new(FailureKind::Unknown, why)
    }

    /// The time that was given is over before the request could be made.
    pub(crate) fn no_time() -> Self {
        Self::new(FailureKind::Conflict, "no time was left for the request")
    }

    fn answered(response: &Response, said: &Value) -> Self {
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after
            .and_then(|value| value.to_str().ok()?.trim().parse::<i32>().ok())
            .filter(|seconds| *seconds >= 0);
        let word = |text: &str, longest: usize| -> String {
            let letters = text.chars().filter(|letter| !letter.is_control());
            letters.take(longest).collect()
        };
        let code = said["code"].as_str().map(|code| word(code, 50));
        let short = match &code {
            Some(code) => format!("answered {} ({code})", status.as_u16()),
            None if status.is_redirection() => format!(
                "answered {}: redirects are not followed, set NOTION_API_URL to the final address",
                status.as_u16()
            ),
            None => format!("answered {}", status.as_u16()),
        };
        let error = match said["message"].as_str() {
            Some(message) => format!("{short}: {}", word(message, LONGEST_MESSAGE)),
            None => short.clone(),
        };
        Self {
            kind: kind_of(status),
            status: Some(status),
            error,
            short,
            retry_after,
        }
    }
}

fn kind_of(status: StatusCode) -> FailureKind {
    match status {
        StatusCode::TOO_MANY_REQUESTS => FailureKind::Busy,
        StatusCode::REQUEST_TIMEOUT => FailureKind::Unknown,
        StatusCode::CONFLICT => FailureKind::Conflict,
        StatusCode::UNAUTHORIZED => FailureKind::Unauthorized,
        StatusCode::NOT_FOUND => FailureKind::Missing,
        // 502, 503, 504, 529: what was begun may have been done all the same.
        _ if status.is_server_error() => FailureKind::Unknown,
        _ => FailureKind::Refused,
    }
}
