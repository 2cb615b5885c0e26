//! The runner's routes: who may ask, what is asked, what is answered. Decides nothing about jobs.

mod run;
mod sync_run;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{any, get, post};
use service::{Flag, Flags, Json, Limits, Problem, Readiness, edge, health};

use crate::app::App;
use crate::error::problem;
use view::{MetaView, TickView};

/// Every route.
pub(crate) fn router(app: &Arc<App>, flags: Flags) -> Router {
    let guarded = Router::new()
        .route("/run", post(run::run))
        .route("/tick", post(tick))
        .route("/v1/meta", get(meta));
    let guarded = if app.metrics.is_some() {
        guarded.route("/metrics", get(metrics))
    } else {
        guarded
    };
    let guarded = guarded
        // Also an unknown path tells nothing to who has no token.
        .route("/", any(nothing))
        .route("/{*path}", any(nothing));
    let guarded = Limits::of_body(app.limits.body_bytes)
        .with_timeout(app.limits.request_timeout)
        .around(guarded);
    let guarded = if flags.is_on(Flag::SyncRun) {
        guarded.merge(sync_route(app))
    } else {
        guarded
    };
    let open = health::routes().route("/readyz", get(readyz));
    let router = open.merge(app.guard.clone().protect(guarded));
    let router = match &app.metrics {
        Some(metrics) => metrics.service.watch(router),
        None => router,
    };
    let router = app.tracing.watch(router);
    edge::wear(router, None, Some(&app.stop)).with_state(Arc::clone(app))
}

/// It has limits of its own: it reads files, and waits for a job.
fn sync_route(app: &App) -> Router<Arc<App>> {
    let route = Router::new().route("/v1/run", post(sync_run::sync_run));
    Limits::of_body(app.limits.body_bytes)
        .with_uploads(app.limits.upload_bytes)
        .around(route)
}

async fn readyz(State(app): State<Arc<App>>) -> Readiness {
    app.readiness().await
}

/// Cron's call: housekeeping once, then what is due, up to the free slots.
async fn tick(
    State(app): State<Arc<App>>,
    service::OptionalJson(()): service::OptionalJson<()>,
) -> Result<Json<TickView>, Problem> {
    run::refuse_unless_taking(&app)?;
    let actor = app.identity.actor();
    let noted = app.store.note_tick(&actor).await;
    let mut done = crate::housekeeping::tick(&app).await;
    done.note("note", noted);
    app.seal.notify_one();
    app.tell.notify_one();
    app.publish.notify_one();
    // Whatever of the house could not be kept, due jobs are taken.
    let claimed = run::claim_due(&app).await?;
    if let Some(error) = done.failed {
        return Err(problem(error));
    }
    Ok(Json(TickView {
        claimed,
        recovered: done.swept.recovered,
        fired: done.fired.fired,
    }))
}

async fn meta(State(app): State<Arc<App>>) -> Json<MetaView> {
    Json(MetaView::of(&app))
}

/// Prometheus reads it.
async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    // There whenever the route is.
    let metrics = app.metrics.as_ref().ok_or_else(Problem::internal)?;
    metrics.page(&app).map_err(|error| {
        tracing::error!(event = "metrics_not_encoded", %error);
        Problem::internal()
    })
}

async fn nothing() -> Problem {
    Problem::not_found("There is nothing at this path.")
}
