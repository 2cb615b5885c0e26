//! `opsctl keys`: makes keys here, has the control plane keep digests of them, lists and revokes those. A key that is made
//! is written to standard output once, and sent nowhere.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use service::ids::random_hex;
use service::{KeyDigest, Scope, Secret, auth};

use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::jobs::rows;
use crate::screen::{Output, Screen};
use crate::settings::Settings;
use crate::table::table;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a key: with --scope one that the control plane keeps a digest of, else one for a program's settings
    New(New),
    /// List the keys that the control plane keeps digests of
    List,
    /// Revoke such a key for good
    Revoke {
        /// What events name it by, for example key:ba7816bf
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct New {
    /// What it opens: read, enqueue, operate or admin; each also what those before it do
    #[arg(long, requires = "name", conflicts_with = "setting")]
    scope: Option<Scope>,
    /// Who or what bears it
    #[arg(long, requires = "scope")]
    name: Option<String>,
    /// It opens nothing any more after so many days
    #[arg(long, value_name = "DAYS", requires = "scope", value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_in_days: Option<u32>,
    /// Without --scope: the setting that it is for
    #[arg(
        long = "for",
        value_enum,
        default_value = "ops-api-key",
        value_name = "SETTING"
    )]
    setting: Setting,
}

/// A setting that takes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Setting {
    /// OPS_API_KEY
    OpsApiKey,
    /// RUNNER_TOKEN and RUNNER_TOKEN_OUTBOUND
    RunnerToken,
    /// SECRET_KEY
    SecretKey,
}

impl Setting {
    fn make(self) -> Secret {
        let prefix = match self {
            Self::OpsApiKey => "opsk_",
            Self::RunnerToken => "opsr_",
            Self::SecretKey => "",
        };
        Secret::new(format!("{prefix}{}", random_hex::<32>()))
    }

    /// What to do with it, so that no request fails.
    fn advice(self) -> &'static str {
        match self {
            Self::OpsApiKey => {
                "add it to OPS_API_KEY of every control plane (old,new), restart them one by one, hand it to the callers, then take the old one out"
            }
            Self::RunnerToken => {
                "add it to RUNNER_TOKEN of every runner (old,new), restart them one by one, set it as RUNNER_TOKEN_OUTBOUND of the control planes, then take the old one out"
            }
            Self::SecretKey => {
                "set it as SECRET_KEY of every control plane; cursors and links that were signed with the old one are good no more"
            }
        }
    }
}

pub(crate) async fn run(
    command: Command,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    match command {
        Command::New(New {
            scope: Some(scope),
            name,
            expires_in_days,
            ..
        }) => {
            keep(
                scope,
                &name.unwrap_or_default(),
                expires_in_days,
                settings,
                screen,
            )
            .await?;
        }
        Command::New(New { setting, .. }) => {
            let key = setting.make();
            match screen.output() {
                Output::Json => screen.json(&json!({ "key": key.expose() })),
                Output::Text => screen.line(key.expose()),
            }
            screen.say(setting.advice());
        }
        Command::List => {
            let answer = ControlPlane::new(settings.access()?)?
                .get("/keys", &[])
                .await?;
            show(&answer, screen);
        }
        Command::Revoke { id } => {
            let control_plane = ControlPlane::new(settings.access()?)?;
            let answer = control_plane
                .post(&format!("/keys/{id}/revoke"), &json!({}), &[])
                .await?;
            show(&answer, screen);
            screen
                .say("revoked; other copies of the control plane may accept it for 5 seconds more");
        }
    }
    Ok(Exit::Ok)
}

async fn keep(
    scope: Scope,
    name: &str,
    expires_in_days: Option<u32>,
    settings: &Settings,
    screen: &Screen,
) -> Result<(), Error> {
    let control_plane = ControlPlane::new(settings.access()?)?;
    let key = auth::new_key();
    let digest = KeyDigest::of(key.expose());
    let mut request = json!({
        "name": name,
        "scope": scope.as_str(),
        "digest": hexadecimal(digest.as_bytes()),
    });
    if let Some(days) = expires_in_days {
        request["expires_in_seconds"] = json!(u64::from(days) * 86_400);
    }
    let mut kept = control_plane.post("/keys", &request, &[]).await?;
    match screen.output() {
        Output::Json => {
            kept["key"] = json!(key.expose());
            screen.json(&kept);
        }
        Output::Text => screen.line(key.expose()),
    }
    screen.say(&format!(
        "{} ({scope}) is good from now on; it stands nowhere else than here, so keep it now",
        digest.id()
    ));
    Ok(())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn show(answer: &Value, screen: &Screen) {
    if screen.output() == Output::Json {
        return screen.json(answer);
    }
    let list = match answer.get("keys") {
        Some(_) => answer.clone(),
        None => json!({ "keys": [answer] }),
    };
    let members = [
        "id",
        "name",
        "scope",
        "good",
        "last_used_at",
        "expires_at",
        "revoked_at",
        "created_by",
    ];
    let heading = [
        "ID",
        "NAME",
        "SCOPE",
        "GOOD",
        "LAST USED",
        "EXPIRES",
        "REVOKED",
        "MADE BY",
    ];
    table(screen, &heading, &rows(&list, "keys", &members));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_as_anybody_else_writes_it() {
        let digest = KeyDigest::of("abc");
        assert!(hexadecimal(digest.as_bytes()).starts_with("ba7816bf8f01cfea"));
    }

    #[test]
    fn a_key_for_a_setting_is_long_and_new_each_time() {
        for setting in [Setting::OpsApiKey, Setting::RunnerToken, Setting::SecretKey] {
            assert!(setting.make().length() >= 64);
            assert_ne!(setting.make().expose(), setting.make().expose());
        }
    }
}
