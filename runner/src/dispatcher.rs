//! Claims due work: wait, then tick. Every claim, by poll, by trigger or by cron, has its slots first and is in the
//! lease keeper's care before anything else happens. It runs nothing itself.

use std::sync::Arc;
use std::time::Duration;

use jobs::{Inputs, LeasedJob, NewJob, Outcome, Status, StoreError, TriggerAccepted};
use service::KeyId;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::app::App;
use crate::executor::execute;
use crate::lease_keeper::Held;
use crate::reserved::Reserved;
use crate::slots::{FreeSlots, Slot};

/// How long a claim may take, beyond every limit of the store: a connection may die without a word.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// After a look that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Few slots are filled by one statement.
const SMALL_BATCH: usize = 32;
/// Beyond this a larger statement is no cheaper a job.
const LARGE_BATCH: usize = 500;

/// What a trigger asks for.
#[derive(Debug)]
pub(crate) enum Take {
    /// This queued job.
    Queued(Uuid),
    /// A job that is recorded first, for this caller.
    New(Box<NewJob>, KeyId),
    /// A job that is recorded first, with files, and is not left behind where it cannot run here at once.
    Sync(Box<NewJob>, Inputs, KeyId),
}

/// What became of a trigger.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It runs here, or in the case of a repeated request wherever it was taken before.
    Accepted(TriggerAccepted),
    /// The same request had been made before, and its job is past running here.
    Replayed(TriggerAccepted),
}

/// Looks for work until stopping is requested.
pub(crate) async fn dispatch(app: Arc<App>) {
    app.until_ready().await;
    // The first look is at once, unless the runner never looks by itself.
    let mut wait = app.limits.poll_interval.map(|_| Duration::ZERO);
    loop {
        tokio::select! {
            biased;
            () = app.stop.requested() => return,
            () = app.backlog.time_to_look() => {}
            () = sleep(wait) => {}
        }
        wait = app.limits.poll_interval;
        match tokio::time::timeout(PATIENCE, tick(&app)).await {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => tracing::warn!(event = "claim_failed", %error),
            // What it may have taken comes back by its lease; waiting on would keep every free slot.
            Err(_) => tracing::warn!(event = "claim_failed", "the database did not answer"),
        }
        // Whoever rang for this look does not ring again, also where none is made without.
        wait = Some(wait.map_or(LOOK_AGAIN, |wait| wait.min(LOOK_AGAIN)));
    }
}

/// Claims what is due, up to the free slots, and starts it; gives how many.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn tick(app: &Arc<App>) -> Result<usize, StoreError> {
    let _turn = app.claiming.lock().await;
    // Those whose finishes were just committed together free their slots now: one claim for all of them.
    tokio::task::yield_now().await;
    let mut slots = FreeSlots::default();
    let mut count = 0;
    for _ in 0..app.slots.total().div_ceil(batch(app)) {
        slots.add(app.slots.take_all());
        let asked = slots.count().min(batch(app));
        if asked == 0 {
            break;
        }
        let claimed = claim_batch(app, &mut slots, asked).await;
        // What was claimed before is at work.
        let claimed = match claimed {
            Err(error) if count == 0 => return Err(error),
            Err(error) => {
                tracing::warn!(event = "claim_failed", %error);
                break;
            }
            Ok(claimed) => claimed,
        };
        count += claimed;
        if claimed < asked {
            drop(slots);
            // Those that became free meanwhile were not told what this look has found.
            app.backlog.slots_freed(&app.slots);
            return Ok(count);
        }
    }
    drop(slots);
    // There may be more, and slots for it.
    app.backlog.note(true);
    app.backlog.slots_freed(&app.slots);
    Ok(count)
}

/// So many are claimed in a statement at most: half of all, so that some are at work while others are claimed.
fn batch(app: &App) -> usize {
    app.slots
        .total()
        .div_ceil(2)
        .clamp(SMALL_BATCH, LARGE_BATCH)
}

/// Claims up to `asked` jobs into these slots; gives how many.
async fn claim_batch(
    app: &Arc<App>,
    slots: &mut FreeSlots,
    asked: usize,
) -> Result<usize, StoreError> {
    if !app.takes_work() || app.registry.terms().is_empty() {
        app.backlog.note(false);
        return Ok(0);
    }
    let most = i64::try_from(asked).unwrap_or(i64::MAX);
    let at_work = app.slots.total().saturating_sub(slots.count());
    let claimed = app
        .store
        .claim_due(app.claim_request(at_work), most)
        .await?;
    let alone = claimed.iter().any(|leased| leased.alone);
    app.backlog.note(alone || claimed.len() >= asked);
    if at_work > 0 {
        app.backlog.note_company();
    }
    let held: Vec<_> = claimed
        .into_iter()
        .map(|leased| hold(app, leased))
        .collect();
    let count = held.len();
    for (leased, held) in held {
        match slots.pop() {
            Some(mut slot) => {
                if leased.alone {
                    slot.widen(std::mem::take(slots));
                }
                start(app, slot, leased, held);
            }
            None => give_back(app, leased, held),
        }
    }
    Ok(count)
}

/// Takes one job into a slot; gives no answer when the runner is stopping. The task that claims is the one that runs, so that a caller who hangs up changes nothing.
pub(crate) fn take(
    app: &Arc<App>,
    mut slot: Reserved,
    what: Take,
) -> oneshot::Receiver<Result<Taken, StoreError>> {
    let (tell, told) = oneshot::channel();
    let of_task = Arc::clone(app);
    app.executions.spawn(async move {
        // Looked at here, where the drain waits for this task: after it nothing is claimed any more.
        if !of_task.takes_work() {
            return;
        }
        let is_awaited = matches!(what, Take::Sync(..));
        let claimed = match what {
            Take::Queued(id) => claim(&of_task, &mut slot, id)
                .await
                .map(|(leased, held)| Recorded::Claimed(leased, held)),
            Take::New(new, by) => record(&of_task, &mut slot, *new, &Inputs::default(), by).await,
            Take::Sync(new, inputs, by) => {
                record_for_now(&of_task, &mut slot, *new, &inputs, by).await
            }
        };
        // Whoever asked may have hung up; the work goes on, unless it was for them alone.
        match claimed {
            Ok(Recorded::Claimed(leased, held)) => {
                let told = tell.send(Ok(Taken::Accepted(accepted(&leased))));
                if told.is_err() && is_awaited {
                    abandon(&of_task, leased.lease.job_id()).await;
                }
                if let Some(slot) = slot.used() {
                    execute(of_task, slot, *leased, held).await;
                }
            }
            Ok(Recorded::Elsewhere(taken)) => {
                let told = tell.send(Ok(taken));
                if let Err(Ok(Taken::Accepted(elsewhere))) = told
                    && is_awaited
                {
                    abandon(&of_task, elsewhere.job_id).await;
                }
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        }
    });
    told
}

/// Aborts a job whose only caller has hung up.
pub(crate) async fn abandon(app: &App, id: Uuid) {
    let why = Some("the caller of the synchronous run hung up");
    match app.store.abort(id, &app.identity.actor(), why).await {
        Ok(_) => {
            app.leases.abort(id);
        }
        // It has ended, which is as well, or it ends at its timeout.
        Err(error) => tracing::warn!(event = "abort_failed", job_id = %id, %error),
    }
}

enum Recorded {
    Claimed(Box<LeasedJob>, Held),
    Elsewhere(Taken),
}

/// Claims by id. A job that must run alone is claimed only once every other slot is held too, and keeps them.
async fn claim(
    app: &Arc<App>,
    slot: &mut Reserved,
    id: Uuid,
) -> Result<(Box<LeasedJob>, Held), StoreError> {
    let in_company = app.claim_request(1);
    let leased = match app.store.claim_by_id(in_company, id).await {
        Err(StoreError::RunsAlone(_)) => {
            let others = app.slots.take_all();
            let at_work = app.slots.total().saturating_sub(others.count() + 1);
            let leased = app
                .store
                .claim_by_id(app.claim_request(at_work), id)
                .await?;
            slot.widen(others);
            leased
        }
        claimed => claimed?,
    };
    let (leased, held) = hold(app, leased);
    Ok((Box::new(leased), held))
}

/// As [`record`], for a caller who waits: a job that cannot run now is nobody's any more.
async fn record_for_now(
    app: &Arc<App>,
    slot: &mut Reserved,
    new: NewJob,
    inputs: &Inputs,
    by: KeyId,
) -> Result<Recorded, StoreError> {
    let recorded = record(app, slot, new, inputs, by).await;
    if let Err(
        StoreError::ConcurrencyReached(id)
        | StoreError::Contended(id)
        | StoreError::RunsAlone(id)
        | StoreError::FleetPaused {
            job_id: Some(id), ..
        }
        | StoreError::RunnerClosed {
            job_id: Some(id), ..
        },
    ) = &recorded
    {
        let why = Some("a synchronous run that could not begin at once");
        if let Err(error) = app.store.abort(*id, &app.identity.actor(), why).await {
            tracing::warn!(event = "abort_failed", job_id = %id, %error);
        }
    }
    recorded
}

/// Records a job and claims it; if somebody was faster, or the request is a repeated one, says where its job stands.
async fn record(
    app: &Arc<App>,
    slot: &mut Reserved,
    new: NewJob,
    inputs: &Inputs,
    by: KeyId,
) -> Result<Recorded, StoreError> {
    refuse_while_paused(app).await?;
    let submitted = app.store.submit_with(new, inputs, &by.to_string()).await?;
    let replayed = matches!(submitted, jobs::Submitted::Replayed(_));
    let id = submitted.into_job().id;
    let error = match claim(app, slot, id).await {
        Ok((leased, held)) => return Ok(Recorded::Claimed(leased, held)),
        Err(StoreError::WrongStatus { job_id, status }) => {
            StoreError::WrongStatus { job_id, status }
        }
        Err(error) => return Err(error),
    };
    let Some(job) = app.store.get(id).await? else {
        return Err(error);
    };
    let answer = TriggerAccepted {
        job_id: id,
        status: job.status,
        attempt: job.attempt,
        runner_id: job.runner_id.unwrap_or_default(),
    };
    match job.status {
        _ if replayed => Ok(Recorded::Elsewhere(Taken::Replayed(answer))),
        Status::Running | Status::Succeeded | Status::Failed => {
            Ok(Recorded::Elsewhere(Taken::Accepted(answer)))
        }
        Status::Queued | Status::Waiting | Status::Aborted => Err(error),
    }
}

/// Nothing is recorded that could not be begun; what is recorded just before a pause, or a drain, stays queued.
pub(crate) async fn refuse_while_paused(app: &App) -> Result<(), StoreError> {
    if let Some(pause) = app.store.pause().await? {
        return Err(StoreError::FleetPaused {
            job_id: None,
            pause: Box::new(pause),
        });
    }
    match app.store.closed_to(&app.identity).await? {
        Some(closed) => Err(StoreError::RunnerClosed {
            job_id: None,
            closed: Box::new(closed),
        }),
        None => Ok(()),
    }
}

fn accepted(leased: &LeasedJob) -> TriggerAccepted {
    TriggerAccepted {
        job_id: leased.lease.job_id(),
        status: Status::Running,
        attempt: leased.lease.attempt(),
        runner_id: leased.lease.runner_id().to_owned(),
    }
}

fn hold(app: &App, leased: LeasedJob) -> (LeasedJob, Held) {
    let held = app.leases.hold(leased.lease.key(), leased.lease.deadline());
    (leased, held)
}

fn start(app: &Arc<App>, slot: Slot, leased: LeasedJob, held: Held) {
    app.executions
        .spawn(execute(Arc::clone(app), slot, leased, held));
}

/// A claim must never give more than it was asked for; if it does, the surplus goes back unharmed.
fn give_back(app: &Arc<App>, leased: LeasedJob, held: Held) {
    tracing::error!(event = "claimed_too_many", job_id = %leased.lease.job_id());
    let store = app.store.clone();
    app.executions.spawn(async move {
        if let Err(unfinished) = store.finish(leased.lease, Outcome::Released).await {
            tracing::error!(event = "release_failed", error = %unfinished.error);
        }
        drop(held);
    });
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
