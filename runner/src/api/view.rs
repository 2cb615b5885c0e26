//! The shapes of the runner's answers.

use std::collections::BTreeMap;

use serde::Serialize;
use service::Flag;

use crate::app::App;

/// What `POST /tick` did.
#[derive(Debug, Serialize)]
pub(crate) struct TickView {
    /// Jobs claimed and started.
    pub(crate) claimed: usize,
    /// Jobs taken back from lost runners.
    pub(crate) recovered: u64,
    /// Schedules fired.
    pub(crate) fired: u64,
}

/// What `GET /v1/meta` tells of the runner.
#[derive(Debug, Serialize)]
pub(crate) struct MetaView {
    runner_id: String,
    version: &'static str,
    draining: bool,
    flags: BTreeMap<&'static str, bool>,
    job_types: Vec<JobTypeView>,
    slots: SlotsView,
    limits: LimitsView,
}

#[derive(Debug, Serialize)]
struct JobTypeView {
    name: String,
    max_attempts: i32,
    timeout_seconds: Option<i32>,
    concurrency: Option<i32>,
}

#[derive(Debug, Serialize)]
struct SlotsView {
    total: usize,
    used: usize,
}

#[derive(Debug, Serialize)]
struct LimitsView {
    lease_seconds: u64,
    /// 0: it never looks for work by itself.
    poll_interval_seconds: u64,
    queue_timeout_seconds: u64,
    drain_seconds: u64,
    request_timeout_seconds: u64,
    max_body_bytes: u64,
    max_upload_bytes: u64,
}

impl MetaView {
    pub(crate) fn of(app: &App) -> Self {
        let job_types = app.registry.terms().iter().map(|terms| JobTypeView {
            name: terms.job_type.to_string(),
            max_attempts: terms.max_attempts,
            timeout_seconds: terms.timeout_seconds,
            concurrency: terms.concurrency,
        });
        Self {
            runner_id: app.identity.id.clone(),
            version: env!("CARGO_PKG_VERSION"),
            draining: app.stop.is_requested(),
            flags: Flag::all()
                .map(|flag| (flag.name(), app.flags.is_on(flag)))
                .collect(),
            job_types: job_types.collect(),
            slots: SlotsView {
                total: app.slots.total(),
                used: app.leases.count(),
            },
            limits: LimitsView {
                lease_seconds: app.limits.lease.as_secs(),
                poll_interval_seconds: app.limits.poll_interval.unwrap_or_default().as_secs(),
                queue_timeout_seconds: app.limits.queue_timeout.as_secs(),
                drain_seconds: app.limits.drain.as_secs(),
                request_timeout_seconds: app.limits.request_timeout.as_secs(),
                max_body_bytes: app.limits.body_bytes,
                max_upload_bytes: app.limits.upload_bytes,
            },
        }
    }
}
