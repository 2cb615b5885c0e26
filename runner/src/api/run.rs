//! `POST /run`: a trigger for a queued job, or cron's call that records one. The slot comes before the claim, and the
//! row says `running` before the answer does.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use jobs::{Name, NewJob, Status, StoreError};
use serde_json::{Map, Value};
use service::trace::Caused;
use service::{Caller, FieldError, Fields, Flag, Json, Parse, Problem, read};
use uuid::Uuid;

use crate::app::App;
use crate::dispatcher::{self, Take, Taken};
use crate::error::problem;
use crate::registry::{JobType, NotTaken};
use crate::reserved::Reserved;
use crate::slots::Slot;

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const LONGEST_KEY: usize = 255;
const LOOKING_UP: Duration = Duration::from_millis(2500);

/// What `POST /run` takes.
#[derive(Debug)]
pub(crate) enum RunRequest {
    /// The control plane's nudge.
    Queued(Uuid),
    /// Cron's call.
    New(Name, Value),
}

impl Parse for RunRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let job_id = fields.optional("job_id", read::uuid);
        let job_type = fields.optional(
            "job_type",
            read::text_as(|text| text.parse::<Name>().map_err(|why| why.to_string())),
        );
        let payload = fields.optional("payload", read::json);
        match (fields.has("job_id"), fields.has("job_type")) {
            (true, true) => fields.refuse("job_id", "goes without job_type: send one of them"),
            (false, false) => fields.refuse("job_id", "is required, or job_type"),
            (true, false) if fields.has("payload") => {
                fields.refuse("payload", "goes with job_type only");
            }
            (true, false) | (false, true) => {}
        }
        match (job_id, job_type) {
            (Some(id), _) => Some(Self::Queued(id)),
            (None, Some(name)) => Some(Self::New(
                name,
                payload.unwrap_or_else(|| Value::Object(Map::new())),
            )),
            (None, None) => None,
        }
    }
}

pub(crate) async fn run(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    caused: Caused,
    service::Json(request): service::Json<RunRequest>,
) -> Result<Response, Problem> {
    refuse_unless_taking(&app)?;
    let what = match request {
        RunRequest::Queued(id) => queued(&app, id).await?,
        RunRequest::New(name, payload) => new(&app, caller, &headers, caused, name, payload)?,
    };
    let slot = slot(&app).await?;
    let told = dispatcher::take(&app, slot, what);
    // Past this the claim may still succeed; then the job runs, and only the answer was late.
    let told = tokio::time::timeout(dispatcher::PATIENCE, told)
        .await
        .map_err(|_| no_answer())?;
    // No answer at all means that the task was cut off: the runner is ending.
    match told.map_err(|_| draining())?.map_err(problem)? {
        Taken::Accepted(accepted) => Ok((StatusCode::ACCEPTED, Json(accepted)).into_response()),
        Taken::Replayed(accepted) => {
            let replayed = (
                HeaderName::from_static("idempotency-replayed"),
                HeaderValue::from_static("true"),
            );
            Ok((StatusCode::ACCEPTED, [replayed], Json(accepted)).into_response())
        }
    }
}

/// A queued job that may run here; what it says now is checked again by the claim.
async fn queued(app: &App, id: Uuid) -> Result<Take, Problem> {
    let job = tokio::time::timeout(LOOKING_UP, app.store.get(id))
        .await
        .map_err(|_| no_answer())?;
    let job = job
        .map_err(problem)?
        .ok_or_else(|| problem(StoreError::NotFound(id)))?;
    if job.stage.is_some() && !app.registry.takes_stages() {
        return Err(NotTaken::FlagOff(Flag::Gates).into());
    }
    let job_type = app.registry.get(job.work_type())?;
    if job.status != Status::Queued {
        return Err(problem(StoreError::WrongStatus {
            job_id: id,
            status: job.status,
        }));
    }
    // A stage has its own payload; the executor looks at that.
    if job.stage.is_none() {
        fits(job_type, &job.payload)?;
    }
    Ok(Take::Queued(id))
}

fn new(
    app: &App,
    caller: Caller,
    headers: &HeaderMap,
    caused: Caused,
    name: Name,
    payload: Value,
) -> Result<Take, Problem> {
    fits(app.registry.get(&name)?, &payload)?;
    let mut job = NewJob::new(name, payload);
    job.idempotency_key = idempotency_key(headers)?;
    bear(&mut job, caused);
    Ok(Take::New(Box::new(job), caller.key_id))
}

/// The job's attempts are children of the request that asks for it.
pub(super) fn bear(job: &mut NewJob, caused: Caused) {
    if let Some(carried) = caused.0 {
        job.traceparent = Some(carried.traceparent);
        job.tracestate = carried.tracestate;
    }
}

pub(super) fn fits(job_type: &JobType, payload: &Value) -> Result<(), Problem> {
    let faults = job_type.faults(payload);
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Problem::invalid_fields(faults))
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let key = key
        .to_str()
        .ok()
        .filter(|key| (1..=LONGEST_KEY).contains(&key.len()) && !key.trim().is_empty());
    match (key, keys.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => {
            let fault = format!("must stand once, with 1 to {LONGEST_KEY} ASCII characters");
            Err(Problem::invalid_fields(vec![FieldError::new(
                IDEMPOTENCY_KEY,
                fault,
            )]))
        }
    }
}

/// A slot now, or in time.
pub(super) async fn slot(app: &Arc<App>) -> Result<Reserved, Problem> {
    free_slot(app).await.map(|slot| Reserved::new(app, slot))
}

async fn free_slot(app: &App) -> Result<Slot, Problem> {
    if let Some(slot) = app.slots.take() {
        return Ok(slot);
    }
    // A claim of due work that is under way holds every free slot for a moment; that is not being busy.
    let turn = app.claiming.lock().await;
    let slot = app.slots.take();
    drop(turn);
    if let Some(slot) = slot {
        return Ok(slot);
    }
    let waited = tokio::select! {
        slot = app.slots.wait(app.limits.queue_timeout) => slot,
        () = app.stop.requested() => return Err(draining()),
    };
    waited.ok_or_else(|| {
        app.backlog.note(true);
        Problem::too_many_requests(
            "Every slot is taken; a queued job stays queued.",
            Duration::from_secs(1),
        )
    })
}

/// Claims in a task of its own, so that a caller who hangs up cuts nothing off.
pub(crate) async fn claim_due(app: &Arc<App>) -> Result<usize, Problem> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let of_task = Arc::clone(app);
    app.executions.spawn(async move {
        // Whoever asked may have hung up.
        if let Ok(claimed) =
            tokio::time::timeout(dispatcher::PATIENCE, dispatcher::tick(&of_task)).await
        {
            let _ = tell.send(claimed);
        }
    });
    told.await.map_err(|_| no_answer())?.map_err(problem)
}

pub(crate) fn refuse_unless_taking(app: &App) -> Result<(), Problem> {
    if app.stop.is_requested() {
        Err(draining())
    } else if !app.is_admitted() {
        Err(Problem::unavailable(
            "The runner has just started: another process may still bear its RUNNER_ID.",
            Duration::from_secs(1),
        )
        .with_code("not-admitted", "Not admitted"))
    } else {
        Ok(())
    }
}

/// Whoever may not begin need not send files.
pub(super) async fn refuse_while_paused(app: &App) -> Result<(), Problem> {
    let asked = dispatcher::refuse_while_paused(app);
    tokio::time::timeout(LOOKING_UP, asked)
        .await
        .map_err(|_| no_answer())?
        .map_err(problem)
}

pub(super) fn no_answer() -> Problem {
    Problem::unavailable(
        "The database does not answer; try again.",
        Duration::from_secs(1),
    )
}

pub(super) fn draining() -> Problem {
    Problem::unavailable(
        "The runner is draining: it takes no more work.",
        Duration::from_secs(5),
    )
    .with_code("draining", "Draining")
}
