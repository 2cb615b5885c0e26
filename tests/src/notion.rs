//! A Notion of our own: an HTTP server with one database, which takes what Notion's API takes, refuses what it refuses, in its
//! words, and keeps the pages. Written after Notion's reference (version 2022-06-28), with nothing of the product's.

mod check;
mod held;
mod limit;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Router, http};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

use held::Held;

/// The token that it accepts at first.
pub const NOTION_TOKEN: &str = "ntn_canary_of_the_system_tests_1";
/// Its database.
pub const NOTION_DATABASE_ID: &str = "0badcafe-0000-4000-8000-000000000001";

/// Something that it does instead of what was asked.
#[derive(Clone, Copy, Debug)]
pub enum Instead {
    /// Answers this status, and with seconds that `Retry-After` says; does nothing.
    Refuse(u16, Option<u32>),
    /// Does nothing, and never answers.
    Ignore,
    /// Does what was asked, and never answers.
    Swallow,
}

/// A request that it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Method and path; ids are left out.
    pub what: String,
    /// What it answered; 0: nothing.
    pub status: u16,
}

/// A page that somebody has made.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its id.
    pub id: String,
    /// What it says, property by property, as it was sent.
    pub properties: Value,
    archived: bool,
}

impl Page {
    /// The text of a property, whatever its type.
    pub fn text(&self, name: &str) -> String {
        let property = &self.properties[name];
        let parts = property["title"].as_array();
        let parts = parts.or_else(|| property["rich_text"].as_array());
        if let Some(parts) = parts {
            let texts = parts.iter().map(|part| part["text"]["content"].as_str());
            return texts.map(Option::unwrap_or_default).collect();
        }
        let plain = [
            &property["select"]["name"],
            &property["date"]["start"],
            &property["number"],
        ];
        let found = plain.into_iter().find(|value| !value.is_null());
        found.map_or_else(String::new, |value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        })
    }
}

/// A server that ends with this value.
#[derive(Debug)]
pub struct Notion {
    port: u16,
    shared: Arc<Mutex<Held>>,
    _serving: JoinSet<()>,
}

impl Notion {
    /// A Notion whose database has every property that the product's documentation names.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::on(listener)
    }

    /// The same where this listens.
    pub fn on(listener: TcpListener) -> Self {
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Mutex::new(Held::new()));
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        Self {
            port,
            shared,
            _serving: serving,
        }
    }

    /// Where its API is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The pages, in the order in which they were made.
    pub fn pages(&self) -> Vec<Page> {
        self.held(|held| held.pages.clone())
    }

    /// The pages that bear the id of a job.
    pub fn pages_of(&self, job: &str) -> Vec<Page> {
        let mut pages = self.pages();
        pages.retain(|page| page.text("Job ID") == job);
        pages
    }

    /// What it was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.held(|held| held.asked.clone())
    }

    /// How often it was asked this.
    pub fn count(&self, what: &str) -> usize {
        let asked = self.asked();
        asked.iter().filter(|asked| asked.what == what).count()
    }

    /// At the next request that is this (`POST /pages`), does something else; may be said several times.
    pub fn at_next(&self, what: &'static str, instead: Instead) {
        self.held(|held| held.instead.push_back((what, instead)));
    }

    /// Does something else from now on, or no longer.
    pub fn always(&self, instead: Option<Instead>) {
        self.held(|held| held.always = instead);
    }

    /// Accepts another token, and no longer the one before.
    pub fn accept(&self, token: &str) {
        self.held(|held| token.clone_into(&mut held.token));
    }

    /// Gives a property of the database another type, or takes it away.
    pub fn change_property(&self, name: &str, kind: Option<&str>) {
        self.held(|held| match kind {
            Some(kind) => held.schema.insert(name.to_owned(), kind.to_owned()),
            None => held.schema.remove(name),
        });
    }

    /// Puts a page into the trash.
    pub fn archive(&self, id: &str) {
        self.held(|held| {
            for page in held.pages.iter_mut().filter(|page| page.id == id) {
                page.archived = true;
            }
        });
    }

    /// Removes a page for good.
    pub fn delete(&self, id: &str) {
        self.held(|held| held.pages.retain(|page| page.id != id));
    }

    /// Answers each search with nothing at first, and with where it goes on, as Notion may.
    pub fn answer_sparsely(&self) {
        self.held(|held| held.sparse = true);
    }

    /// How many requests came within the time that a `Retry-After` had named.
    pub fn too_early(&self) -> usize {
        self.held(|held| held.limit.too_early())
    }

    /// How many requests it let through, and in which time, from the first to the last.
    pub fn pace(&self) -> (usize, Duration) {
        self.held(|held| held.limit.pace())
    }

    fn held<T>(&self, look: impl FnOnce(&mut Held) -> T) -> T {
        look(&mut lock(&self.shared))
    }
}

fn lock(shared: &Mutex<Held>) -> std::sync::MutexGuard<'_, Held> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(shared): State<Arc<Mutex<Held>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1024 * 1024).await.unwrap_or_default();
    let path = head.uri.path().to_owned();
    let what = format!("{} {}", head.method, without_ids(&path));
    let done = {
        let mut held = lock(&shared);
        let done = held.done(&what, &head.headers, &path, &body);
        held.asked.push(Asked {
            what,
            status: done.as_ref().map_or(0, |(status, _, _)| *status),
        });
        done
    };
    let Some((status, retry_after, body)) = done else {
        return std::future::pending().await;
    };
    let response = http::Response::builder()
        .status(StatusCode::from_u16(status).expect("a status"))
        .header("content-type", "application/json; charset=utf-8");
    let response = match retry_after {
        Some(seconds) => response.header("retry-after", seconds),
        None => response,
    };
    response
        .body(Body::from(body.to_string()))
        .expect("an answer")
}

fn without_ids(path: &str) -> String {
    let parts = path.trim_start_matches("/v1").split('/');
    let parts = parts.filter(|part| Uuid::try_parse(part).is_err());
    parts.collect::<Vec<_>>().join("/")
}
