//! What the command can be told by file and environment. Secrets come this way only, never as arguments.

use std::ffi::OsString;
use std::path::PathBuf;

use service::settings::{Fallback, Kind, Setting, SettingsError};
use service::telemetry::LogSettings;
use service::{Environment, Secret, Sources, Values};
use url::Url;

use crate::load_test::Limits;
use crate::screen::{Color, Output, Screen};

/// The settings of `opsctl`.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new(
        "OPS_URL",
        Kind::Url,
        Fallback::Is("http://127.0.0.1:8000"),
        "the control plane that is asked",
    ),
    Setting::new(
        "OPS_API_KEY",
        Kind::SecretList,
        Fallback::RequiredWhen("for every command that asks the control plane"),
        "the key for the control plane; of several, comma-separated, the first is used",
    ),
    Setting::new(
        "DATABASE_URL",
        Kind::DatabaseUrl,
        Fallback::RequiredWhen("for `opsctl db` and `opsctl verify`"),
        "the database; `opsctl dev` without it starts a private one",
    ),
    Setting::new(
        "BACKUP_DIR",
        Kind::Path,
        Fallback::Is("backups"),
        "`opsctl db backup` and `drill`: the folder of the backups",
    ),
    Setting::new(
        "BACKUP_RETENTION_DAYS",
        Kind::Integer(1, 36_500),
        Fallback::Is("14"),
        "`opsctl db backup`: a backup that is older is removed after a newer one was made and verified, but never the newest three",
    ),
    Setting::new(
        "CANARY_SECRET",
        Kind::Secret,
        Fallback::Unset,
        "`opsctl doctor --canary`: the secret that the job type's `env` has on a stack that is given",
    ),
    Setting::new(
        "NO_COLOR",
        Kind::Text,
        Fallback::Unset,
        "no colours, unless `--color always`",
    ),
    Setting::new(
        "CLICOLOR_FORCE",
        Kind::Text,
        Fallback::Unset,
        "colours also where no terminal is, unless `0`",
    ),
    Setting::new(
        "LOAD_TEST_MAX_TOTAL_P95_MS",
        Kind::Integer(0, 86_400_000),
        Fallback::Is("15000"),
        "`opsctl load-test`: p95 from recorded to ended, of the worst round",
    ),
    Setting::new(
        "LOAD_TEST_MAX_WAIT_P95_MS",
        Kind::Integer(0, 86_400_000),
        Fallback::Is("3000"),
        "`opsctl load-test`: p95 from recorded to started, of the worst round",
    ),
    Setting::new(
        "LOAD_TEST_MAX_TEMPORARY_BYTES",
        Kind::Integer(0, 1 << 50),
        Fallback::Is("5242880"),
        "`opsctl load-test`: more temporary bytes than before",
    ),
    Setting::new(
        "LOAD_TEST_MAX_TEMPORARY_FILES",
        Kind::Integer(0, 1 << 40),
        Fallback::Is("50"),
        "`opsctl load-test`: more temporary files than before",
    ),
];

/// The control plane's address without its default, for commands that otherwise make a set-up of their own.
const GIVEN: &[Setting] = &[Setting::new(
    "OPS_URL",
    Kind::Url,
    Fallback::Unset,
    "the control plane that is asked",
)];

/// The surroundings of a developer's machine, for `opsctl dev`.
const SURROUNDINGS: &[Setting] = &[
    Setting::new("HOME", Kind::Path, Fallback::Unset, "the user's folder"),
    Setting::new(
        "XDG_STATE_HOME",
        Kind::Path,
        Fallback::Unset,
        "where programs of the user keep their state",
    ),
    Setting::new(
        "TMPDIR",
        Kind::Path,
        Fallback::Is("/tmp"),
        "for what does not last",
    ),
    Setting::new(
        "PATH",
        Kind::Path,
        Fallback::Unset,
        "where programs are looked for",
    ),
];

/// The sources of the command's settings; each command reads what it needs, and no more.
#[derive(Debug)]
pub(crate) struct Settings {
    sources: Sources,
}

/// The control plane that is asked, and the key that opens it.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) url: String,
    pub(crate) key: Secret,
}

/// What backups and restores go by.
#[derive(Clone, Debug)]
pub(crate) struct Backups {
    pub(crate) url: Secret,
    pub(crate) folder: PathBuf,
    pub(crate) retention_days: u32,
    pub(crate) files: files::Place,
    pub(crate) path: Option<OsString>,
}

/// The runner, as the control plane has it.
#[derive(Clone, Debug)]
pub(crate) struct Trigger {
    pub(crate) url: Url,
    pub(crate) token: Option<Secret>,
}

/// The surroundings that the private PostgreSQL and the state folder depend on.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) home: Option<PathBuf>,
    pub(crate) xdg_state_home: Option<PathBuf>,
    pub(crate) temp_dir: PathBuf,
    pub(crate) path: Option<OsString>,
}

/// What commands of the runner inherit of our own environment.
#[derive(Clone, Debug)]
pub(crate) struct HandedOn(pub(crate) Vec<(String, String)>);

impl Settings {
    pub(crate) fn new(config: Option<PathBuf>, environment: Environment) -> Self {
        Self {
            sources: Sources {
                config,
                environment,
            },
        }
    }

    /// One settings file may serve all three programs, so that theirs are known here too.
    fn values(&self) -> Values {
        self.values_with(SETTINGS)
    }

    /// The same, with the command's own settings declared like this.
    fn values_with(&self, own: &[Setting]) -> Values {
        let tables = [
            service::SharedSettings::SETTINGS,
            service::flags::SETTINGS,
            service::Cors::SETTINGS,
            service::WebhookSettings::SETTINGS,
            service::NotionSettings::SETTINGS,
            control_plane::SETTINGS,
            runner::SETTINGS,
            SURROUNDINGS,
            SETTINGS,
            own,
        ];
        Values::load(&tables, &["job_types"], self.sources.clone())
    }

    /// Where all three programs are told what they are told.
    pub(crate) fn sources(&self) -> Sources {
        self.sources.clone()
    }

    /// Whether any of these is set here.
    pub(crate) fn has_any(&self, names: &[&str]) -> bool {
        let values = self.values_with(GIVEN);
        names.iter().any(|name| values.is_set(name))
    }

    /// Where triggers go, and what they bear, as far as they are set here.
    pub(crate) fn trigger(&self) -> Result<Option<Trigger>, SettingsError> {
        let mut values = self.values();
        let url = values.optional_url("RUNNER_URL");
        let token = values.optional_secret("RUNNER_TOKEN_OUTBOUND");
        values.finish(url.map(|url| Trigger { url, token }))
    }

    /// What the jobs of a canary on a given stack print.
    pub(crate) fn canary_secret(&self) -> Result<Option<Secret>, SettingsError> {
        let mut values = self.values();
        let secret = values.optional_secret("CANARY_SECRET");
        values.finish(secret)
    }

    pub(crate) fn screen(&self, output: Output, color: Color) -> Result<Screen, SettingsError> {
        let mut values = self.values();
        let no_color = values.optional_text("NO_COLOR");
        let force_color = values.optional_text("CLICOLOR_FORCE");
        values.finish(Screen::new(
            output,
            color,
            no_color.as_deref(),
            force_color.as_deref(),
        ))
    }

    pub(crate) fn access(&self) -> Result<Access, SettingsError> {
        let mut values = self.values();
        values.require("OPS_API_KEY");
        let url = values
            .optional_url("OPS_URL")
            .map(|url: Url| url.as_str().trim_end_matches('/').to_owned());
        let key = values.secret_list("OPS_API_KEY").into_iter().next();
        if key
            .as_ref()
            .is_some_and(|key| !key.expose().bytes().all(|byte| byte.is_ascii_graphic()))
        {
            values.refuse(
                "OPS_API_KEY",
                "has letters that no header can bear: set it to printable ASCII",
            );
        }
        values.finish(Access {
            url: url.unwrap_or_default(),
            key: key.unwrap_or_default(),
        })
    }

    /// The control plane, where OPS_URL names one.
    pub(crate) fn given_access(&self) -> Result<Option<Access>, SettingsError> {
        if self.values_with(GIVEN).is_set("OPS_URL") {
            self.access().map(Some)
        } else {
            Ok(None)
        }
    }

    /// What a load test must keep to where no flag says otherwise.
    pub(crate) fn load_test_limits(&self) -> Result<Limits, SettingsError> {
        let mut values = self.values();
        let limits = Limits {
            total_p95_ms: values.integer("LOAD_TEST_MAX_TOTAL_P95_MS"),
            wait_p95_ms: values.integer("LOAD_TEST_MAX_WAIT_P95_MS"),
            temporary_bytes: values.integer("LOAD_TEST_MAX_TEMPORARY_BYTES"),
            temporary_files: values.integer("LOAD_TEST_MAX_TEMPORARY_FILES"),
        };
        values.finish(limits)
    }

    pub(crate) fn database_url(&self) -> Result<Secret, SettingsError> {
        let mut values = self.values();
        let url = values.database_url("DATABASE_URL");
        values.finish(url)
    }

    pub(crate) fn pooler(&self) -> Result<service::Pooler, SettingsError> {
        let mut values = self.values();
        let pooler = service::Pooler::read(&mut values);
        values.finish(pooler)
    }

    /// Backups and restores: the database past any pooler, the folder, and where files of jobs are.
    pub(crate) fn backups(&self) -> Result<Backups, SettingsError> {
        let mut values = self.values();
        let url = values.database_url("DATABASE_URL");
        let direct = values.optional_database_url("DATABASE_DIRECT_URL");
        if service::Pooler::read(&mut values) == service::Pooler::Transaction && direct.is_none() {
            values.refuse(
                "DATABASE_DIRECT_URL",
                "is needed beside DATABASE_POOLER=transaction: dumps and restores need a session of their own",
            );
        }
        let backups = Backups {
            url: direct.unwrap_or(url),
            folder: values
                .path("BACKUP_DIR")
                .unwrap_or_else(|| PathBuf::from("backups")),
            retention_days: values.integer("BACKUP_RETENTION_DAYS"),
            files: control_plane::place_of(&service::settings::ArtifactStore::read(&mut values)),
            path: values.path("PATH").map(PathBuf::into_os_string),
        };
        values.finish(backups)
    }

    pub(crate) fn optional_database_url(&self) -> Result<Option<Secret>, SettingsError> {
        if self.values().is_set("DATABASE_URL") {
            self.database_url().map(Some)
        } else {
            Ok(None)
        }
    }

    /// What webhooks are signed with, where it is set.
    pub(crate) fn webhook_signing_keys(&self) -> Result<Vec<Secret>, SettingsError> {
        let mut values = self.values();
        let keys = values.secret_list("WEBHOOK_SIGNING_KEY");
        values.finish(keys)
    }

    /// Where outcomes are published, and with what; `None` with NOTION_ENABLED off.
    pub(crate) fn notion(&self) -> Result<Option<service::NotionSettings>, SettingsError> {
        // What else is missing here is not asked for.
        let (app_env, flags) = {
            let mut values = self.values();
            let shared = service::SharedSettings::read(&mut values);
            (shared.app_env, shared.flags)
        };
        let mut values = self.values();
        let notion = service::NotionSettings::read(&mut values, app_env, flags);
        values.finish(notion)
    }

    /// What the services of `opsctl dev` are told of Notion: what is set here, where a token and a database are.
    pub(crate) fn notion_of_dev(&self) -> Result<Vec<(&'static str, String)>, SettingsError> {
        let mut values = self.values();
        let token = values.optional_secret("NOTION_TOKEN");
        let database = values.optional_text("NOTION_DATABASE_ID");
        let url = values.optional_url("NOTION_API_URL");
        let pairs = match (token, database) {
            (Some(token), Some(database)) => vec![
                ("NOTION_ENABLED", "1".to_owned()),
                ("NOTION_TOKEN", token.expose().to_owned()),
                ("NOTION_DATABASE_ID", database),
                ("NOTION_API_URL", url.map(String::from).unwrap_or_default()),
            ],
            (Some(_) | None, None) | (None, Some(_)) => Vec::new(),
        };
        values.finish(pairs)
    }

    /// The control plane's own key, for what is derived from it.
    pub(crate) fn secret_key(&self) -> Result<Secret, SettingsError> {
        let mut values = self.values();
        let key = values.secret("SECRET_KEY");
        values.finish(key)
    }

    pub(crate) fn surroundings(&self) -> Result<Surroundings, SettingsError> {
        let mut values = self.values();
        let surroundings = Surroundings {
            home: values.path("HOME"),
            xdg_state_home: values.path("XDG_STATE_HOME"),
            temp_dir: values
                .path("TMPDIR")
                .unwrap_or_else(|| PathBuf::from("/tmp")),
            path: values.path("PATH").map(PathBuf::into_os_string),
        };
        values.finish(surroundings)
    }

    pub(crate) fn handed_on(&self) -> Result<HandedOn, SettingsError> {
        let mut values = self.values();
        let texts = ["LANG", "TZ"].map(|name| (name, values.optional_text(name)));
        let paths = ["PATH", "HOME", "TMPDIR"].map(|name| {
            (
                name,
                values
                    .path(name)
                    .and_then(|path| path.into_os_string().into_string().ok()),
            )
        });
        let set = texts
            .into_iter()
            .chain(paths)
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let handed_on = HandedOn(set.collect());
        values.finish(handed_on)
    }

    /// How much the services of `opsctl dev` log.
    pub(crate) fn log(&self) -> Result<LogSettings, SettingsError> {
        let mut values = self.values();
        let log = LogSettings::read(&mut values);
        values.finish(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::new(None, Environment::from_pairs(pairs.iter().copied()))
    }

    #[test]
    fn the_first_of_several_keys_is_used_and_the_address_has_a_default() {
        let access = settings(&[("OPS_API_KEY", "first, second")])
            .access()
            .expect("right");
        assert_eq!(
            (access.url.as_str(), access.key.expose()),
            ("http://127.0.0.1:8000", "first")
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_told_at_once_and_without_its_value() {
        let error = settings(&[("OPS_URL", "canary")])
            .access()
            .expect_err("wrong")
            .to_string();
        assert!(
            error.contains("OPS_URL") && error.contains("OPS_API_KEY"),
            "{error}"
        );
        let error = settings(&[("OPS_API_KEY", "canary\u{e9}")])
            .access()
            .expect_err("wrong")
            .to_string();
        assert!(!error.contains("canary"), "{error}");
        assert!(settings(&[]).database_url().is_err());
    }

    #[test]
    fn only_an_address_that_was_given_is_a_stack_to_take() {
        assert!(settings(&[]).given_access().expect("right").is_none());
        let given = settings(&[("OPS_URL", "http://h:1"), ("OPS_API_KEY", "k")]);
        let given = given.given_access().expect("right").expect("given");
        assert_eq!(given.url, "http://h:1");
        assert!(
            settings(&[("OPS_URL", "http://h:1")])
                .given_access()
                .is_err()
        );
    }

    #[test]
    fn a_command_needs_only_its_own_settings() {
        assert!(settings(&[]).access().is_err());
        assert!(settings(&[]).screen(Output::Text, Color::Auto).is_ok());
        assert!(
            settings(&[])
                .optional_database_url()
                .expect("right")
                .is_none()
        );
    }
}
