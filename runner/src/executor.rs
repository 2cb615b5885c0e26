//! Runs one leased job to its recorded end: handler, deadline and bell side by side, then the finish, again and again
//! until it is committed or the lease is another's. It renews nothing: the lease keeper does.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jobs::{Finished, Lease, LeasedJob, Outcome, Part, Store, StoreError};
use service::trace::{Carried, Role};
use tokio::task::JoinSet;

use crate::app::App;
use crate::context::Context;
use crate::interruption::{Bell, Interruption};
use crate::keeping::keep;
use crate::lease_keeper::Held;
use crate::mask::Masks;
use crate::output::Output;
use crate::registry::JobType;
use crate::reports::Reports;
use crate::slots::Slot;
use crate::spans::{Cause, process_span, settle_span, tell};

/// What killing takes beside the grace: reading what is left, and telling.
const AFTER_GRACE: Duration = Duration::from_secs(5);
/// How long the finish waits for output that is still to be stored.
const LAST_OUTPUT: Duration = Duration::from_secs(5);
/// The finish is tried again after so long, doubled each time up to the second figure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs the job; whatever happens, its lease is spent or left to run out, and its slot is free at the end.
pub(crate) async fn execute(app: Arc<App>, slot: Slot, leased: LeasedJob, held: Held) {
    let begun = Instant::now();
    let LeasedJob {
        lease,
        job_type: name,
        payload,
        timeout,
        part,
        waited,
        queue,
        traceparent,
        tracestate,
        ..
    } = leased;
    let cause = Cause {
        queue,
        carried: traceparent.and_then(|parent| Carried::parse(&parent, tracestate.as_deref())),
    };
    let (job_id, attempt, fence) = (lease.job_id(), lease.attempt(), lease.fence());
    if let Some(metrics) = &app.metrics {
        metrics.begun(name.as_str(), waited);
    }
    let wait_ms = waited.as_secs_f64() * 1000.0;
    tracing::info!(event = "job_started", %job_id, job_type = %name, attempt, fence, wait_ms);
    let mut span = process_span(&app, &cause, &name, &lease);
    let (outcome, limited) = match (app.registry.get(&name), part) {
        // Every stage is done: the database knows the result.
        (Ok(job_type), Part::End) => (
            Outcome::Succeeded(serde_json::Value::Null),
            job_type.terms.concurrency.is_some(),
        ),
        (Ok(job_type), part @ (Part::Whole | Part::Stage(_))) => {
            let handling = app
                .tracing
                .begin(Role::Internal, span.carried().as_ref(), || {
                    (format!("handle {name}"), [])
                });
            let context = Context {
                key: lease.key(),
                job_type: name.clone(),
                stage: match part {
                    Part::Stage(stage) => Some(Arc::new(stage)),
                    Part::Whole | Part::End => None,
                },
                timeout,
                output: Arc::new(Output::new(&job_type.masks, attempt)),
                reports: Arc::new(Reports::new()),
                masks: Arc::clone(&job_type.masks),
                bell: held.bell.clone(),
                depot: Arc::clone(&app.depot),
                work_dir: Arc::clone(&app.work_dir),
                folder: Arc::default(),
                limit: app.limits.upload_bytes,
                term: held.term.clone(),
                span: handling.carried(),
            };
            let outcome = attempt_once(&app.store, job_type, &context, payload).await;
            clear_away(context).await;
            drop(handling);
            (
                masked(outcome, &job_type.masks),
                job_type.terms.concurrency.is_some(),
            )
        }
        // Cannot be: only terms that the registry gave out are claimed.
        (Err(why), _) => (
            Outcome::Failed(format!("this runner does not take the job type: {why:?}")),
            false,
        ),
    };
    let took = begun.elapsed();
    if let Some(metrics) = &app.metrics {
        metrics.ended(name.as_str(), &outcome, took);
    }
    let word = word(&outcome);
    let settling = settle_span(&app, &cause, &span);
    let duration_ms = took.as_secs_f64() * 1000.0;
    app.outcomes
        .keep(lease.key(), lease.runner_id(), &outcome)
        .await;
    let key = lease.key();
    let finished = finish(&app, lease, outcome).await;
    drop(settling);
    tell(&mut span, word);
    drop(span);
    // What may have been our own fault is offered once more in the next life.
    if !matches!(
        finished,
        Err(StoreError::Unavailable(_) | StoreError::Internal(_))
    ) {
        app.outcomes.forget(key);
    }
    match finished {
        Ok(finished) => {
            if attempt > 1
                && let Err(error) = Box::pin(app.store.forget_earlier(key)).await
            {
                tracing::warn!(event = "earlier_artifacts_not_forgotten", %job_id, %error);
            }
            let status = finished.status.as_str();
            tracing::info!(event = "job_finished", %job_id, job_type = %name, attempt, fence, outcome = word, status, duration_ms);
        }
        Err(error) => {
            app.leases.forsake(key);
            tracing::warn!(event = "job_not_finished", %job_id, job_type = %name, attempt, fence, outcome = word, duration_ms, %error);
        }
    }
    drop(held);
    drop(slot);
    app.ended.notify_waiters();
    if limited {
        app.backlog.limit_freed(&app.slots);
    }
    app.backlog.slots_freed(&app.slots);
}

/// Removes the folder of the run. Many files may be in it; removing them keeps no other work waiting.
async fn clear_away(context: Context) {
    if context.folder.initialized() {
        let _ = tokio::task::spawn_blocking(move || drop(context)).await;
    }
}

/// Runs the handler, stores what it prints beside it, and keeps what it left.
async fn attempt_once(
    store: &Store,
    job_type: &JobType,
    context: &Context,
    payload: serde_json::Value,
) -> Outcome {
    let faults = job_type.faults(&payload);
    if !faults.is_empty() {
        let faults: Vec<String> = faults
            .iter()
            .map(|fault| format!("{} {}", fault.field, fault.detail))
            .collect();
        return Outcome::Failed(format!(
            "payload does not match the job type's schema: {}",
            faults.join("; ")
        ));
    }
    let (output, bell, timeout) = (
        Arc::clone(&context.output),
        context.bell.clone(),
        context.timeout,
    );
    let (reports, key) = (Arc::clone(&context.reports), context.key);
    let mut handler = JoinSet::new();
    handler.spawn(Arc::clone(&job_type.work).work(context.clone(), payload));
    let mut storing = pin!(async {
        tokio::join!(
            output.store_as_it_comes(store, key),
            reports.store_as_they_come(store, key)
        )
    });
    let mut is_stored = false;
    let mut outcome = {
        let mut watching = pin!(watch(&mut handler, &bell, timeout));
        loop {
            tokio::select! {
                biased;
                outcome = &mut watching => break outcome,
                _ = &mut storing, if !is_stored => is_stored = true,
            }
        }
    };
    if let Some(folder) = context.folder.get() {
        outcome = Box::pin(keep(context, folder, outcome)).await;
    }
    output.close();
    reports.close();
    if !is_stored && tokio::time::timeout(LAST_OUTPUT, storing).await.is_err() {
        tracing::warn!(event = "log_not_stored", job_id = %key.job_id, "the end of the output is lost");
    }
    outcome
}

/// An error may quote what the command said.
fn masked(outcome: Outcome, masks: &Masks) -> Outcome {
    match outcome {
        Outcome::Failed(why) => Outcome::Failed(masks.text(&why)),
        Outcome::Retry(why) => Outcome::Retry(masks.text(&why)),
        Outcome::Succeeded(_) | Outcome::Aborted | Outcome::Released => outcome,
    }
}

/// Waits for the handler, its deadline or the bell. What rings first decides how the attempt has ended.
async fn watch(handler: &mut JoinSet<Outcome>, bell: &Bell, timeout: Option<Duration>) -> Outcome {
    let deadline = async {
        match timeout {
            Some(limit) => {
                tokio::time::sleep(limit).await;
                limit
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        outcome = ended(handler) => return unless_interrupted(outcome, bell.rung()),
        _ = bell.heard() => {}
        limit = deadline => bell.ring(Interruption::TimedOut(limit)),
    }
    let why = bell.heard().await;
    if tokio::time::timeout(why.grace() + AFTER_GRACE, ended(handler))
        .await
        .is_err()
    {
        handler.abort_all();
        if tokio::time::timeout(AFTER_GRACE, ended(handler))
            .await
            .is_err()
        {
            tracing::error!(
                event = "handler_does_not_end",
                "a handler blocks its thread and cannot be stopped"
            );
        }
    }
    bell.rung().unwrap_or(why).outcome()
}

/// A handler may have heard the bell, and ended, before anybody looked: then it has not failed by itself, nor is it done
/// because it went when it was told to. Whoever has lost its lease is not asked to go: what it says, the fence judges.
fn unless_interrupted(outcome: Outcome, rung: Option<Interruption>) -> Outcome {
    match (outcome, rung) {
        (outcome, None)
        | (
            outcome @ Outcome::Succeeded(_),
            Some(Interruption::TimedOut(_) | Interruption::LeaseEnding | Interruption::LeaseLost),
        ) => outcome,
        (
            Outcome::Succeeded(_)
            | Outcome::Failed(_)
            | Outcome::Retry(_)
            | Outcome::Aborted
            | Outcome::Released,
            Some(why),
        ) => why.outcome(),
    }
}

async fn ended(handler: &mut JoinSet<Outcome>) -> Outcome {
    match handler.join_next().await {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) if error.is_panic() => Outcome::Failed("the handler panicked".to_owned()),
        Some(Err(_)) | None => Outcome::Retry("the handler was cut off".to_owned()),
    }
}

/// Records the outcome, however long the database is away, unless the runner has to leave at once.
async fn finish(app: &App, mut lease: Lease, mut outcome: Outcome) -> Result<Finished, StoreError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let unfinished = match app.store.finish(lease, outcome.clone()).await {
            Ok(finished) => return Ok(finished),
            Err(unfinished) => unfinished,
        };
        lease = unfinished.lease;
        match unfinished.error {
            StoreError::Unavailable(cause) => {
                tracing::warn!(event = "finish_failed", job_id = %lease.job_id(), error = %cause, "trying again");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = app.stop.at_once() => return Err(StoreError::Unavailable(cause)),
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            StoreError::Refused(why) if matches!(outcome, Outcome::Succeeded(_)) => {
                outcome = Outcome::Failed(format!("result could not be stored: {why}"));
            }
            error => return Err(error),
        }
    }
}

pub(crate) fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded(_) => "succeeded",
        Outcome::Retry(_) => "retry",
        Outcome::Failed(_) => "failed",
        Outcome::Aborted => "aborted",
        Outcome::Released => "released",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn watched(
        work: impl Future<Output = Outcome> + Send + 'static,
        bell: &Bell,
        timeout: Duration,
    ) -> Outcome {
        let mut handler = JoinSet::new();
        handler.spawn(work);
        watch(&mut handler, bell, Some(timeout)).await
    }

    #[tokio::test]
    async fn a_handler_that_ends_decides_for_itself() {
        let ended = watched(
            async { Outcome::Failed("x".to_owned()) },
            &Bell::new(),
            LONG,
        )
        .await;
        assert_eq!(ended, Outcome::Failed("x".to_owned()));
    }

    #[tokio::test]
    async fn a_handler_that_panics_has_failed() {
        let ended = watched(async { panic!("a mistake") }, &Bell::new(), LONG).await;
        assert_eq!(ended, Outcome::Failed("the handler panicked".to_owned()));
    }

    #[tokio::test]
    async fn the_first_reason_to_stop_decides_whatever_the_handler_then_says() {
        let bell = Bell::new();
        let of_handler = bell.clone();
        let work = async move {
            of_handler.ring(Interruption::Aborted);
            of_handler.heard().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            Outcome::Succeeded(serde_json::Value::Null)
        };
        assert_eq!(watched(work, &bell, LONG).await, Outcome::Aborted);
    }

    #[tokio::test]
    async fn a_handler_that_heard_the_bell_first_and_has_ended_was_interrupted_and_has_not_failed()
    {
        let killed = || Outcome::Failed("killed by signal 15".to_owned());
        let done = || Outcome::Succeeded(serde_json::Value::Null);
        for (why, said, expected) in [
            (Interruption::Aborted, killed(), Outcome::Aborted),
            (Interruption::Aborted, done(), Outcome::Aborted),
            (Interruption::Draining, killed(), Outcome::Released),
            (Interruption::Draining, done(), Outcome::Released),
            (Interruption::LeaseEnding, done(), done()),
        ] {
            let (bell, mut handler) = (Bell::new(), JoinSet::new());
            let of_handler = bell.clone();
            handler.spawn(async move {
                of_handler.heard().await;
                said
            });
            bell.ring(why);
            // Whoever watches comes late: the handler has ended by then.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert_eq!(watch(&mut handler, &bell, Some(LONG)).await, expected);
        }
    }

    #[tokio::test]
    async fn a_handler_that_overstays_is_told_and_may_clean_up() {
        let bell = Bell::new();
        let of_handler = bell.clone();
        let (tell, told) = tokio::sync::oneshot::channel();
        let work = async move {
            let _ = tell.send(of_handler.heard().await);
            Outcome::Released
        };
        let limit = Duration::from_millis(1);
        let ended = watched(work, &bell, limit).await;
        assert_eq!(ended, Outcome::Retry("timed out after 0 s".to_owned()));
        assert_eq!(told.await, Ok(Interruption::TimedOut(limit)));
    }
}
