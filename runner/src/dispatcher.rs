//! Claims due work: wait, then tick. Every claim, by poll, by trigger or by cron, has its slots first and is in the
//! lease keeper's care before anything else happens. It runs nothing itself.

use std::sync::Arc;
use std::time::Duration;

use jobs::{LeasedJob, NewJob, Outcome, Status, StoreError, TriggerAccepted};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::app::App;
use crate::executor::execute;
use crate::lease_keeper::Held;
use crate::slots::Slot;

/// How long a claim may take, beyond every limit of the store: a connection may die without a word.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a trigger asks for.
#[derive(Debug)]
pub(crate) enum Take {
    /// This queued job.
    Queued(Uuid),
    /// A job that is recorded first.
    New(Box<NewJob>),
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
        match tokio::time::timeout(PATIENCE, tick(&app)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(event = "claim_failed", %error),
            // What it may have taken comes back by its lease; waiting on would keep every free slot.
            Err(_) => tracing::warn!(event = "claim_failed", "the database did not answer"),
        }
        wait = app.limits.poll_interval;
    }
}

/// Claims what is due, up to the free slots, and starts it; gives how many.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn tick(app: &Arc<App>) -> Result<usize, StoreError> {
    let _turn = app.claiming.lock().await;
    if !app.takes_work() {
        return Ok(0);
    }
    let slots = app.slots.take_all();
    if slots.is_empty() || app.registry.terms().is_empty() {
        app.backlog.note(true);
        return Ok(0);
    }
    let most = i64::try_from(slots.len()).unwrap_or(i64::MAX);
    let claimed = app.store.claim_due(app.claim_request(), most).await?;
    app.backlog.note(claimed.len() >= slots.len());
    let held: Vec<_> = claimed
        .into_iter()
        .map(|leased| hold(app, leased))
        .collect();
    let count = held.len();
    let mut slots = slots.into_iter();
    for (leased, held) in held {
        match slots.next() {
            Some(slot) => start(app, slot, leased, held),
            None => give_back(app, leased, held),
        }
    }
    Ok(count)
}

/// Takes one job into a slot; gives no answer when the runner is stopping. The task that claims is the one that runs, so that a caller who hangs up changes nothing.
pub(crate) fn take(
    app: &Arc<App>,
    slot: Slot,
    what: Take,
) -> oneshot::Receiver<Result<Taken, StoreError>> {
    let (tell, told) = oneshot::channel();
    let of_task = Arc::clone(app);
    app.executions.spawn(async move {
        // Looked at here, where the drain waits for this task: after it nothing is claimed any more.
        if !of_task.takes_work() {
            return;
        }
        let claimed = match what {
            Take::Queued(id) => claim(&of_task, id)
                .await
                .map(|(leased, held)| Recorded::Claimed(leased, held)),
            Take::New(new) => record(&of_task, *new).await,
        };
        // Whoever asked may have hung up; the work goes on.
        match claimed {
            Ok(Recorded::Claimed(leased, held)) => {
                let _ = tell.send(Ok(Taken::Accepted(accepted(&leased))));
                execute(of_task, slot, *leased, held).await;
            }
            Ok(Recorded::Elsewhere(taken)) => {
                let _ = tell.send(Ok(taken));
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        }
    });
    told
}

enum Recorded {
    Claimed(Box<LeasedJob>, Held),
    Elsewhere(Taken),
}

async fn claim(app: &Arc<App>, id: Uuid) -> Result<(Box<LeasedJob>, Held), StoreError> {
    let leased = app.store.claim_by_id(app.claim_request(), id).await?;
    let (leased, held) = hold(app, leased);
    Ok((Box::new(leased), held))
}

/// Records a job and claims it; if somebody was faster, or the request is a repeated one, says where its job stands.
async fn record(app: &Arc<App>, new: NewJob) -> Result<Recorded, StoreError> {
    let submitted = app.store.submit(new, &app.identity.actor()).await?;
    let replayed = matches!(submitted, jobs::Submitted::Replayed(_));
    let id = submitted.into_job().id;
    let error = match claim(app, id).await {
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
