//! `GET /jobs/{id}/events/stream` and `/log/stream`: server-sent events, from wherever the client was, to the job's end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use service::{FieldError, Fields, Parse, Problem, Query, read};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::frame::{COMMENT, Form, GREETING, Unsent, event_frame};
use super::params::JobId;
use crate::app::{App, DATABASE_DEADLINE, ask};
use crate::error::{no_such_job, unavailable};
use crate::live::{Item, Kind, OLDEST, Standing, Taken, Watch};

/// A comment is sent so often, whatever else is.
const COMMENT_EVERY: Duration = Duration::from_secs(5);
/// So much is sent at once, and waits for a client that is slow.
const PIECE: usize = 8 * 1024;
/// So much of what is older than the shared memory is read at once.
const OLDER: i64 = 8 * 1024;
const OLDER_EVENTS: i64 = 20;
/// While the database is away, it is asked for older things so often.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Where a stream begins, for clients that cannot send `Last-Event-ID` at first.
#[derive(Debug)]
pub(crate) struct After(i64);

impl Parse for After {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let after = fields.optional("after", read::number_text(0, i64::MAX));
        Some(Self(after.unwrap_or(0)))
    }
}

/// Watch what happens to a job, live.
///
/// Server-sent events: `id` is the event's `seq`, `event` its kind, `data` the event as `GET /jobs/{id}/events` has it.
/// A comment comes every 5 s. Ends after the event that ended the job.
#[utoipa::path(
    get,
    path = "/jobs/{id}/events/stream",
    tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path, description = "The job"),
        ("after" = Option<i64>, Query, minimum = 0, description = "Only events with a greater `seq`"),
        ("Last-Event-ID" = Option<i64>, Header, description = "The same, as clients send it when they come back; it holds where both are sent"),
    ),
    responses(
        (status = 200, description = "Its events", body = String, content_type = "text/event-stream"),
        (status = 204, description = "To a client that came back: the job has ended, and it has everything"),
        (status = 404, description = "No such job"),
        (status = 429, description = "As many streams are open as may be"),
    ),
)]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    JobId(id): JobId,
    Query(After(after)): Query<After>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    open(app, Kind::Events, id, after, &headers).await
}

/// Watch what a job prints, live.
///
/// Server-sent events: `id` is the line's `seq`, `event` is `line`, `data` the line as `GET /jobs/{id}/log` has it in
/// JSON. A comment comes every 5 s. Ends after the last line of a job that has ended.
#[utoipa::path(
    get,
    path = "/jobs/{id}/log/stream",
    tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path, description = "The job"),
        ("after" = Option<i64>, Query, minimum = 0, description = "Only lines with a greater `seq`"),
        ("Last-Event-ID" = Option<i64>, Header, description = "The same, as clients send it when they come back; it holds where both are sent"),
    ),
    responses(
        (status = 200, description = "Its lines", body = String, content_type = "text/event-stream"),
        (status = 204, description = "To a client that came back: the job has ended, and it has everything"),
        (status = 404, description = "No such job"),
        (status = 429, description = "As many streams are open as may be"),
    ),
)]
pub(crate) async fn log(
    State(app): State<Arc<App>>,
    JobId(id): JobId,
    Query(After(after)): Query<After>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    open(app, Kind::Log, id, after, &headers).await
}

async fn open(
    app: Arc<App>,
    kind: Kind,
    id: Uuid,
    after: i64,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let came_back = last_event_id(headers)?;
    let Some(watch) = app.live.watch(kind, id) else {
        let detail = "As many streams are open as may be; poll, or try again later.";
        return Err(Problem::too_many_requests(detail, Duration::from_secs(5)));
    };
    let mut changed = watch.topic.listen();
    let known = changed.wait_for(|()| watch.topic.standing() != Standing::Unknown);
    if timeout(DATABASE_DEADLINE, known).await.is_err() {
        return Err(unavailable());
    }
    if watch.topic.standing() == Standing::Missing {
        return Err(no_such_job());
    }
    let after = came_back.unwrap_or(after);
    if came_back.is_some() && matches!(watch.topic.take(after, 1), Taken::Ended) {
        // A browser comes back to whatever ends, except to this.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let now = Instant::now();
    let reading = Reading {
        app,
        id,
        watch,
        changed,
        after,
        found: VecDeque::new(),
        unsent: None,
        greeted: false,
        comment_at: now + COMMENT_EVERY,
        ends_at: now + OLDEST,
    };
    let stream = unfold(Box::new(reading), |mut reading| async move {
        let piece = reading.next().await?;
        Some((Ok::<_, Infallible>(piece), reading))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        // Proxies that collect answers before they pass them on are told not to.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(sent) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let number = sent.to_str().ok().map(str::trim);
    match number {
        // What a client sends that has seen no id yet.
        Some("") => Ok(None),
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() < 19 => {
            Ok(text.parse().ok())
        }
        _ => Err(Problem::invalid_fields(vec![FieldError::new(
            "Last-Event-ID",
            "must be the id of an event of this stream, a whole number",
        )])),
    }
}

/// One client's place in a stream.
struct Reading {
    app: Arc<App>,
    id: Uuid,
    watch: Watch,
    changed: watch::Receiver<()>,
    /// It has been sent everything up to this number.
    after: i64,
    /// What comes next.
    found: VecDeque<Item>,
    /// The lines of the piece before that.
    unsent: Option<Unsent>,
    greeted: bool,
    comment_at: Instant,
    ends_at: Instant,
}

impl Reading {
    /// What is sent next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.greeted {
            self.greeted = true;
            return Some(Bytes::from_static(GREETING));
        }
        loop {
            let now = Instant::now();
            if now >= self.ends_at {
                return None;
            }
            if now >= self.comment_at {
                self.comment_at = now + COMMENT_EVERY;
                return Some(Bytes::from_static(COMMENT));
            }
            if let Some(piece) = self.write() {
                return Some(piece);
            }
            // Before looking, so that what comes meanwhile is noticed.
            self.changed.mark_unchanged();
            match self.watch.topic.take(self.after, PIECE) {
                Taken::Items(items) => self.found.extend(items),
                Taken::Behind => self.catch_up().await,
                Taken::Ended => return None,
                Taken::Nothing => {
                    let until = self.comment_at.min(self.ends_at);
                    tokio::select! {
                        // The sender lives as long as the topic, which is held here.
                        _ = self.changed.changed() => {}
                        () = sleep_until(until) => {}
                    }
                }
            }
        }
    }

    /// Puts what was found into words, a piece at a time.
    fn write(&mut self) -> Option<Bytes> {
        let mut piece = Vec::new();
        loop {
            if let Some(unsent) = &mut self.unsent {
                match unsent.write(Form::Frames, PIECE, usize::MAX, &mut piece) {
                    Some((last, _)) => self.after = last,
                    None => self.unsent = None,
                }
            }
            if piece.len() >= PIECE {
                break;
            }
            match self.found.pop_front() {
                Some(Item::Lines(lines)) => self.unsent = Some(Unsent::after(lines, self.after)),
                Some(Item::Event { seq, frame }) => {
                    self.after = seq;
                    piece.extend_from_slice(&frame);
                }
                None => break,
            }
        }
        (!piece.is_empty()).then(|| Bytes::from(piece))
    }

    /// Reads what is older than the shared memory.
    async fn catch_up(&mut self) {
        let read = {
            let Some(_turn) = self.watch.turn().await else {
                return;
            };
            self.older().await
        };
        match read {
            Ok(items) => self.found.extend(items),
            // It has been logged; the stream goes on once the database is back.
            Err(_) => tokio::time::sleep(ASK_AGAIN).await,
        }
    }

    async fn older(&self) -> Result<Vec<Item>, Problem> {
        match self.watch.topic.kind {
            Kind::Events => {
                let after = i32::try_from(self.after).unwrap_or(i32::MAX);
                let events = ask(self.app.store.events(self.id, after, OLDER_EVENTS)).await?;
                let items = events.into_iter().map(|event| Item::Event {
                    seq: i64::from(event.seq),
                    frame: event_frame(event),
                });
                Ok(items.collect())
            }
            Kind::Log => {
                let page = ask(self.app.store.log_page(self.id, self.after, OLDER)).await?;
                let pieces = page.map(|page| page.pieces).unwrap_or_default();
                let items = pieces.into_iter().map(|piece| Item::Lines(Arc::new(piece)));
                Ok(items.collect())
            }
        }
    }
}
