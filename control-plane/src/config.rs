//! What the control plane can be told from outside, and what it makes of it. Nothing else in this crate reads settings.

mod table;

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::HeaderValue;
use service::settings::Source;
use service::{
    Cors, Flag, KeySet, NotionSettings, Secret, SettingsError, SharedSettings, Sources, Values,
    WebhookSettings, flags,
};
use url::Url;

pub use table::SETTINGS;

/// Where triggers go and what they bear.
#[derive(Debug, Clone)]
pub struct RunnerAddress {
    /// The base that `/run` is appended to.
    pub url: Url,
    /// Sent as `X-Runner-Token`.
    pub token: Secret,
    /// How long a whole trigger call may take.
    pub timeout: Duration,
}

/// What one request may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body_bytes: u64,
    /// Largest upload, in bytes.
    pub upload_bytes: u64,
    /// How long a request may take, triggers excepted.
    pub request_timeout: Duration,
    /// Requests at work at once.
    pub concurrency: usize,
    /// How long a request over `concurrency` waits before its 429.
    pub queue_timeout: Duration,
    /// Streams open at once.
    pub streams: usize,
}

/// A configuration in which nothing is wrong.
#[derive(Debug, Clone)]
pub struct Config {
    /// What both services are told.
    pub shared: SharedSettings,
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Signs cursors.
    pub secret_key: Secret,
    /// Who may call; nobody when empty.
    pub ops_keys: KeySet,
    /// Where triggers go; there whenever `RUNNER_ENABLED` is on.
    pub runner: Option<RunnerAddress>,
    /// From when on a silent running job is stalled.
    pub stall_after: Duration,
    /// Window of the failure counters, in hours.
    pub metrics_window_hours: u32,
    /// Dead letters in the window from which on there is an alert.
    pub alert_threshold: u32,
    /// What one request may cost.
    pub limits: Limits,
    /// How long it goes on serving, not ready any more, before it takes no more connections.
    pub drain_delay: Duration,
    /// Which other origins may call; `None`: no CORS header is ever sent.
    pub cors: Option<Cors>,
    /// What webhooks are signed with, and what they may reach.
    pub webhooks: WebhookSettings,
    /// Where outcomes are published; there whenever `NOTION_ENABLED` is on.
    pub notion: Option<NotionSettings>,
    /// Whether `GET /meta` is there.
    pub meta_enabled: bool,
    /// Every setting's name and the layer that it was taken from, for `GET /debug/env`.
    pub sources: Vec<(&'static str, Source)>,
}

impl Config {
    /// Reads the configuration: defaults, then the file, then the environment.
    ///
    /// # Errors
    /// When any setting is wrong: then every wrong one is named, none with its value.
    pub fn load(sources: Sources) -> Result<Self, SettingsError> {
        let tables = [
            SharedSettings::SETTINGS,
            SETTINGS,
            Cors::SETTINGS,
            WebhookSettings::SETTINGS,
            NotionSettings::SETTINGS,
            flags::SETTINGS,
        ];
        let mut values = Values::load(&tables, &[], sources);
        let shared = SharedSettings::read(&mut values);
        let config = Self {
            bind: values.bind_address("CONTROL_PLANE_BIND"),
            secret_key: read_secret_key(&mut values, &shared),
            ops_keys: read_ops_keys(&mut values, &shared),
            runner: read_runner(&mut values, &shared),
            stall_after: values.seconds("STALL_THRESHOLD_SECONDS"),
            metrics_window_hours: values.integer("OPERATIONS_METRICS_WINDOW_HOURS"),
            alert_threshold: values.integer("WORKER_ALERT_FAILURE_THRESHOLD"),
            limits: Limits {
                body_bytes: values.integer("MAX_BODY_BYTES"),
                upload_bytes: values.integer("MAX_UPLOAD_BYTES"),
                request_timeout: values.seconds("REQUEST_TIMEOUT_SECONDS"),
                concurrency: values.integer("MAX_CONCURRENCY"),
                queue_timeout: values.seconds("QUEUE_TIMEOUT_SECONDS"),
                streams: values.integer("MAX_STREAMS"),
            },
            drain_delay: read_drain_delay(&mut values, &shared),
            cors: Cors::read(&mut values),
            webhooks: WebhookSettings::read(&mut values, shared.app_env),
            notion: NotionSettings::read(&mut values, shared.app_env, shared.flags),
            meta_enabled: values.switch("META_ENABLED"),
            sources: values.sources().collect(),
            shared,
        };
        if !jobs::is_usable_address(config.shared.database_url.expose()) {
            values.refuse("DATABASE_URL", jobs::UNUSABLE_ADDRESS);
        }
        refuse_one_key_for_both(&mut values, &config);
        values.finish(config)
    }
}

fn read_secret_key(values: &mut Values, shared: &SharedSettings) -> Secret {
    let key = values.secret("SECRET_KEY");
    if !shared.app_env.is_development() && key.length() < 32 {
        values.refuse(
            "SECRET_KEY",
            "is too short: outside dev and test it has at least 32 characters, for example from `openssl rand -hex 32`",
        );
    }
    key
}

fn read_ops_keys(values: &mut Values, shared: &SharedSettings) -> KeySet {
    let keys = KeySet::new(&values.secret_list("OPS_API_KEY"));
    if !shared.app_env.is_development() {
        values.require("OPS_API_KEY");
    }
    keys
}

/// Where somebody waits at a terminal, and no balancer is in front, stopping is not delayed.
fn read_drain_delay(values: &mut Values, shared: &SharedSettings) -> Duration {
    let usual = if shared.app_env.is_development() {
        Duration::ZERO
    } else {
        Duration::from_secs(5)
    };
    values
        .optional_seconds("CONTROL_PLANE_DRAIN_DELAY_SECONDS")
        .unwrap_or(usual)
}

fn read_runner(values: &mut Values, shared: &SharedSettings) -> Option<RunnerAddress> {
    let url = values.optional_url("RUNNER_URL");
    let token = values.optional_secret("RUNNER_TOKEN_OUTBOUND");
    let timeout = values.seconds("RUNNER_TRIGGER_TIMEOUT_SECONDS");
    if shared.flags.is_on(Flag::Runner) {
        values.require("RUNNER_URL");
        values.require("RUNNER_TOKEN_OUTBOUND");
    }
    if let Some(url) = &url {
        if !url.username().is_empty() || url.password().is_some() {
            values.refuse(
                "RUNNER_URL",
                "bears a user or a password: put the token into RUNNER_TOKEN_OUTBOUND",
            );
        }
        if url.scheme() == "http"
            && !service::settings::is_loopback(url)
            && !shared.app_env.is_development()
        {
            values.refuse(
                "RUNNER_URL",
                "would send the token unencrypted: use https:// outside dev and test",
            );
        }
    }
    if token
        .as_ref()
        .is_some_and(|token| HeaderValue::from_str(token.expose()).is_err())
    {
        values.refuse(
            "RUNNER_TOKEN_OUTBOUND",
            "cannot be sent in a header: use visible ASCII characters",
        );
    }
    Some(RunnerAddress {
        url: url?,
        token: token?,
        timeout,
    })
}

/// One leaked key must not open the other side.
fn refuse_one_key_for_both(values: &mut Values, config: &Config) {
    let Some(runner) = &config.runner else { return };
    if !config.shared.app_env.is_development()
        && config.ops_keys.accepts(runner.token.expose()).is_some()
    {
        values.refuse(
            "RUNNER_TOKEN_OUTBOUND",
            "is one of OPS_API_KEY too: use different ones",
        );
    }
}

#[cfg(test)]
mod tests {
    use service::Environment;

    use super::*;

    const RIGHT: [(&str, &str); 7] = [
        ("APP_ENV", "prod"),
        ("DATABASE_URL", "postgres://u@h/d"),
        ("SECRET_KEY", "0123456789abcdef0123456789abcdef"),
        ("OPS_API_KEY", "canary-one,canary-two"),
        ("RUNNER_ENABLED", "1"),
        ("RUNNER_URL", "https://runner.internal"),
        ("RUNNER_TOKEN_OUTBOUND", "canary-token"),
    ];

    fn load(changes: &[(&str, &str)]) -> Result<Config, SettingsError> {
        let pairs = RIGHT.into_iter().chain(changes.iter().copied());
        Config::load(Sources {
            config: None,
            environment: Environment::from_pairs(pairs),
        })
    }

    fn wrong(changes: &[(&str, &str)]) -> Vec<String> {
        let error = load(changes).expect_err("wrong");
        assert!(!error.to_string().contains("canary"), "{error}");
        error
            .problems
            .into_iter()
            .map(|problem| problem.name)
            .collect()
    }

    #[test]
    fn a_right_configuration_is_taken_with_its_defaults() {
        let config = load(&[]).expect("right");
        assert_eq!(config.bind.to_string(), "127.0.0.1:8000");
        assert_eq!(config.limits.body_bytes, 1_048_576);
        assert_eq!(config.stall_after, Duration::from_secs(20));
        assert!(config.ops_keys.accepts("canary-two").is_some());
        assert!(config.meta_enabled);
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        assert_eq!(
            wrong(&[
                ("CONTROL_PLANE_BIND", "0.0.0.0:8000"),
                ("SECRET_KEY", "canary"),
                ("OPS_API_KEY", ""),
                ("RUNNER_URL", "http://10.0.0.1:8010"),
                ("MAX_BODY_BYTES", "canary"),
                ("CORS_ENABLED", "1"),
                ("CORS_ALLOW_CREDENTIALS", "1"),
            ]),
            [
                "CONTROL_PLANE_BIND",
                "SECRET_KEY",
                "OPS_API_KEY",
                "RUNNER_URL",
                "MAX_BODY_BYTES",
                "CORS_ALLOW_CREDENTIALS"
            ]
        );
    }

    #[test]
    fn each_rule_of_the_runners_address_holds() {
        for (name, value) in [
            ("RUNNER_URL", ""),
            ("RUNNER_TOKEN_OUTBOUND", ""),
            ("RUNNER_URL", "https://user:canary@runner.internal"),
            ("RUNNER_TOKEN_OUTBOUND", "canary\n"),
            ("RUNNER_TOKEN_OUTBOUND", "canary-one"),
        ] {
            assert_eq!(wrong(&[(name, value)]), [name], "{value}");
        }
        for url in [
            "http://127.0.0.1:8010",
            "http://localhost:8010",
            "http://[::1]:8010",
            "https://h/base/",
        ] {
            assert!(load(&[("RUNNER_URL", url)]).is_ok(), "{url}");
        }
        assert!(
            load(&[
                ("RUNNER_ENABLED", "0"),
                ("RUNNER_URL", ""),
                ("RUNNER_TOKEN_OUTBOUND", "")
            ])
            .is_ok()
        );
    }

    #[test]
    fn dev_and_test_are_lenient_about_keys_and_plain_http() {
        for environment in ["dev", "test"] {
            let config = load(&[
                ("APP_ENV", environment),
                ("SECRET_KEY", "short"),
                ("OPS_API_KEY", ""),
                ("RUNNER_URL", "http://runner:8010"),
            ]);
            assert!(config.expect("right").ops_keys.is_empty());
        }
    }

    #[test]
    fn only_postgresql_is_a_database() {
        for url in [
            "",
            "sqlite:canary.db",
            "mysql://h/d",
            "postgres://h/d?sslmode=canary",
        ] {
            assert_eq!(wrong(&[("DATABASE_URL", url)]), ["DATABASE_URL"]);
        }
    }
}
