//! `POST /tick`: cron's call. Does what is due once, whoever else does it too; every part of it may be repeated at any time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::{Extension, Json};
use notion::Round;
use service::edge::RequestId;
use service::trace::{Carried, Caused};
use service::{Caller, Flag, OptionalJson, Problem};

use super::views::TickView;
use crate::app::{App, DATABASE_DEADLINE, ask};
use crate::runner_client::TriggerAnswer;

/// A tick waits no longer for receivers, whatever their endpoints allow.
const RECEIVERS_DEADLINE: Duration = Duration::from_secs(8);
/// For so long outcomes are begun to be published; each may take as long again.
const PUBLISHING_BUDGET: Duration = Duration::from_secs(4);
/// Whoever calls waits; what is left is the next call's.
const SEALING_BUDGET: Duration = Duration::from_secs(1);
/// As above.
const RETENTION_BUDGET: Duration = Duration::from_millis(500);

/// Do what is due: take back what lost runners held, fail what outlived its time to live, fire what schedules have due, seal what has ended, remove ended jobs that were kept for long enough, send webhooks, publish to Notion, trigger the runner for a due job.
///
/// At most one trigger is sent, for the due job that was least recently asked for; what came of it stands with the job. A
/// runner that polls needs none of this; one that does not takes the rest of what is due with calls of its own `POST /tick`.
#[utoipa::path(
    post,
    path = "/tick",
    tag = "service",
    responses((status = 200, description = "What was done", body = TickView)),
)]
pub(crate) async fn tick(
    State(app): State<Arc<App>>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    caller: Caller,
    caused: Caused,
    OptionalJson(()): OptionalJson<()>,
) -> Result<Json<TickView>, Problem> {
    let actor = caller.key_id.to_string();
    let mut done = Done::begin();
    done.step("note", ask(app.store.note_tick(&actor))).await;
    if app.flags().is_on(Flag::Metrics) {
        done.step("counts", ask(app.store.keep_counts())).await;
    }
    let swept = done.step("sweep", ask(app.store.recover(&actor))).await;
    let settled = done.step("gates", settle_gates(&app, &actor)).await;
    let fired = done.step("schedules", fire_due(&app, &actor)).await;
    app.live.changed_many();
    let trigger = trigger_due(&app, &request_id, caused.0.as_ref());
    // None waits for the others: a receiver that is slow delays no job.
    let (triggered, delivered, published) = if done.is_over() {
        (Ok(0), 0, 0)
    } else {
        tokio::join!(trigger, send_webhooks(&app, &actor), publish(&app, &actor))
    };
    let triggered = done.note("trigger", triggered);
    let removed = if done.is_over() {
        0
    } else {
        seal(&app, &actor).await;
        remove_expired(&app, &actor).await
    };
    if let Some(problem) = done.failed {
        return Err(problem);
    }
    Ok(Json(TickView {
        settled,
        recovered: swept.recovered,
        expired: swept.expired,
        triggered,
        fired,
        delivered,
        published,
        removed,
    }))
}

/// How far a tick came.
struct Done {
    begun: Instant,
    /// What the first step said that could not be done: whoever called hears it once the others are done.
    failed: Option<Problem>,
}

impl Done {
    fn begin() -> Self {
        Self {
            begun: Instant::now(),
            failed: None,
        }
    }

    /// Whoever calls waits once for a database that is away, not once for each step: after a failure the others have
    /// what is left of that time.
    fn left(&self) -> Duration {
        match self.failed {
            Some(_) => DATABASE_DEADLINE.saturating_sub(self.begun.elapsed()),
            None => Duration::MAX,
        }
    }

    fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Does a step and notes what it came to: none that fails keeps the others from being done.
    async fn step<T: Default>(
        &mut self,
        step: &'static str,
        call: impl Future<Output = Result<T, Problem>>,
    ) -> T {
        match tokio::time::timeout(self.left(), call).await {
            Ok(came) => self.note(step, came),
            Err(_) => {
                tracing::warn!(event = "tick_failed", step, cause = "no time was left");
                T::default()
            }
        }
    }

    fn note<T: Default>(&mut self, step: &'static str, came: Result<T, Problem>) -> T {
        came.unwrap_or_else(|problem| {
            let cause = problem.document().detail;
            tracing::warn!(event = "tick_failed", step, cause);
            self.failed.get_or_insert(problem);
            T::default()
        })
    }
}

async fn settle_gates(app: &App, actor: &str) -> Result<u64, Problem> {
    if !app.flags().is_on(Flag::Gates) {
        return Ok(0);
    }
    ask(app.store.settle_gates(actor)).await
}

/// How many webhooks were delivered; with the flag off, nothing of them is read. What fails here is the next tick's.
async fn send_webhooks(app: &App, actor: &str) -> u64 {
    if !app.flags().is_on(Flag::Jobs) {
        return 0;
    }
    let round = app.webhooks.round(actor, RECEIVERS_DEADLINE).await;
    // Whatever goes wrong here is in the log by then.
    let _ = ask(app.store.keep_webhooks()).await;
    match round {
        Ok(round) => round.delivered,
        Err(error) => {
            tracing::warn!(event = "webhooks_not_sent", %error);
            0
        }
    }
}

/// How many outcomes were published to Notion; with the flag off, nothing of them is read. What is left is the next tick's.
async fn publish(app: &App, actor: &str) -> u64 {
    let Some(publisher) = &app.notion else {
        return 0;
    };
    let begun = Instant::now();
    let mut published = 0;
    while begun.elapsed() < PUBLISHING_BUDGET {
        match publisher.round(actor, PUBLISHING_BUDGET).await {
            Ok(Round::Published) => published += 1,
            Ok(Round::Checked | Round::Failed) => {}
            Ok(Round::Nothing) => break,
            Err(error) => {
                tracing::warn!(event = "notion_not_reached", %error);
                break;
            }
        }
    }
    published
}

/// Seals what has ended, for those who have no runner that looks by itself. What is left is the next tick's.
async fn seal(app: &App, actor: &str) {
    let sealing = app.store.seal(actor, SEALING_BUDGET, || Duration::ZERO);
    if let Err(problem) = ask(sealing).await {
        let error = problem.document().detail;
        tracing::warn!(event = "seal_failed", error);
    }
}

/// How many ended jobs were removed. Nothing else of a tick hangs on it, so that it fails by itself.
async fn remove_expired(app: &App, actor: &str) -> u64 {
    match app.store.apply_retention(actor, RETENTION_BUDGET).await {
        Ok(removed) => removed.jobs,
        Err(error) => {
            tracing::warn!(event = "retention_failed", %error);
            0
        }
    }
}

/// How many jobs of schedules were recorded; with the flag off, nothing of them is read.
async fn fire_due(app: &App, actor: &str) -> Result<u64, Problem> {
    if !app.flags().is_on(Flag::Schedules) {
        return Ok(0);
    }
    let closed = app.flags().closed_job_types();
    Ok(ask(app.store.fire_due(&closed, actor)).await?.fired)
}

/// How many jobs a runner took because of it: one or none.
async fn trigger_due(app: &App, request_id: &str, cause: Option<&Carried>) -> Result<u64, Problem> {
    let Some(runner) = app
        .runner
        .as_ref()
        .filter(|_| app.flags().is_on(Flag::Runner))
    else {
        return Ok(0);
    };
    if ask(app.store.pause()).await?.is_some() {
        return Ok(0);
    }
    let Some(id) = ask(app.store.next_to_trigger(
        &app.flags().closed_job_types(),
        app.flags().is_on(Flag::Gates),
    ))
    .await?
    else {
        return Ok(0);
    };
    let answer = runner.trigger(id, request_id, &app.tracing, cause).await;
    app.note_trigger(id, &answer).await;
    Ok(u64::from(answer == TriggerAnswer::Accepted))
}
