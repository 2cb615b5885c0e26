//! The table of routes, all on one screen, and what is laid around them. Decides nothing about jobs.

mod batch;
mod debug_env;
mod docs;
mod fleet;
mod health;
mod job;
mod list;
mod meta;
mod new_job;
pub(crate) mod openapi;
mod params;
mod replay;
mod submit;
mod tick;
mod trigger;
mod views;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use service::{Concurrency, Flag, Guard, edge, limits};

use crate::app::{App, DATABASE_DEADLINE};
use crate::config::Config;

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

/// The whole table below the bases: path, gate, methods. `api/openapi.rs` describes each of them.
fn routes() -> Vec<(&'static str, Gate, MethodRouter<Arc<App>>)> {
    vec![
        ("/jobs", JOBS, post(submit::submit).get(list::list)),
        ("/jobs/batch", JOBS, post(batch::submit_batch)),
        ("/jobs/retry", JOBS, post(replay::replay)),
        ("/jobs/{id}", JOBS, get(job::job)),
        ("/jobs/{id}/events", JOBS, get(job::events)),
        ("/jobs/{id}/log", JOBS, get(job::log)),
        ("/jobs/{id}/abort", JOBS, post(job::abort)),
        ("/jobs/{id}/retry", JOBS, post(job::retry)),
        ("/jobs/{id}/resume", JOBS, post(job::resume)),
        (TRIGGER, RUNNER, post(trigger::trigger_runner)),
        (TICK, OPEN, post(tick::tick)),
        ("/runners", RUNNER, get(fleet::runners)),
        ("/meta", META, get(meta::meta)),
        ("/debug/env", OPEN, get(debug_env::debug_env)),
        ("/openapi.json", OPEN, get(docs::openapi_json)),
        ("/docs", OPEN, get(docs::docs)),
    ]
}

/// What anyone may ask, without a base and without a key.
fn health_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
}

/// The two routes that wait for another service, and so have a limit of their own.
const TRIGGER: &str = "/trigger_runner";
const TICK: &str = "/tick";

/// The whole service: health for anyone, the rest for those with a key.
pub(crate) fn router(app: Arc<App>) -> Router {
    let ops = ops(&app.config);
    let guard = Guard::ops_key(app.config.ops_keys.clone());
    let router = health_routes()
        .merge(guard.clone().nest(BASE, ops.clone()))
        .merge(guard.nest(ALIAS, ops));
    edge::wear(router, app.config.cors.as_ref()).with_state(app)
}

/// What lies below the bases, within its limits: the one that is laid last is asked first.
fn ops(config: &Config) -> Router<Arc<App>> {
    let request_timeout = config.limits.request_timeout;
    let waits_for_runner = config
        .runner
        .as_ref()
        .map_or(Duration::ZERO, |runner| runner.timeout);
    // As long as any other request, and then as long as the runner and the answers of the database may take.
    let trigger_timeout = request_timeout + waits_for_runner + 5 * DATABASE_DEADLINE;
    let mut router = Router::new();
    for (path, gate, methods) in routes() {
        if is_there(gate, config) {
            let timeout = if [TRIGGER, TICK].contains(&path) {
                trigger_timeout
            } else {
                request_timeout
            };
            router = router.merge(limits::with_timeout(
                Router::new().route(path, methods),
                timeout,
            ));
        }
    }
    let router = limits::with_body_limit(router, config.limits.body_bytes);
    let concurrency = Concurrency::new(config.limits.concurrency, config.limits.queue_timeout);
    limits::with_concurrency(router, concurrency)
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
    let closed = |(path, gate, _): (_, Gate, _)| (!is_there(gate, config)).then_some(path);
    routes().into_iter().filter_map(closed)
}
