//! What any runner does for the fleet, and none has to lead: takes back the jobs of lost runners, and tells that it lives.

use std::sync::Arc;
use std::time::Duration;

use jobs::{Closed, Fired, StoreError, Swept};
use service::Flag;

use crate::app::{App, part_of};
use crate::config::Limits;
use crate::error::StartError;

/// A runner that seldom or never looks by itself still tells that it lives.
const REPORT_EVERY: Duration = Duration::from_secs(5);
const SHORTEST: Duration = Duration::from_secs(1);
/// A connection may die without a word.
const PATIENCE: Duration = Duration::from_secs(10);

/// Clearing files away may take so long: an object store may be away, or slow.
const CLEARING: Duration = Duration::from_secs(3);

/// No claim is under way for longer: what was claimed before and is not known here, nobody runs.
const SETTLED: Duration = Duration::from_secs(13);

/// Sweeps and schedules wait meanwhile.
const RETENTION_BUDGET: Duration = Duration::from_millis(1500);

/// How often a runner tells that it lives: after three times as much without a word, its name is free.
pub(crate) fn report_every(limits: &Limits) -> Duration {
    REPORT_EVERY.min(limits.lease / 3).max(SHORTEST)
}

/// Keeps house until it is cut off, which is safe at any point.
///
/// # Errors
/// [`StartError::NameTaken`] once another process bears the runner's name.
pub(crate) async fn keep_house(app: Arc<App>) -> Result<(), StartError> {
    app.until_ready().await;
    let mut away = false;
    let mut closed = None;
    loop {
        // Where the database does not answer, what follows says so.
        if let Ok(Ok(now)) = tokio::time::timeout(PATIENCE, app.closed()).await {
            tell_of_change(&app, closed.as_ref(), now.as_ref());
            closed = now;
        }
        match tokio::time::timeout(PATIENCE, once(&app)).await {
            Ok(Ok(())) if away => {
                tracing::info!(event = "database_back");
                away = false;
            }
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(event = "housekeeping_failed", %error);
                away = true;
            }
            Err(_) => {
                tracing::warn!(event = "housekeeping_failed", "the database did not answer");
                away = true;
            }
        }
        if !app.is_admitted() {
            return Err(StartError::NameTaken(app.identity.id.clone()));
        }
        app.registry.watch.retire_idle().await;
        let most = report_every(&app.limits);
        let poll_interval = app.limits.poll_interval.unwrap_or(most);
        tokio::time::sleep(poll_interval.clamp(SHORTEST, most)).await;
    }
}

/// Whether it is given jobs is said when that changes, and why.
fn tell_of_change(app: &App, before: Option<&Closed>, now: Option<&Closed>) {
    match (before, now) {
        (before, Some(now)) if before != Some(now) => tracing::warn!(
            event = "given_no_job",
            runner_id = app.identity.id,
            cause = part_of(now),
            "the runner is {now}"
        ),
        (Some(_), None) => {
            tracing::info!(event = "given_jobs_again", runner_id = app.identity.id);
            app.backlog.work_arrived();
        }
        (_, Some(_)) | (None, None) => {}
    }
}

/// What the runner does by itself: one that never looks for work leaves the rest to whoever calls it.
async fn once(app: &App) -> Result<(), StoreError> {
    if app.limits.poll_interval.is_none() {
        return app.report().await;
    }
    let done = tick(app).await;
    if done.swept.recovered + done.fired.fired + done.settled > 0 {
        app.backlog.work_arrived();
    }
    done.failed.map_or(Ok(()), Err)
}

/// What housekeeping did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) swept: Swept,
    pub(crate) settled: u64,
    pub(crate) fired: Fired,
    /// The first step that could not be done.
    pub(crate) failed: Option<StoreError>,
}

impl Done {
    /// Notes what a step came to: none keeps the others from being done.
    pub(crate) fn note<T: Default>(
        &mut self,
        step: &'static str,
        came: Result<T, StoreError>,
    ) -> T {
        came.unwrap_or_else(|error| {
            // A database that is away is told once, by whoever asked for all of it.
            if !matches!(error, StoreError::Unavailable(_)) {
                tracing::warn!(event = "housekeeping_failed", step, %error);
            }
            self.failed.get_or_insert(error);
            T::default()
        })
    }
}

/// Does it all once, the most urgent first: the jobs of the dead wait for nobody.
pub(crate) async fn tick(app: &App) -> Done {
    let mut done = Done::default();
    done.note("report", app.report().await);
    done.note("release", release(app).await);
    done.swept = done.note("sweep", sweep(app).await);
    done.settled = done.note("gates", settle_gates(app).await);
    done.fired = done.note("schedules", fire_due(app).await);
    if app.flags.is_on(Flag::Metrics)
        && let Err(error) = app.store.keep_counts().await
    {
        // What was counted stays noted, and the next tick adds it up.
        tracing::warn!(event = "counts_not_kept", %error);
    }
    // Last, and nobody waits for it: the next tick does what this one could not.
    remove_expired(app).await;
    match tokio::time::timeout(CLEARING, app.depot.sweep()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(event = "files_not_swept", %error),
        Err(_) => tracing::warn!(event = "files_not_swept", "where they are does not answer"),
    }
    done
}

/// Gives back what the runner has claimed without hearing of it.
async fn release(app: &App) -> Result<(), StoreError> {
    let known = app.leases.known();
    let released = app
        .store
        .release_unheld(&app.identity, &known, SETTLED)
        .await?;
    if released > 0 {
        tracing::warn!(
            event = "claims_released",
            released,
            "the answer to a claim had been lost"
        );
        app.backlog.work_arrived();
    }
    Ok(())
}

async fn sweep(app: &App) -> Result<Swept, StoreError> {
    let actor = format!("sweep:{}", app.identity.id);
    let swept = app.store.sweep(&actor).await?;
    app.leases.forget_forsaken();
    if swept != Swept::default() {
        tracing::info!(
            event = "swept",
            recovered = swept.recovered,
            expired = swept.expired,
            forgotten = swept.forgotten
        );
    }
    Ok(swept)
}

async fn settle_gates(app: &App) -> Result<u64, StoreError> {
    if !app.registry.takes_stages() {
        return Ok(0);
    }
    let settled = app
        .store
        .settle_gates(&format!("sweep:{}", app.identity.id))
        .await?;
    if settled > 0 {
        tracing::info!(event = "gates_settled", settled);
    }
    Ok(settled)
}

/// Removes what has been kept for long enough. Nobody waits for it: what it cannot do now the next tick does.
async fn remove_expired(app: &App) {
    let actor = format!("sweep:{}", app.identity.id);
    match app.store.apply_retention(&actor, RETENTION_BUDGET).await {
        Ok(removed) if removed.jobs > 0 => tracing::info!(
            event = "jobs_removed",
            jobs = removed.jobs,
            events = removed.events,
            log_chunks = removed.log_chunks,
            files = removed.files
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(event = "retention_failed", %error),
    }
}

/// Fires what schedules have due; with the flag off, nothing of them is read.
async fn fire_due(app: &App) -> Result<Fired, StoreError> {
    if !app.flags.is_on(Flag::Schedules) {
        return Ok(Fired::default());
    }
    let actor = format!("sweep:{}", app.identity.id);
    let fired = app
        .store
        .fire_due(&app.flags.closed_job_types(), &actor)
        .await?;
    if fired != Fired::default() {
        tracing::info!(
            event = "schedules_fired",
            fired = fired.fired,
            skipped = fired.skipped,
            missed = fired.missed,
            paused = fired.paused
        );
    }
    Ok(fired)
}
