//! `POST /v1/run`: a job that is recorded like any other, run at once, and answered with what it left. The slot comes
//! before the upload, the whole within one time limit; whoever hangs up has the job aborted.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use files::{Archive, FileError, Uploaded, digest_of};
use jobs::{Inputs, Job, Name, NewJob, Status, StoreError};
use serde_json::{Map, Value};
use service::trace::Caused;
use service::{FieldError, Fields, Multipart, Parse, Part, Problem, read};
use tokio::sync::oneshot::{self, error::RecvError};
use tokio::time::Instant;
use uuid::Uuid;

use super::run;
use crate::app::App;
use crate::dispatcher::{self, Take, Taken};
use crate::error::problem;
use crate::handlers::command::exit_code_in;
use crate::interruption::GRACE;

/// The name of the part that is the task.
const TASK: &str = "task";
/// Beyond the time limit: killing, and recording how it ended.
const ENDING: Duration = Duration::from_secs(8);
/// How often the row of a job is looked at that another runner took.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const JOB_ID: HeaderName = HeaderName::from_static("x-ops-job-id");
const EXIT_CODE: HeaderName = HeaderName::from_static("x-ops-exit-code");

/// The part `task`.
#[derive(Debug)]
struct Task {
    job_type: Name,
    payload: Value,
}

impl Parse for Task {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let job_type = fields.required(
            "job_type",
            read::text_as(|text| text.parse::<Name>().map_err(|why| why.to_string())),
        );
        let payload = fields.optional("payload", read::json);
        Some(Self {
            job_type: job_type?,
            payload: payload.unwrap_or_else(|| Value::Object(Map::new())),
        })
    }
}

pub(super) async fn sync_run(
    State(app): State<Arc<App>>,
    service::Caller { key_id, .. }: service::Caller,
    headers: HeaderMap,
    caused: Caused,
    request: Request,
) -> Result<Response, Problem> {
    run::refuse_unless_taking(&app)?;
    run::refuse_while_paused(&app).await?;
    let limit = app.limits.request_timeout;
    let deadline = Instant::now() + limit;
    let multipart = Multipart::from_request(request, &()).await?;
    let slot = run::slot(&app).await?;
    let mut uploaded = Upload {
        app: Arc::clone(&app),
        files: Vec::new(),
    };
    let uploading = tokio::time::timeout_at(deadline, upload(&app, multipart, &mut uploaded));
    let task = uploading.await.unwrap_or_else(|_| Err(too_slow(limit)))?;
    let mut new = new_job(&app, &headers, task, deadline)?;
    run::bear(&mut new, caused);
    let inputs = uploaded.inputs();
    let mut caller = Caller {
        app: Arc::clone(&app),
        claim: dispatcher::take(&app, slot, Take::Sync(Box::new(new), inputs, key_id)),
        job_id: None,
        is_served: false,
    };
    let told = tokio::time::timeout(dispatcher::PATIENCE, caller.job())
        .await
        .map_err(|_| run::no_answer())?;
    let id = told.map_err(|_| run::draining())?.map_err(not_begun)?;
    uploaded.files.clear();
    let ended = until_it_ends(&app, id, deadline + GRACE + ENDING).await;
    caller.is_served = true;
    answer(&app, ended?, limit).await
}

/// The files that came so far; dropped before a job has them, they are forgotten.
struct Upload {
    app: Arc<App>,
    files: Vec<Uploaded>,
}

impl Upload {
    fn ids(&self) -> Vec<Uuid> {
        self.files.iter().map(|file| file.id).collect()
    }

    fn inputs(&self) -> Inputs {
        Inputs {
            ids: self.ids(),
            digest: digest_of(&self.files),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let ids = self.ids();
        if !ids.is_empty() {
            let store = self.app.store.clone();
            self.app.executions.spawn(async move {
                // What cannot be forgotten now is swept one day.
                let _ = store.discard_files(&ids).await;
            });
        }
    }
}

/// Whoever waits for the job; gone before it has ended, it has the job aborted: nobody else would ever ask for it.
struct Caller {
    app: Arc<App>,
    claim: oneshot::Receiver<Result<Taken, StoreError>>,
    job_id: Option<Uuid>,
    is_served: bool,
}

impl Caller {
    /// The job, once it is claimed; the outer error when it is not, since the runner stops.
    async fn job(&mut self) -> Result<Result<Uuid, StoreError>, RecvError> {
        let id = (&mut self.claim).await?.map(job_of);
        self.job_id = id.as_ref().ok().copied();
        Ok(id)
    }
}

fn job_of(taken: Taken) -> Uuid {
    let (Taken::Accepted(accepted) | Taken::Replayed(accepted)) = taken;
    accepted.job_id
}

impl Drop for Caller {
    fn drop(&mut self) {
        if self.is_served {
            return;
        }
        // What is claimed from now on is not told any more, and the dispatcher knows it.
        self.claim.close();
        let claimed = self.claim.try_recv().ok().and_then(Result::ok).map(job_of);
        if let Some(id) = self.job_id.or(claimed) {
            let app = Arc::clone(&self.app);
            self.app
                .executions
                .spawn(async move { dispatcher::abandon(&app, id).await });
        }
    }
}

async fn upload(
    app: &App,
    mut multipart: Multipart,
    uploaded: &mut Upload,
) -> Result<Task, Problem> {
    let mut task = None;
    while let Some(part) = multipart.next_part(TASK).await? {
        match part {
            Part::Json(text) if task.is_none() => {
                let asked: Task = Part::parse_json(&text)?;
                // Whoever may not have the job need not send its files.
                app.registry.get(&asked.job_type)?;
                task = Some(asked);
            }
            Part::Json(_) => return Err(wrong_task("must be sent once")),
            Part::File(file) => {
                let sent = file.file_name().map(str::to_owned);
                let place = i32::try_from(uploaded.files.len()).unwrap_or(i32::MAX);
                let id = service::ids::uuid_v7();
                let pieces = multipart.pieces(*file);
                let taken = app
                    .depot
                    .take_in(id, sent.as_deref(), place, pieces, not_stored);
                uploaded.files.push(taken.await?);
            }
        }
    }
    task.ok_or_else(|| wrong_task("is required, as a part of JSON beside the files"))
}

/// One attempt, no longer than its caller waits.
fn new_job(
    app: &App,
    headers: &HeaderMap,
    task: Task,
    deadline: Instant,
) -> Result<NewJob, Problem> {
    if headers.contains_key("idempotency-key") {
        let why = "goes with POST /run: a synchronous run is made each time it is asked for";
        return Err(Problem::invalid_fields(vec![FieldError::new(
            "Idempotency-Key",
            why,
        )]));
    }
    let job_type = app.registry.get(&task.job_type)?;
    run::fits(job_type, &task.payload)?;
    let left = deadline
        .saturating_duration_since(Instant::now())
        .as_secs_f64()
        .ceil()
        .max(1.0);
    let own = job_type.terms.timeout_seconds.unwrap_or(i32::MAX);
    let mut new = NewJob::new(task.job_type, task.payload);
    new.max_attempts = Some(1);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a day at most, by the setting's range"
    )]
    let left = left as i32;
    new.timeout_seconds = Some(own.min(left));
    Ok(new)
}

/// The job once nothing more happens to it, or as it is when the time is over.
async fn until_it_ends(app: &App, id: Uuid, latest: Instant) -> Result<Job, Problem> {
    loop {
        let job = app.store.get(id).await;
        match job {
            Ok(Some(job)) if job.status.is_terminal() || Instant::now() >= latest => {
                return Ok(job);
            }
            Ok(Some(_)) => {}
            Ok(None) => return Err(problem(StoreError::NotFound(id))),
            Err(error) if Instant::now() >= latest => return Err(problem(error)),
            Err(_) => {}
        }
        // The end of a job here is told at once; that of one that another runner took is looked for.
        tokio::select! {
            () = app.ended.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn answer(app: &App, job: Job, limit: Duration) -> Result<Response, Problem> {
    let id = job.id;
    let error = job.error.as_deref().unwrap_or_default();
    let code = match job.status {
        Status::Succeeded => Some(0),
        Status::Failed => exit_code_in(error),
        Status::Queued | Status::Running | Status::Waiting | Status::Aborted => None,
    };
    let Some(code) = code else {
        let refused = match job.status {
            Status::Failed if !error.starts_with("timed out") => {
                let told = format!("The job failed: {error}");
                Problem::internal()
                    .with_code("job-failed", "The job failed")
                    .with_member("job_error", told)
            }
            Status::Failed | Status::Running => too_slow(limit),
            Status::Aborted => Problem::conflict("The job was aborted."),
            Status::Queued | Status::Waiting | Status::Succeeded => run::draining(),
        };
        return Err(refused
            .with_member("job_id", id.to_string())
            .with_header(JOB_ID, text(&id)));
    };
    let artifacts = app
        .store
        .artifacts(id)
        .await
        .map_err(problem)?
        .unwrap_or_default();
    let archive = Archive::of(artifacts);
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/zip"),
        ),
        (header::CONTENT_LENGTH, archive.length().into()),
        (
            header::CONTENT_DISPOSITION,
            text(&format!("attachment; filename=\"{id}.zip\"")),
        ),
        (JOB_ID, text(&id)),
        (EXIT_CODE, code.into()),
    ];
    Ok((headers, Body::from_stream(archive.stream(&app.depot))).into_response())
}

/// Ids and what is made of them are visible ASCII.
fn text(word: &impl ToString) -> HeaderValue {
    HeaderValue::try_from(word.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What keeps a job waiting keeps a synchronous run from being.
fn not_begun(error: StoreError) -> Problem {
    match error {
        StoreError::ConcurrencyReached(_) | StoreError::Contended(_) => Problem::too_many_requests(
            "As many jobs of this type run as may; this one was not begun.",
            Duration::from_secs(1),
        ),
        error => problem(error),
    }
}

fn too_slow(limit: Duration) -> Problem {
    Problem::timeout(format!(
        "The run was not done within {} s; its processes are killed.",
        limit.as_secs()
    ))
}

fn wrong_task(why: &str) -> Problem {
    Problem::invalid_fields(vec![FieldError::new(TASK, why)])
}

fn not_stored(error: FileError) -> Problem {
    match error {
        FileError::Store(error) => problem(error),
        other => {
            let cause = std::error::Error::source(&other).map(ToString::to_string);
            tracing::error!(event = "file_not_stored", error = %other, cause);
            Problem::unavailable(
                "The files cannot be stored just now; try again.",
                Duration::from_secs(5),
            )
        }
    }
}
