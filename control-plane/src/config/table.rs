//! The control plane's own settings, declared; the documentation's table is made from this one.

use service::settings::{Fallback, Kind, Setting};

/// The control plane's own settings; those of [`service::SharedSettings`], [`service::Cors`] and [`service::flags`] hold beside them.
pub const SETTINGS: &[Setting] = &[
    Setting::new(
        "SECRET_KEY",
        Kind::Secret,
        Fallback::Required,
        "signs cursors, links and, through a key derived from it, webhooks; at least 32 characters outside dev and test",
    ),
    Setting::new(
        "OPS_API_KEY",
        Kind::SecretList,
        Fallback::RequiredWhen("outside dev and test"),
        "accepted keys (several while rotating); unset in dev or test, every ops route answers 401",
    ),
    Setting::new(
        "CONTROL_PLANE_BIND",
        Kind::Address,
        Fallback::Is("127.0.0.1:8000"),
        "where it listens; port 0 takes a free one",
    ),
    Setting::new(
        "RUNNER_URL",
        Kind::Url,
        Fallback::RequiredWhen("with RUNNER_ENABLED"),
        "where triggers go; `http://` beyond this machine is refused outside dev and test",
    ),
    Setting::new(
        "RUNNER_TOKEN_OUTBOUND",
        Kind::Secret,
        Fallback::RequiredWhen("with RUNNER_ENABLED"),
        "the token that triggers bear; one of the runner's `RUNNER_TOKEN`",
    ),
    Setting::new(
        "RUNNER_TRIGGER_TIMEOUT_SECONDS",
        Kind::Seconds(1, 300),
        Fallback::Is("10"),
        "how long a whole trigger call may take",
    ),
    Setting::new(
        "STALL_THRESHOLD_SECONDS",
        Kind::Seconds(1, 86_400),
        Fallback::Is("20"),
        "a running job whose heartbeat is older reads `stalled: true`; below the lease, above its renewal",
    ),
    Setting::new(
        "OPERATIONS_METRICS_WINDOW_HOURS",
        Kind::Integer(1, 8760),
        Fallback::Is("24"),
        "window of the failure counters",
    ),
    Setting::new(
        "WORKER_ALERT_FAILURE_THRESHOLD",
        Kind::Integer(1, 1_000_000),
        Fallback::Is("5"),
        "dead letters in the window from which on there is an alert",
    ),
    Setting::new(
        "MAX_BODY_BYTES",
        Kind::Integer(1, 134_217_728),
        Fallback::Is("1048576"),
        "largest request body; over it, 413",
    ),
    Setting::new(
        "MAX_UPLOAD_BYTES",
        Kind::Integer(1, 1_073_741_824),
        Fallback::Is("26214400"),
        "largest upload; over it, 413",
    ),
    Setting::new(
        "REQUEST_TIMEOUT_SECONDS",
        Kind::Seconds(1, 3600),
        Fallback::Is("10"),
        "how long a request may take, triggers excepted; over it, 408",
    ),
    Setting::new(
        "MAX_CONCURRENCY",
        Kind::Integer(1, 100_000),
        Fallback::Is("256"),
        "requests at work at once; over it, 429",
    ),
    Setting::new(
        "QUEUE_TIMEOUT_SECONDS",
        Kind::Seconds(0, 300),
        Fallback::Is("0"),
        "how long a request over `MAX_CONCURRENCY` waits before its 429",
    ),
    Setting::new(
        "MAX_STREAMS",
        Kind::Integer(0, 100_000),
        Fallback::Is("2000"),
        "event and log streams open at once; over it, 429. Each needs a file descriptor, none a database connection",
    ),
    Setting::new(
        "CONTROL_PLANE_DRAIN_DELAY_SECONDS",
        Kind::Seconds(0, 300),
        Fallback::Means("5; in dev and test 0"),
        "after SIGTERM: `/readyz` is 503 and all else is served for so long, so that balancers notice first",
    ),
    Setting::new(
        "META_ENABLED",
        Kind::Switch,
        Fallback::Is("1"),
        "whether `GET /meta` is there",
    ),
];
