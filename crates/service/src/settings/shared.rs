//! The settings that both services have, declared and read in one place.

use super::{ArtifactStore, Fallback, Kind, Setting, Values};
use crate::flags::Flags;
use crate::secret::Secret;
use crate::telemetry::LogSettings;
use crate::trace::TraceSettings;

/// Where a program runs; decides how strict it is about keys and addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppEnv {
    /// A developer's machine.
    Dev,
    /// A test run.
    Test,
    /// A rehearsal with real strictness.
    Staging,
    /// The real thing.
    Prod,
}

impl AppEnv {
    const WORDS: &'static [&'static str] = &["dev", "test", "staging", "prod"];

    /// Whether this is dev or test, where missing keys and plain HTTP are tolerated.
    pub fn is_development(self) -> bool {
        matches!(self, Self::Dev | Self::Test)
    }

    /// The word that `APP_ENV` has.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Test => "test",
            Self::Staging => "staging",
            Self::Prod => "prod",
        }
    }
}

/// What stands between a program and its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooler {
    /// Nothing, or what lends whole sessions.
    None,
    /// A pooler that lends a session for one transaction.
    Transaction,
}

impl Pooler {
    /// Reads `DATABASE_POOLER`.
    pub fn read(values: &mut Values) -> Self {
        match values.choice("DATABASE_POOLER") {
            Some("transaction") => Self::Transaction,
            _ => Self::None,
        }
    }
}

/// What both services are told.
#[derive(Debug, Clone)]
pub struct SharedSettings {
    /// Where the program runs.
    pub app_env: AppEnv,
    /// The address of the database, with its password.
    pub database_url: Secret,
    /// How many connections the pool holds at most.
    pub database_max_connections: u32,
    /// What stands between the program and its database.
    pub pooler: Pooler,
    /// Where the bytes of files are kept.
    pub artifact_store: ArtifactStore,
    /// How and how much the program logs.
    pub log: LogSettings,
    /// Where traces go.
    pub traces: TraceSettings,
    /// Which features are on.
    pub flags: Flags,
    /// Wrong keys that one address may show a minute.
    pub auth_failures_per_minute: u32,
    /// Lines to log once the program has started.
    pub warnings: Vec<String>,
}

impl SharedSettings {
    /// The declarations; a program lists them beside its own and [`crate::flags::SETTINGS`].
    pub const SETTINGS: &'static [Setting] = &[
        Setting::new(
            "APP_ENV",
            Kind::Choice(AppEnv::WORDS),
            Fallback::Required,
            "where the program runs",
        ),
        Setting::new(
            "DATABASE_URL",
            Kind::DatabaseUrl,
            Fallback::Required,
            "the one database; `postgres://` or `postgresql://`",
        ),
        Setting::new(
            "DATABASE_MAX_CONNECTIONS",
            Kind::Integer(1, 1000),
            Fallback::Is("10"),
            "pool size",
        ),
        Setting::new(
            "DATABASE_POOLER",
            Kind::Choice(&["none", "transaction"]),
            Fallback::Is("none"),
            "`transaction`: a pooler that lends a session for one transaction (PgBouncer) stands before the database",
        ),
        Setting::new(
            "ALLOW_EXTERNAL_BIND",
            Kind::Switch,
            Fallback::Is("0"),
            "a bind to another address than loopback is refused at startup unless this is `1`",
        ),
        Setting::new(
            "LOG_FORMAT",
            Kind::Choice(&["json", "pretty"]),
            Fallback::Means("`json`; `pretty` on a terminal"),
            "one JSON object a line, or lines for people",
        ),
        Setting::new(
            "LOG_LEVEL",
            Kind::Text,
            Fallback::Is("info"),
            "`error`, `warn`, `info`, `debug`, `trace`, or directives like `info,sqlx=warn`",
        ),
        TraceSettings::SETTINGS[0],
        TraceSettings::SETTINGS[1],
        TraceSettings::SETTINGS[2],
        Setting::new(
            "AUTH_FAILURES_PER_MINUTE",
            Kind::Integer(1, 1_000_000),
            Fallback::Is("3000"),
            "wrong keys that one address may show a minute; over it, 429. Right ones are always let in",
        ),
        ArtifactStore::SETTINGS[0],
        ArtifactStore::SETTINGS[1],
        ArtifactStore::SETTINGS[2],
        ArtifactStore::SETTINGS[3],
        ArtifactStore::SETTINGS[4],
        ArtifactStore::SETTINGS[5],
    ];

    /// Reads the shared settings and the flags.
    pub fn read(values: &mut Values) -> Self {
        let app_env = match values.choice("APP_ENV") {
            Some("dev") => AppEnv::Dev,
            Some("test") => AppEnv::Test,
            Some("staging") => AppEnv::Staging,
            // Whatever is unclear is held to the strictest rules.
            _ => AppEnv::Prod,
        };
        Self {
            app_env,
            database_url: values.database_url("DATABASE_URL"),
            database_max_connections: values.integer("DATABASE_MAX_CONNECTIONS"),
            pooler: Pooler::read(values),
            artifact_store: ArtifactStore::read(values),
            log: LogSettings::read(values),
            traces: TraceSettings::read(values),
            flags: Flags::read(values),
            auth_failures_per_minute: values.integer("AUTH_FAILURES_PER_MINUTE"),
            warnings: values.warnings().to_vec(),
        }
    }
}
