//! The table of routes, all on one screen, and what is laid around them. Decides nothing about jobs.

mod artifacts;
mod batch;
mod debug_env;
mod deliveries;
mod docs;
mod fleet;
pub(crate) mod frame;
mod gates;
mod health;
mod health_metrics;
mod job;
mod keys;
mod links;
mod list;
mod log;
mod meta;
mod metrics;
mod needs;
mod new_job;
mod notion;
pub(crate) mod openapi;
mod params;
mod replay;
mod schedule_request;
mod schedules;
mod stages;
mod stream;
mod submit;
mod tick;
mod trigger;
mod upload;
mod views;
mod webhook_request;
mod webhooks;
mod why;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{MethodRouter, delete, get, post, put};
use service::{Concurrency, Flag, Limits, edge};

use crate::app::{App, DATABASE_DEADLINE};
use crate::config::Config;
use needs::{ADMIN, ENQUEUE, Needs, OPERATE, READ, WEBHOOKS};

/// Where every route but health is.
const BASE: &str = "/api/v1/ops";
/// The same routes again.
const ALIAS: &str = "/api/ops";

/// What must be on for a route to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Behind(Flag),
    Meta,
}

const OPEN: Gate = Gate::Open;
const META: Gate = Gate::Meta;
const JOBS: Gate = Gate::Behind(Flag::Jobs);
const RUNNER: Gate = Gate::Behind(Flag::Runner);
const METRICS: Gate = Gate::Behind(Flag::Metrics);
const GATES: Gate = Gate::Behind(Flag::Gates);
const SCHEDULES: Gate = Gate::Behind(Flag::Schedules);
const NOTION: Gate = Gate::Behind(Flag::Notion);

/// A path, what must be on for it, what a key must be good for, and its methods.
type Route = (&'static str, Gate, Needs, MethodRouter<Arc<App>>);

/// The whole table below the bases: path, gate, what a key must be good for, methods. `api/openapi.rs` describes each of them.
fn routes() -> Vec<Route> {
    vec![
        ("/jobs", JOBS, ENQUEUE, post(submit::submit).get(list::list)),
        ("/jobs/batch", JOBS, ENQUEUE, post(batch::submit_batch)),
        ("/jobs/retry", JOBS, OPERATE, post(replay::replay)),
        ("/jobs/{id}", JOBS, READ, get(job::job)),
        ("/jobs/{id}/why", JOBS, READ, get(why::why)),
        ("/jobs/{id}/events", JOBS, READ, get(job::events)),
        ("/jobs/{id}/log", JOBS, READ, get(log::log)),
        ("/jobs/{id}/events/stream", JOBS, READ, get(stream::events)),
        ("/jobs/{id}/log/stream", JOBS, READ, get(stream::log)),
        ("/jobs/{id}/artifacts", JOBS, READ, get(artifacts::list)),
        (
            "/jobs/{id}/artifacts/{*name}",
            JOBS,
            READ,
            get(artifacts::download),
        ),
        ("/jobs/{id}/artifacts.zip", JOBS, READ, get(artifacts::zip)),
        ("/jobs/{id}/abort", JOBS, OPERATE, post(job::abort)),
        ("/jobs/{id}/retry", JOBS, OPERATE, post(job::retry)),
        ("/jobs/{id}/resume", JOBS, OPERATE, post(job::resume)),
        ("/gates", GATES, READ, get(gates::open)),
        ("/jobs/{id}/gates", GATES, READ, get(gates::gates)),
        (
            "/jobs/{id}/gates/{name}/approve",
            GATES,
            OPERATE,
            post(gates::approve),
        ),
        (
            "/jobs/{id}/gates/{name}/reject",
            GATES,
            OPERATE,
            post(gates::reject),
        ),
        (
            "/jobs/{id}/gates/{name}/links",
            GATES,
            OPERATE,
            post(links::make),
        ),
        (TRIGGER, RUNNER, ENQUEUE, post(trigger::trigger_runner)),
        (TICK, OPEN, OPERATE, post(tick::tick)),
        ("/fleet", OPEN, READ, get(fleet::fleet)),
        ("/fleet/pause", OPEN, OPERATE, post(fleet::pause)),
        ("/fleet/resume", OPEN, OPERATE, post(fleet::resume)),
        ("/runners", RUNNER, READ, get(fleet::runners)),
        (
            "/schedules",
            SCHEDULES,
            OPERATE,
            get(schedules::list).post(schedules::create),
        ),
        (
            "/schedules/preview",
            SCHEDULES,
            READ,
            post(schedules::preview),
        ),
        (
            "/schedules/{name}",
            SCHEDULES,
            OPERATE,
            put(schedules::change)
                .get(schedules::schedule)
                .delete(schedules::delete),
        ),
        (
            "/schedules/{name}/fire",
            SCHEDULES,
            OPERATE,
            post(schedules::fire),
        ),
        (
            "/schedules/{name}/pause",
            SCHEDULES,
            OPERATE,
            post(schedules::pause),
        ),
        (
            "/schedules/{name}/resume",
            SCHEDULES,
            OPERATE,
            post(schedules::resume),
        ),
        (
            "/schedules/{name}/fires",
            SCHEDULES,
            READ,
            get(schedules::fires),
        ),
        (
            "/schedules/{name}/next",
            SCHEDULES,
            READ,
            get(schedules::next),
        ),
        (
            "/health/metrics",
            METRICS,
            READ,
            get(health_metrics::health_metrics),
        ),
        ("/metrics", METRICS, READ, get(metrics::metrics)),
        (
            "/webhooks",
            JOBS,
            WEBHOOKS,
            get(webhooks::list).post(webhooks::create),
        ),
        (
            "/webhooks/{name}",
            JOBS,
            WEBHOOKS,
            put(webhooks::change)
                .get(webhooks::webhook)
                .delete(webhooks::delete),
        ),
        (
            "/webhooks/{name}/enable",
            JOBS,
            OPERATE,
            post(webhooks::enable),
        ),
        (
            "/webhooks/{name}/disable",
            JOBS,
            OPERATE,
            post(webhooks::disable),
        ),
        (
            "/webhooks/{name}/rotate",
            JOBS,
            WEBHOOKS,
            post(webhooks::rotate),
        ),
        ("/webhooks/{name}/ping", JOBS, OPERATE, post(webhooks::ping)),
        (
            "/webhooks/{name}/resend",
            JOBS,
            OPERATE,
            post(deliveries::resend_dead),
        ),
        (
            "/webhooks/{name}/deliveries",
            JOBS,
            OPERATE,
            get(deliveries::list),
        ),
        (
            "/webhooks/{name}/deliveries/{delivery_id}",
            JOBS,
            OPERATE,
            get(deliveries::delivery),
        ),
        (
            "/webhooks/{name}/deliveries/{delivery_id}/resend",
            JOBS,
            OPERATE,
            post(deliveries::resend),
        ),
        ("/notion", NOTION, READ, get(notion::health)),
        ("/notion/retry", NOTION, OPERATE, post(notion::retry)),
        ("/runners/{id}/drain", RUNNER, OPERATE, post(fleet::drain)),
        (
            "/runners/{id}/undrain",
            RUNNER,
            OPERATE,
            post(fleet::undrain),
        ),
        ("/runners/{id}", RUNNER, OPERATE, delete(fleet::forget)),
        ("/keys", OPEN, ADMIN, get(keys::list).post(keys::create)),
        ("/keys/{id}/revoke", OPEN, ADMIN, post(keys::revoke)),
        ("/meta", META, READ, get(meta::meta)),
        ("/debug/env", OPEN, READ, get(debug_env::debug_env)),
        ("/openapi.json", OPEN, READ, get(docs::openapi_json)),
        ("/docs", OPEN, READ, get(docs::docs)),
    ]
}

/// What anyone may ask, without a base and without a key.
fn health_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
}

/// Where signed links lead.
const LINK: &str = "/gates/{token}";

/// Signed links bear their own right: no base and no key, so that they open from a mail.
fn link_routes(config: &Config) -> Router<Arc<App>> {
    if !is_there(GATES, config) {
        return Router::new();
    }
    let link = get(links::show).post(links::decide);
    let router = Router::new().route(LINK, link);
    Limits::of_body(config.limits.body_bytes)
        .with_timeout(config.limits.request_timeout)
        .with_concurrency(concurrency(config))
        .around(router)
}

fn concurrency(config: &Config) -> Concurrency {
    Concurrency::new(config.limits.concurrency, config.limits.queue_timeout)
}

/// The two routes that wait for another service, and so have a limit of their own.
const TRIGGER: &str = "/trigger_runner";
const TICK: &str = "/tick";

/// Bytes a second: whoever uploads more slowly may be answered 408.
const SLOWEST_UPLOAD: u64 = 256 * 1024;

/// The whole service: health for anyone, the rest for those with a key.
pub(crate) fn router(app: Arc<App>) -> Router {
    let ops = ops(&app.config);
    let guard = app.guard.clone();
    let router = health_routes()
        .merge(link_routes(&app.config))
        .merge(guard.clone().nest(BASE, ops.clone()))
        .merge(guard.nest(ALIAS, ops));
    let router = match &app.metrics {
        Some(metrics) => metrics.watch(router),
        None => router,
    };
    let router = app.tracing.watch(router);
    edge::wear(router, app.config.cors.as_ref(), Some(&app.leaving)).with_state(app)
}

/// What lies below the bases, within its limits.
fn ops(config: &Config) -> Router<Arc<App>> {
    let request_timeout = config.limits.request_timeout;
    let waits_for_runner = config
        .runner
        .as_ref()
        .map_or(Duration::ZERO, |runner| runner.timeout);
    // As long as any other request, and then as long as the runner and the answers of the database may take.
    let trigger_timeout = request_timeout + waits_for_runner + 5 * DATABASE_DEADLINE;
    // A slow line needs its time for what it may send.
    let upload_time = Duration::from_secs(config.limits.upload_bytes / SLOWEST_UPLOAD);
    let limits = Limits::of_body(config.limits.body_bytes)
        .with_uploads(config.limits.upload_bytes)
        .with_concurrency(concurrency(config));
    let mut router = Router::new();
    for (path, gate, needs, methods) in routes() {
        if is_there(gate, config) {
            let methods = needs.guard(methods);
            let timeout = if [TRIGGER, TICK].contains(&path) {
                trigger_timeout
            } else {
                request_timeout
            };
            let limits = limits
                .clone()
                .with_timeout(timeout)
                .with_upload_timeout(timeout + upload_time);
            router = router.merge(limits.around(Router::new().route(path, methods)));
        }
    }
    router
}

/// A route whose gate is closed is not in the router at all: nothing tells it from an unknown path.
fn is_there(gate: Gate, config: &Config) -> bool {
    match gate {
        Gate::Open => true,
        Gate::Behind(flag) => config.shared.flags.is_on(flag),
        Gate::Meta => config.meta_enabled,
    }
}

/// The paths below the bases that are not there under this configuration.
fn closed_paths(config: &Config) -> impl Iterator<Item = &'static str> {
    let closed = |(path, gate, ..): Route| (!is_there(gate, config)).then_some(path);
    routes().into_iter().filter_map(closed)
}
