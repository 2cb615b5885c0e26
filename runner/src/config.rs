//! Everything that the runner can be told, read once and checked all at once. No other file reads a setting.

mod child_environment;
mod job_types;

pub(crate) use job_types::{CommandLine, DeclaredType, DeclaredWork, HttpCall};

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jobs::Name;
use service::settings::{
    Fallback, Kind, NotionSettings, Setting, SettingsError, SharedSettings, Sources, Values,
    WebhookSettings,
};
use service::{AppEnv, KeySet, Secret, TlsFiles};

use crate::secrets;

/// The runner's own settings; it has the shared ones and the flags beside them.
pub const SETTINGS: &[Setting] = &[
    Setting::new(
        "RUNNER_TOKEN",
        Kind::SecretList,
        Fallback::Required,
        "accepted tokens, comma-separated (rotation)",
    ),
    Setting::new(
        "RUNNER_ALLOWLIST",
        Kind::List,
        Fallback::Is("nearsight_collect_refresh,captorator_compose,metrics_refresh"),
        "job types it may run; exact match, case-sensitive",
    ),
    Setting::new(
        "RUNNER_BIND",
        Kind::Address,
        Fallback::Is("127.0.0.1:8010"),
        "where it listens",
    ),
    Setting::new(
        "RUNNER_TLS_CERT",
        Kind::Path,
        Fallback::Unset,
        "certificate chain (PEM): serve HTTPS itself",
    ),
    Setting::new(
        "RUNNER_TLS_KEY",
        Kind::Path,
        Fallback::RequiredWhen("with RUNNER_TLS_CERT"),
        "its private key (PEM)",
    ),
    Setting::new(
        "RUNNER_ID",
        Kind::Text,
        Fallback::Means("host name and a random part"),
        "its name, one of its own a runner",
    ),
    Setting::new(
        "RUNNER_CONCURRENCY",
        Kind::Integer(1, 4000),
        Fallback::Is("4"),
        "jobs at work",
    ),
    Setting::new(
        "RUNNER_QUEUE_TIMEOUT_SECONDS",
        Kind::Seconds(0, 300),
        Fallback::Is("0"),
        "how long a trigger waits for a slot before it is answered 429; the job stays queued",
    ),
    Setting::new(
        "RUNNER_POLL_INTERVAL_SECONDS",
        Kind::Seconds(0, 3600),
        Fallback::Is("5"),
        "how often it looks for due jobs when nothing woke it; `0`: only when triggered or called by cron",
    ),
    Setting::new(
        "RUNNER_LISTEN",
        Kind::Switch,
        Fallback::Means("`1` where it polls, `0` with `RUNNER_POLL_INTERVAL_SECONDS=0`"),
        "`1`: due jobs are taken as soon as NOTIFY tells of them, on a connection beside the pool; a lost hint costs a poll interval",
    ),
    Setting::new(
        "DATABASE_DIRECT_URL",
        Kind::DatabaseUrl,
        Fallback::Unset,
        "the same database without a pooler, to listen on; with `DATABASE_POOLER=transaction` there are no hints without it",
    ),
    Setting::new(
        "RUNNER_LEASE_SECONDS",
        Kind::Seconds(1, 3600),
        Fallback::Is("30"),
        "a claim is good for so long; renewed at a third of it",
    ),
    Setting::new(
        "RUNNER_DRAIN_SECONDS",
        Kind::Seconds(0, 86_400),
        Fallback::Is("30"),
        "after SIGTERM: take no more, let jobs finish so long, hand the rest back",
    ),
    Setting::new(
        "RUNNER_DRAIN_DELAY_SECONDS",
        Kind::Seconds(0, 300),
        Fallback::Is("0"),
        "after SIGTERM: triggers are answered for at least so long, so that a balancer in front of several runners notices first",
    ),
    Setting::new(
        "RUNNER_REQUEST_TIMEOUT_SECONDS",
        Kind::Seconds(1, 86_400),
        Fallback::Is("60"),
        "no request takes longer; over it 408",
    ),
    Setting::new(
        "RUNNER_MAX_UPLOAD_BYTES",
        Kind::Integer(1, u64::MAX),
        Fallback::Is("26214400"),
        "files of a synchronous run, over it: 413; no artifact is larger; JSON bodies end at a mebibyte already",
    ),
    Setting::new(
        "RUNNER_WORK_DIR",
        Kind::Path,
        Fallback::Means("a private temporary folder"),
        "where each run has its folder, removed after it",
    ),
    Setting::new(
        "RUNNER_DEBUG_ARTIFACTS",
        Kind::Switch,
        Fallback::Is("0"),
        "`1`: run folders are kept",
    ),
    Setting::new(
        "RUNNER_CGROUP",
        Kind::Text,
        Fallback::Is("auto"),
        "the cgroup (v2) below which each run has its own: `auto` is the one delegated to the runner, where there is one; `off`; or a path",
    ),
    Setting::new(
        "TMPDIR",
        Kind::Path,
        Fallback::Is("/tmp"),
        "where the private temporary folder is made",
    ),
    Setting::new(
        "PATH",
        Kind::Text,
        Fallback::Is("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        "handed on to commands",
    ),
    Setting::new("HOME", Kind::Text, Fallback::Unset, "handed on to commands"),
    Setting::new("LANG", Kind::Text, Fallback::Unset, "handed on to commands"),
    Setting::new("TZ", Kind::Text, Fallback::Unset, "handed on to commands"),
];

/// A JSON body is never larger.
const LARGEST_JSON: u64 = 1024 * 1024;

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// What every service is told.
    pub shared: SharedSettings,
    pub(crate) tokens: KeySet,
    pub(crate) bind: SocketAddr,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) runner_id: String,
    pub(crate) allowlist: BTreeSet<Name>,
    pub(crate) limits: Limits,
    pub(crate) hints: HintSource,
    pub(crate) folders: Folders,
    pub(crate) child_environment: Vec<(String, String)>,
    pub(crate) job_types: Vec<DeclaredType>,
    pub(crate) shim: Option<PathBuf>,
    /// What must not be seen in what handlers print.
    pub(crate) secrets: Vec<Secret>,
    pub(crate) masking: Masking,
    pub(crate) cgroup: CgroupSetting,
    pub(crate) webhooks: WebhookSettings,
    pub(crate) notion: Option<NotionSettings>,
}

/// Whether secrets are masked in what handlers print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Masking {
    On,
    /// No setting leads here, only a program that links the runner, and only with `APP_ENV=test`.
    Off,
}

/// Where runs have their cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CgroupSetting {
    /// Where one was delegated.
    Auto,
    Off,
    At(PathBuf),
}

/// How much, and how long.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) slots: usize,
    pub(crate) queue_timeout: Duration,
    /// `None`: it never looks for work by itself.
    pub(crate) poll_interval: Option<Duration>,
    pub(crate) lease: Duration,
    pub(crate) drain: Duration,
    /// How long a stopping runner answers at the least.
    pub(crate) drain_delay: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) body_bytes: u64,
    pub(crate) upload_bytes: u64,
}

/// How it hears that work has arrived.
#[derive(Clone, Debug)]
pub(crate) enum HintSource {
    /// Not at all: it only looks.
    None,
    /// By NOTIFY, at the direct address if one is given.
    Notify(Option<Secret>),
}

/// Where runs have their folders.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    /// `None`: a private one below `temporary`.
    pub(crate) work: Option<PathBuf>,
    pub(crate) temporary: PathBuf,
    pub(crate) after_run: AfterRun,
}

/// What becomes of a run's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterRun {
    Remove,
    Keep,
}

impl Config {
    /// Reads and checks every setting.
    ///
    /// # Errors
    /// Names every wrong setting at once, none by its value.
    pub fn load(sources: Sources) -> Result<Self, SettingsError> {
        let tables = [
            SharedSettings::SETTINGS,
            WebhookSettings::SETTINGS,
            NotionSettings::SETTINGS,
            service::flags::SETTINGS,
            SETTINGS,
        ];
        let mut values = Values::load(&tables, &["job_types"], sources);
        let tokens = values.secret_list("RUNNER_TOKEN");
        let shared = SharedSettings::read(&mut values);
        let mut config = Self {
            webhooks: WebhookSettings::read(&mut values, shared.app_env),
            notion: NotionSettings::read(&mut values, shared.app_env, shared.flags),
            shared,
            tokens: KeySet::new(&tokens),
            bind: values.bind_address("RUNNER_BIND"),
            tls: tls(&mut values),
            runner_id: runner_id(&mut values),
            allowlist: allowlist(&mut values),
            limits: limits(&mut values),
            hints: hints(&mut values),
            folders: folders(&mut values),
            child_environment: child_environment::read(&mut values),
            job_types: job_types::read(&mut values),
            shim: None,
            secrets: tokens,
            masking: Masking::On,
            cgroup: cgroup(&mut values),
        };
        let signing_keys = config.webhooks.signing_keys.iter().cloned();
        config.secrets.extend(signing_keys);
        let notion = config.notion.iter();
        config
            .secrets
            .extend(notion.map(|notion| notion.token.clone()));
        let in_address = secrets::of_address(config.shared.database_url.expose());
        config
            .secrets
            .extend(in_address.into_iter().map(Secret::new));
        config
            .secrets
            .extend(config.shared.artifact_store.secrets());
        if !jobs::is_usable_address(config.shared.database_url.expose()) {
            values.refuse("DATABASE_URL", jobs::UNUSABLE_ADDRESS);
        }
        values.finish(config)
    }

    /// Names a program that watches over commands instead of a copy of this one: one whose `main` calls
    /// [`serve_as_shim`](crate::serve_as_shim), such as the shipped runner. For programs whose own `main` cannot.
    pub fn set_shim_program(&mut self, program: PathBuf) {
        self.shim = Some(program);
    }

    /// Leaves secrets unmasked, so that a test can prove that they would be found; only with `APP_ENV=test`.
    #[doc(hidden)]
    pub fn leave_secrets_unmasked(&mut self) {
        if self.shared.app_env == AppEnv::Test {
            self.masking = Masking::Off;
        }
    }

    /// Whether it accepts this token.
    pub fn accepts_token(&self, token: &Secret) -> bool {
        self.tokens.accepts(token.expose()).is_some()
    }

    /// How long a claim holds unless it is renewed.
    pub fn lease(&self) -> Duration {
        self.limits.lease
    }

    /// How the runner calls itself.
    pub fn runner_id(&self) -> &str {
        &self.runner_id
    }
}

fn tls(values: &mut Values) -> Option<TlsFiles> {
    let cert = values.path("RUNNER_TLS_CERT");
    let key = values.path("RUNNER_TLS_KEY");
    match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
        (Some(_), None) => {
            values.require("RUNNER_TLS_KEY");
            None
        }
        (None, Some(_)) => {
            values.refuse("RUNNER_TLS_CERT", "is required with RUNNER_TLS_KEY: set it");
            None
        }
        (None, None) => None,
    }
}

fn runner_id(values: &mut Values) -> String {
    let Some(id) = values.optional_text("RUNNER_ID") else {
        let host = rustix::system::uname();
        return format!(
            "{}-{}",
            host.nodename().to_string_lossy(),
            service::ids::random_hex::<4>()
        );
    };
    if id.len() > 128 || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
        values.refuse(
            "RUNNER_ID",
            "is no name: set it to at most 128 printable ASCII characters without spaces",
        );
    }
    id
}

fn allowlist(values: &mut Values) -> BTreeSet<Name> {
    let mut names = BTreeSet::new();
    for item in values.list("RUNNER_ALLOWLIST") {
        match item.parse() {
            Ok(name) => {
                names.insert(name);
            }
            Err(why) => values.refuse(
                "RUNNER_ALLOWLIST",
                format!("holds what is no job type: each {why}"),
            ),
        }
    }
    names
}

fn limits(values: &mut Values) -> Limits {
    let poll_interval = values.seconds("RUNNER_POLL_INTERVAL_SECONDS");
    let upload_bytes = values.integer::<u64>("RUNNER_MAX_UPLOAD_BYTES");
    Limits {
        slots: values.integer("RUNNER_CONCURRENCY"),
        queue_timeout: values.seconds("RUNNER_QUEUE_TIMEOUT_SECONDS"),
        poll_interval: (!poll_interval.is_zero()).then_some(poll_interval),
        lease: values.seconds("RUNNER_LEASE_SECONDS"),
        drain: values.seconds("RUNNER_DRAIN_SECONDS"),
        drain_delay: values.seconds("RUNNER_DRAIN_DELAY_SECONDS"),
        request_timeout: values.seconds("RUNNER_REQUEST_TIMEOUT_SECONDS"),
        body_bytes: upload_bytes.min(LARGEST_JSON),
        upload_bytes,
    }
}

fn hints(values: &mut Values) -> HintSource {
    let polls = !values.seconds("RUNNER_POLL_INTERVAL_SECONDS").is_zero();
    let direct = values.optional_database_url("DATABASE_DIRECT_URL");
    if direct
        .as_ref()
        .is_some_and(|url| !jobs::is_usable_address(url.expose()))
    {
        values.refuse("DATABASE_DIRECT_URL", jobs::UNUSABLE_ADDRESS);
    }
    if values.optional_switch("RUNNER_LISTEN").unwrap_or(polls) {
        HintSource::Notify(direct)
    } else {
        HintSource::None
    }
}

fn cgroup(values: &mut Values) -> CgroupSetting {
    match values.optional_text("RUNNER_CGROUP").as_deref() {
        None | Some("auto") => CgroupSetting::Auto,
        Some("off") => CgroupSetting::Off,
        Some(path) => {
            if !path.starts_with('/') {
                values.refuse(
                    "RUNNER_CGROUP",
                    "is no cgroup: set it to auto, off or an absolute path",
                );
            }
            CgroupSetting::At(PathBuf::from(path))
        }
    }
}

fn folders(values: &mut Values) -> Folders {
    Folders {
        work: values.path("RUNNER_WORK_DIR"),
        temporary: values.path("TMPDIR").unwrap_or_default(),
        after_run: if values.switch("RUNNER_DEBUG_ARTIFACTS") {
            AfterRun::Keep
        } else {
            AfterRun::Remove
        },
    }
}

#[cfg(test)]
mod tests;
