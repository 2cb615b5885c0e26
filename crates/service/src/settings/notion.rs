//! `NOTION_…`: where outcomes of jobs are published, and with what. Calls nothing.

use url::Url;
use uuid::Uuid;

use super::{AppEnv, Fallback, Kind, Setting, Values, parse};
use crate::flags::{Flag, Flags};
use crate::secret::Secret;

/// What a program with `NOTION_ENABLED` is told of Notion.
#[derive(Debug, Clone)]
pub struct NotionSettings {
    /// The token of the integration.
    pub token: Secret,
    /// The database, by its id.
    pub database_id: Uuid,
    /// Where the API is.
    pub api_url: Url,
}

const NO_ID: &str = "is no id of a Notion database: set it to the 32 hexadecimal digits, with or without dashes, that stand in the database's address before ?v=";

impl NotionSettings {
    /// The declarations.
    pub const SETTINGS: &'static [Setting] = &[
        Setting::new(
            "NOTION_TOKEN",
            Kind::Secret,
            Fallback::RequiredWhen("with NOTION_ENABLED"),
            "the token of the Notion integration that publishes",
        ),
        Setting::new(
            "NOTION_DATABASE_ID",
            Kind::Text,
            Fallback::RequiredWhen("with NOTION_ENABLED"),
            "the Notion database that finished jobs are published to: 32 hexadecimal digits, with or without dashes; the same for all programs",
        ),
        Setting::new(
            "NOTION_API_URL",
            Kind::Url,
            Fallback::Is("https://api.notion.com"),
            "where Notion's API is; `http://` beyond this machine is refused outside dev and test",
        ),
    ];

    /// Reads and checks them; `None` with the flag off, whatever they are.
    pub fn read(values: &mut Values, app_env: AppEnv, flags: Flags) -> Option<Self> {
        let token = values.optional_secret("NOTION_TOKEN");
        let id = values.optional_text("NOTION_DATABASE_ID");
        let api_url = values.optional_url("NOTION_API_URL");
        if !flags.is_on(Flag::Notion) {
            return None;
        }
        values.require("NOTION_TOKEN");
        values.require("NOTION_DATABASE_ID");
        if token
            .as_ref()
            .is_some_and(|token| !token.expose().bytes().all(|byte| byte.is_ascii_graphic()))
        {
            values.refuse(
                "NOTION_TOKEN",
                "has letters that no header can bear: set it to the token as Notion shows it",
            );
        }
        let database_id = id.as_deref().and_then(database_id);
        if id.is_some() && database_id.is_none() {
            values.refuse("NOTION_DATABASE_ID", NO_ID);
        }
        if let Some(url) = &api_url {
            check_address(values, url, app_env);
        }
        Some(Self {
            token: token?,
            database_id: database_id?,
            api_url: api_url?,
        })
    }
}

fn check_address(values: &mut Values, url: &Url, app_env: AppEnv) {
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        values.refuse(
            "NOTION_API_URL",
            "bears a user, a password or a query: the token goes into NOTION_TOKEN",
        );
    }
    if url.scheme() == "http" && !parse::is_loopback(url) && !app_env.is_development() {
        values.refuse(
            "NOTION_API_URL",
            "would send the token unencrypted: use https:// outside dev and test",
        );
    }
}

/// As Notion itself writes ids, and as its addresses bear them.
fn database_id(text: &str) -> Option<Uuid> {
    let text = text.trim();
    let written = text.len() == 32 || (text.len() == 36 && text.matches('-').count() == 4);
    written.then(|| Uuid::try_parse(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags;
    use crate::settings::{Environment, SettingsError, SharedSettings, Sources};

    const RIGHT: [(&str, &str); 5] = [
        ("APP_ENV", "prod"),
        ("DATABASE_URL", "postgres://u@h/d"),
        ("NOTION_ENABLED", "1"),
        ("NOTION_TOKEN", "ntn_canary"),
        ("NOTION_DATABASE_ID", "0123456789abcdef0123456789abcdef"),
    ];

    fn load(changes: &[(&str, &str)]) -> Result<Option<NotionSettings>, SettingsError> {
        let pairs = RIGHT.into_iter().chain(changes.iter().copied());
        let sources = Sources {
            config: None,
            environment: Environment::from_pairs(pairs),
        };
        let tables = [
            SharedSettings::SETTINGS,
            NotionSettings::SETTINGS,
            flags::SETTINGS,
        ];
        let mut values = Values::load(&tables, &[], sources);
        let shared = SharedSettings::read(&mut values);
        let settings = NotionSettings::read(&mut values, shared.app_env, shared.flags);
        values.finish(settings)
    }

    fn wrong(changes: &[(&str, &str)]) -> Vec<String> {
        let error = load(changes).expect_err("wrong");
        assert!(!error.to_string().contains("canary"), "{error}");
        let names = error.problems.into_iter().map(|problem| problem.name);
        names.collect()
    }

    #[test]
    fn an_id_is_taken_with_dashes_and_without() {
        let plain = load(&[]).expect("right").expect("on");
        let dashed = load(&[("NOTION_DATABASE_ID", "01234567-89AB-cdef-0123-456789abcdef")]);
        assert_eq!(
            dashed.expect("right").expect("on").database_id,
            plain.database_id
        );
        assert_eq!(plain.api_url.as_str(), "https://api.notion.com/");
        assert!(!format!("{plain:?}").contains("canary"));
    }

    #[test]
    fn with_the_flag_on_what_is_missing_or_wrong_is_named_and_with_it_off_nothing_is() {
        let missing = [("NOTION_TOKEN", ""), ("NOTION_DATABASE_ID", "")];
        assert_eq!(wrong(&missing), ["NOTION_TOKEN", "NOTION_DATABASE_ID"]);
        for (name, value) in [
            ("NOTION_DATABASE_ID", "canary"),
            ("NOTION_DATABASE_ID", "0123456789abcdef0123456789abcde"),
            (
                "NOTION_DATABASE_ID",
                "https://www.notion.so/canary/0123456789abcdef0123456789abcdef?v=1",
            ),
            ("NOTION_TOKEN", "canary canary"),
            ("NOTION_API_URL", "http://notion.example"),
            ("NOTION_API_URL", "https://u:canary@notion.example"),
        ] {
            assert_eq!(wrong(&[(name, value)]), [name], "{value}");
        }
        for url in ["http://127.0.0.1:1", "https://notion.example/base/"] {
            assert!(load(&[("NOTION_API_URL", url)]).is_ok(), "{url}");
        }
        let off = [
            ("NOTION_ENABLED", "0"),
            ("NOTION_TOKEN", ""),
            ("NOTION_DATABASE_ID", "nonsense"),
        ];
        assert!(load(&off).expect("right").is_none());
    }
}
