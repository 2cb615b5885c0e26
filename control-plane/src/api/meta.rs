//! `GET /meta`: what this service is, what is on, and what it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use jobs::Runner;
use service::{Flag, Json, Problem};

use super::batch::MOST_JOBS;
use super::list;
use super::views::{LimitsView, MetaView};
use crate::app::{App, ask};

/// Job types that every runner may have; each is behind a flag.
const BUILT_IN: [&str; 3] = [
    "metrics_refresh",
    "nearsight_collect_refresh",
    "captorator_compose",
];
/// A runner that was not heard of for so long is not counted as alive.
const ALIVE_SECONDS: f64 = 60.0;

/// Read the version, the flags, the job types that are known, and the limits.
#[utoipa::path(
    get,
    path = "/meta",
    tag = "service",
    responses((status = 200, description = "What this service is", body = MetaView)),
)]
pub(crate) async fn meta(State(app): State<Arc<App>>) -> Result<Json<MetaView>, Problem> {
    // With the flag off, nothing of the fleet is read.
    let runners = if app.flags().is_on(Flag::Runner) {
        ask(app.store.runners()).await?
    } else {
        Vec::new()
    };
    Ok(Json(MetaView {
        version: env!("CARGO_PKG_VERSION"),
        flags: Flag::all()
            .map(|flag| (flag.name(), app.flags().is_on(flag)))
            .collect::<BTreeMap<_, _>>(),
        job_types: job_types(&app, &runners),
        limits: limits(&app),
    }))
}

/// The built-in job types and those of living runners, without what is behind flags that are off.
fn job_types(app: &App, runners: &[Runner]) -> BTreeSet<String> {
    let alive = runners
        .iter()
        .filter(|runner| runner.silent_seconds < ALIVE_SECONDS);
    let theirs = alive.flat_map(|runner| runner.job_types.iter().map(String::as_str));
    let known = BUILT_IN.into_iter().chain(theirs);
    known
        .filter(|job_type| app.flags().allow_job_type(job_type))
        .map(str::to_owned)
        .collect()
}

fn limits(app: &App) -> LimitsView {
    let limits = app.config.limits;
    LimitsView {
        max_body_bytes: limits.body_bytes,
        max_upload_bytes: limits.upload_bytes,
        max_concurrency: limits.concurrency,
        request_timeout_seconds: limits.request_timeout.as_secs(),
        stall_threshold_seconds: app.config.stall_after.as_secs(),
        batch_jobs: MOST_JOBS,
        list_jobs: list::MOST_JOBS,
        payload_depth: service::extract::MAX_DEPTH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_job_type_is_behind_a_flag() {
        for job_type in BUILT_IN {
            assert!(Flag::of_job_type(job_type).is_some(), "{job_type}");
        }
    }
}
