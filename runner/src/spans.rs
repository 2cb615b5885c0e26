//! The spans of an attempt, by the messaging conventions of OpenTelemetry (which are still in development: their words stand
//! here and with whoever records jobs, and nowhere else). Names no payload, no result and no error text.

use jobs::{Lease, Name};
use service::trace::{Carried, Role, Span};

use crate::app::App;

/// What an attempt is a child of.
pub(crate) struct Cause {
    pub(crate) queue: Name,
    pub(crate) carried: Option<Carried>,
}

/// The span of a whole attempt, from the claim to the recorded end.
pub(crate) fn process_span(app: &App, cause: &Cause, name: &Name, lease: &Lease) -> Span {
    let describe = || {
        let attributes = [
            ("messaging.system", "ops_jobs".into()),
            ("messaging.operation.type", "process".into()),
            ("messaging.operation.name", "process".into()),
            ("messaging.destination.name", cause.queue.to_string().into()),
            ("messaging.message.id", lease.job_id().to_string().into()),
            ("messaging.client.id", lease.runner_id().to_owned().into()),
            ("ops.job_type", name.to_string().into()),
            ("ops.attempt", i64::from(lease.attempt()).into()),
            ("ops.fence", lease.fence().into()),
        ];
        (format!("process {}", cause.queue), attributes)
    };
    let mut span = app
        .tracing
        .begin(Role::Consumer, cause.carried.as_ref(), describe);
    span.event("claimed");
    span
}

/// The span of recording how it ended.
pub(crate) fn settle_span(app: &App, cause: &Cause, process: &Span) -> Span {
    let describe = || {
        let attributes = [
            ("messaging.system", "ops_jobs".into()),
            ("messaging.operation.type", "settle".into()),
            ("messaging.operation.name", "finish".into()),
            ("messaging.destination.name", cause.queue.to_string().into()),
        ];
        (format!("settle {}", cause.queue), attributes)
    };
    app.tracing
        .begin(Role::Client, process.carried().as_ref(), describe)
}

/// How it ended.
pub(crate) fn tell(span: &mut Span, word: &'static str) {
    span.set("ops.outcome", word);
    if ["failed", "retry"].contains(&word) {
        span.fail(word);
    }
}
