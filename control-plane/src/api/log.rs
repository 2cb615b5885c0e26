//! `GET /jobs/{id}/log`: what a job printed, as text, as lines of JSON, or as a page of them. However long it is, a page
//! of it at a time is in memory.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use jobs::LogPage;
use service::{Fields, Json, Parse, Problem, Query, read};
use uuid::Uuid;

use super::frame::{Form, Unsent};
use super::params::JobId;
use super::views::LogView;
use crate::app::{App, ask};
use crate::error::no_such_job;

/// How much is read of the log at once.
const PAGE: i64 = 128 * 1024;
/// How much is sent at once.
const PIECE: usize = 64 * 1024;
/// How many lines a page of JSON has unless asked otherwise, and at most.
const LINES: usize = 1000;
const MOST_LINES: usize = 10_000;
/// A page of JSON ends early once its lines have so many bytes, as lists do.
const LARGEST_PAGE: usize = 8 * 1024 * 1024;

/// What of a log is asked for.
#[derive(Debug)]
pub(crate) struct LogRequest {
    after: i64,
    limit: Option<usize>,
    form: Option<Wanted>,
}

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Text,
    Ndjson,
    Page,
}

impl Parse for LogRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let after = fields.optional("after", read::number_text(0, i64::MAX));
        let limit = fields.optional("limit", read::number_text(1, MOST_LINES));
        let form = fields.optional("format", |value| match value.as_str() {
            Some("text") => Ok(Wanted::Text),
            Some("ndjson") => Ok(Wanted::Ndjson),
            Some("json") => Ok(Wanted::Page),
            _ => Err("must be text, ndjson or json".to_owned()),
        });
        Some(Self {
            after: after.unwrap_or(0),
            limit,
            form,
        })
    }
}

/// Read what a job printed, attempts in order.
///
/// As text unless asked otherwise. `Accept: application/json` (or `format=json`) gives a page of lines,
/// `Accept: application/x-ndjson` (or `format=ndjson`) all lines, a JSON object each. To poll, ask for what comes after
/// the greatest `seq` seen, until the page says that it is `complete`.
#[utoipa::path(
    get,
    path = "/jobs/{id}/log",
    tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path, description = "The job"),
        ("after" = Option<i64>, Query, minimum = 0, description = "Only lines with a greater `seq`"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 10_000, description = "At most so many lines; a page of JSON has 1000 unless asked otherwise, the other forms have all"),
        ("format" = Option<String>, Query, description = "`text`, `ndjson` or `json`, whatever `Accept` says"),
    ),
    responses(
        (status = 200, description = "Its log, which may be empty", content(
            (String = "text/plain; charset=utf-8"),
            (super::views::LineView = "application/x-ndjson"),
            (LogView = "application/json"),
        )),
        (status = 404, description = "No such job"),
    ),
)]
pub(crate) async fn log(
    State(app): State<Arc<App>>,
    JobId(id): JobId,
    Query(LogRequest { after, limit, form }): Query<LogRequest>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let first = page(&app, id, after).await?;
    let all = limit.unwrap_or(usize::MAX);
    match form.unwrap_or_else(|| accepted(&headers)) {
        Wanted::Text => Ok(sent(app, id, after, first, Form::Text, all)),
        Wanted::Ndjson => Ok(sent(app, id, after, first, Form::Ndjson, all)),
        Wanted::Page => {
            let view = lines(&app, id, after, first, limit.unwrap_or(LINES)).await?;
            Ok(Json(view).into_response())
        }
    }
}

fn accepted(headers: &HeaderMap) -> Wanted {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or("");
    let wants = |name: &str| {
        accept.split(',').any(|kind| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case(name)
        })
    };
    if wants("application/x-ndjson") {
        Wanted::Ndjson
    } else if wants("application/json") {
        Wanted::Page
    } else {
        Wanted::Text
    }
}

async fn page(app: &App, id: Uuid, after: i64) -> Result<LogPage, Problem> {
    let page = ask(app.store.log_page(id, after, PAGE)).await?;
    page.ok_or_else(no_such_job)
}

/// A page of lines, and whether there can be more.
async fn lines(
    app: &App,
    id: Uuid,
    mut after: i64,
    first: LogPage,
    limit: usize,
) -> Result<LogView, Problem> {
    let mut lines = Vec::new();
    let mut bytes = 0;
    let mut now = first;
    loop {
        let (cut, ended) = (now.cut, now.ended);
        for piece in now.pieces {
            let mut unsent = Unsent::after(Arc::new(piece), after);
            while let Some(line) = unsent.line() {
                if lines.len() == limit || bytes >= LARGEST_PAGE {
                    return Ok(LogView {
                        lines,
                        last_seq: after,
                        complete: false,
                    });
                }
                after = line.seq;
                bytes += line.line.len();
                lines.push(line);
            }
        }
        if !cut {
            return Ok(LogView {
                lines,
                last_seq: after,
                complete: ended,
            });
        }
        now = page(app, id, after).await?;
    }
}

/// Everything, read and sent a page at a time.
fn sent(app: Arc<App>, id: Uuid, after: i64, first: LogPage, form: Form, limit: usize) -> Response {
    let sending = Sending {
        app,
        id,
        after,
        form,
        left: limit,
        cut: first.cut,
        pieces: first.pieces.into_iter(),
        unsent: None,
    };
    let stream = unfold(Some(Box::new(sending)), |sending| async move {
        let mut sending = sending?;
        match sending.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(sending))),
            Ok(None) => None,
            // The head is gone already: the connection is cut, so that nobody takes this for the end.
            Err(why) => Some((Err(std::io::Error::other(why)), None)),
        }
    });
    let content_type = match form {
        Form::Text => "text/plain; charset=utf-8",
        Form::Ndjson | Form::Frames => "application/x-ndjson",
    };
    let headers = [(header::CONTENT_TYPE, content_type)];
    (headers, Body::from_stream(stream)).into_response()
}

struct Sending {
    app: Arc<App>,
    id: Uuid,
    after: i64,
    form: Form,
    /// How many lines may still be sent.
    left: usize,
    cut: bool,
    pieces: std::vec::IntoIter<jobs::LogPiece>,
    unsent: Option<Unsent>,
}

impl Sending {
    async fn next(&mut self) -> Result<Option<Bytes>, &'static str> {
        let mut into = Vec::new();
        while self.left > 0 && into.len() < PIECE {
            if let Some(unsent) = &mut self.unsent {
                match unsent.write(self.form, PIECE, self.left, &mut into) {
                    Some((last, count)) => (self.after, self.left) = (last, self.left - count),
                    None => self.unsent = None,
                }
            } else if let Some(piece) = self.pieces.next() {
                self.unsent = Some(Unsent::after(Arc::new(piece), self.after));
            } else if self.cut {
                let page = page(&self.app, self.id, self.after).await;
                let page = page.map_err(|_| "the rest of the log cannot be read")?;
                (self.cut, self.pieces) = (page.cut, page.pieces.into_iter());
            } else {
                break;
            }
        }
        Ok((!into.is_empty()).then(|| Bytes::from(into)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_sent_unless_json_is_asked_for() {
        for (accept, wanted) in [
            ("", Wanted::Text),
            ("*/*", Wanted::Text),
            ("text/plain, application/jsonp", Wanted::Text),
            ("application/json, application/problem+json", Wanted::Page),
            ("text/html, Application/X-NDJSON;q=0.9", Wanted::Ndjson),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().expect("a value"));
            assert_eq!(accepted(&headers), wanted, "{accept}");
        }
        assert_eq!(accepted(&HeaderMap::new()), Wanted::Text);
    }
}
