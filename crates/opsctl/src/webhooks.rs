//! `opsctl webhooks`: makes, changes and tries endpoints over HTTP, as any other caller does. Secrets are derived here, from
//! the key in the settings: they pass over no line.

mod show;

use ::webhooks::{SigningKeys, derived_signing_key};
use clap::{Args, Subcommand};
use jobs::{Name, WebhookName};
use serde_json::{Map, Value, json};
use service::Secret;
use uuid::Uuid;

use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::screen::Screen;
use crate::settings::Settings;

/// What of an endpoint is its maker's to say, and so what a change sends again.
const TERMS: [&str; 10] = [
    "url",
    "events",
    "job_types",
    "queues",
    "with_payload",
    "with_result",
    "timeout_seconds",
    "give_up_after_seconds",
    "disable_after_seconds",
    "revision",
];

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List endpoints by name, with how they fare
    List {
        /// At most so many
        #[arg(long, value_name = "COUNT")]
        limit: Option<u32>,
        /// Where the page before ended: its next_cursor
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show an endpoint
    Show {
        /// The endpoint
        name: WebhookName,
    },
    /// Make an endpoint, which is told of events of jobs from now on
    Create {
        /// What it is to be called
        name: WebhookName,
        /// Make it switched off
        #[arg(long)]
        disabled: bool,
        #[command(flatten)]
        terms: Terms,
    },
    /// Change an endpoint; what is not said stays as it is
    Update {
        /// The endpoint
        name: WebhookName,
        #[command(flatten)]
        terms: Terms,
    },
    /// Remove an endpoint with its deliveries
    Delete {
        /// The endpoint
        name: WebhookName,
    },
    /// Switch an endpoint on; what still waits for it is sent
    Enable {
        /// The endpoint
        name: WebhookName,
    },
    /// Switch an endpoint off: it is told of nothing that happens meanwhile
    Disable {
        /// The endpoint
        name: WebhookName,
        /// Why; stays with it
        #[arg(long)]
        reason: Option<String>,
    },
    /// Have a trial sent to an endpoint
    Ping {
        /// The endpoint
        name: WebhookName,
    },
    /// Give an endpoint another secret; the old one signs too for a while
    Rotate {
        /// The endpoint
        name: WebhookName,
        /// For so many seconds; a day unless said
        #[arg(long, value_name = "SECONDS")]
        overlap: Option<u32>,
    },
    /// Print the secret of an endpoint, for its receiver; needs SECRET_KEY or WEBHOOK_SIGNING_KEY
    Secret {
        /// The endpoint
        name: WebhookName,
    },
    /// Print the signing key that SECRET_KEY gives: the runners' WEBHOOK_SIGNING_KEY
    SigningKey,
    /// List what was sent to an endpoint, newest first
    Deliveries {
        /// The endpoint
        name: WebhookName,
        /// Only pending, delivered or dead
        #[arg(long)]
        state: Option<String>,
        /// At most so many
        #[arg(long, value_name = "COUNT")]
        limit: Option<u32>,
        /// Where the page before ended: its next_cursor
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show a delivery with what is sent and each attempt
    Delivery {
        /// The endpoint
        name: WebhookName,
        /// The delivery: the webhook-id that the receiver saw
        id: Uuid,
    },
    /// Have a delivery sent again, or without one everything that was given up
    Resend {
        /// The endpoint
        name: WebhookName,
        /// The delivery
        id: Option<Uuid>,
        /// Of what was given up, only events since this instant (RFC 3339)
        #[arg(long, value_name = "INSTANT", conflicts_with = "id")]
        since: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Terms {
    /// Where deliveries are posted
    #[arg(long)]
    url: Option<String>,
    /// A kind of event; may be repeated
    #[arg(long = "event", value_name = "KIND")]
    events: Vec<String>,
    /// Only events of jobs of this type; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    job_types: Vec<Name>,
    /// Only events of jobs of this queue; may be repeated
    #[arg(long = "queue", value_name = "QUEUE")]
    queues: Vec<Name>,
    /// Whether deliveries hold the job's payload
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    with_payload: Option<bool>,
    /// Whether deliveries hold the job's result
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    with_result: Option<bool>,
    /// An attempt may take so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// A delivery is given up after so many seconds
    #[arg(long, value_name = "SECONDS")]
    give_up_after: Option<u32>,
    /// It is disabled after so many seconds without any success
    #[arg(long, value_name = "SECONDS")]
    disable_after: Option<u32>,
}

impl Terms {
    /// What was said, and nothing else, so that the control plane's defaults hold.
    fn said(self) -> Map<String, Value> {
        let some = |list: Vec<Value>| (!list.is_empty()).then_some(Value::Array(list));
        let names = |names: Vec<Name>| {
            let names = names.into_iter();
            some(names.map(|name| String::from(name).into()).collect())
        };
        let fields = [
            ("url", self.url.map(Value::from)),
            (
                "events",
                some(self.events.into_iter().map(Value::from).collect()),
            ),
            ("job_types", names(self.job_types)),
            ("queues", names(self.queues)),
            ("with_payload", self.with_payload.map(Value::from)),
            ("with_result", self.with_result.map(Value::from)),
            ("timeout_seconds", self.timeout.map(Value::from)),
            ("give_up_after_seconds", self.give_up_after.map(Value::from)),
            ("disable_after_seconds", self.disable_after.map(Value::from)),
        ];
        let said = fields.into_iter();
        said.filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect()
    }
}

pub(crate) async fn run(
    command: Command,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    if let Command::SigningKey = command {
        let key = derived_signing_key(&settings.secret_key()?);
        show::secret("signing_key", &key, screen);
        return Ok(Exit::Ok);
    }
    let control_plane = ControlPlane::new(settings.access()?)?;
    match command {
        Command::SigningKey => {}
        Command::List { limit, cursor } => {
            let query = query([
                ("limit", limit.map(|limit| limit.to_string())),
                ("cursor", cursor),
            ]);
            show::page(&control_plane.get("/webhooks", &query).await?, screen);
        }
        Command::Show { name } => {
            show::one(&control_plane.get(&path(&name, ""), &[]).await?, screen);
        }
        Command::Create {
            name,
            disabled,
            terms,
        } => {
            let mut body = terms.said();
            body.insert("name".to_owned(), String::from(name).into());
            if disabled {
                body.insert("enabled".to_owned(), false.into());
            }
            let made = control_plane.post("/webhooks", &body.into(), &[]).await?;
            show::one(&made, screen);
        }
        Command::Update { name, terms } => {
            let path = path(&name, "");
            let mut found = control_plane.get(&path, &[]).await?;
            let kept = TERMS
                .into_iter()
                .filter_map(|term| Some((term.to_owned(), found.get_mut(term)?.take())))
                .filter(|(_, value)| !value.is_null());
            let mut body: Map<String, Value> = kept.collect();
            body.extend(terms.said());
            show::one(&control_plane.put(&path, &body.into()).await?, screen);
        }
        Command::Delete { name } => {
            control_plane.delete(&path(&name, "")).await?;
            screen.say(&format!("webhook {name} is removed"));
        }
        Command::Enable { name } => {
            let path = path(&name, "/enable");
            show::one(&control_plane.post(&path, &json!({}), &[]).await?, screen);
        }
        Command::Disable { name, reason } => {
            let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
            let path = path(&name, "/disable");
            show::one(&control_plane.post(&path, &body, &[]).await?, screen);
        }
        Command::Ping { name } => {
            let path = path(&name, "/ping");
            show::one(&control_plane.post(&path, &json!({}), &[]).await?, screen);
        }
        Command::Rotate { name, overlap } => {
            let body = overlap.map_or_else(|| json!({}), |s| json!({ "overlap_seconds": s }));
            let path = path(&name, "/rotate");
            show::one(&control_plane.post(&path, &body, &[]).await?, screen);
        }
        Command::Secret { name } => {
            let found = control_plane.get(&path(&name, ""), &[]).await?;
            show::secret("secret", &secret(&found, settings)?, screen);
        }
        Command::Deliveries {
            name,
            state,
            limit,
            cursor,
        } => {
            let query = query([
                ("state", state),
                ("limit", limit.map(|limit| limit.to_string())),
                ("cursor", cursor),
            ]);
            let path = path(&name, "/deliveries");
            show::deliveries(&control_plane.get(&path, &query).await?, screen);
        }
        Command::Delivery { name, id } => {
            let path = path(&name, &format!("/deliveries/{id}"));
            show::delivery(&control_plane.get(&path, &[]).await?, screen);
        }
        Command::Resend { name, id, since } => {
            let (path, body) = match id {
                Some(id) => (path(&name, &format!("/deliveries/{id}/resend")), json!({})),
                None => (path(&name, "/resend"), json!({ "since": since })),
            };
            show::one(&control_plane.post(&path, &body, &[]).await?, screen);
        }
    }
    Ok(Exit::Ok)
}

/// The secret of an endpoint, if the key here is the one that it was made with.
fn secret(webhook: &Value, settings: &Settings) -> Result<Secret, Error> {
    let set = SigningKeys::new(settings.webhook_signing_keys()?);
    let keys = match set {
        Some(keys) => keys,
        None => SigningKeys::one(derived_signing_key(&settings.secret_key()?)),
    };
    let id: Option<Uuid> = webhook["id"].as_str().and_then(|id| id.parse().ok());
    let version = webhook["secret_version"].as_i64();
    let (Some(id), Some(version)) = (id, version.and_then(|version| i32::try_from(version).ok()))
    else {
        return Err(Error::Failed(
            "the control plane says nothing of secrets: it is of an older release".to_owned(),
        ));
    };
    match webhook["signing_key_id"].as_str() {
        Some(theirs) if !keys.ids().iter().any(|ours| ours == theirs) => {
            Err(Error::Failed(format!(
                "its deliveries are signed with another key (id {theirs}): set WEBHOOK_SIGNING_KEY, or SECRET_KEY, to what the services have"
            )))
        }
        Some(_) | None => Ok(keys.secret(id, version)),
    }
}

fn path(name: &WebhookName, rest: &str) -> String {
    format!("/webhooks/{name}{rest}")
}

fn query<const N: usize>(
    fields: [(&'static str, Option<String>); N],
) -> Vec<(&'static str, String)> {
    let said = fields.into_iter();
    said.filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use service::Environment;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn what_was_said_is_sent_and_nothing_else() {
        let line = "x create deploys --url https://h/ --event failed --event aborted --type a --with-result --timeout 5";
        let Command::Create { terms, .. } = Line::parse_from(line.split(' ')).command else {
            panic!("it is a creation");
        };
        assert_eq!(
            Value::from(terms.said()),
            json!({
                "url": "https://h/", "events": ["failed", "aborted"], "job_types": ["a"], "with_result": true,
                "timeout_seconds": 5,
            })
        );
        assert!(Line::try_parse_from(["x", "show", "../meta"]).is_err());
    }

    #[test]
    fn a_secret_is_told_only_by_the_key_that_it_comes_from() {
        let settings = |key: &str| {
            let pairs = [("SECRET_KEY", key)];
            Settings::new(None, Environment::from_pairs(pairs))
        };
        let ids = SigningKeys::one(derived_signing_key(&Secret::new("right"))).ids();
        let webhook = json!({
            "id": Uuid::from_u128(7), "secret_version": 1, "signing_key_id": ids[0],
        });
        let told = secret(&webhook, &settings("right")).expect("told");
        assert!(told.expose().starts_with("whsec_"));
        let error = secret(&webhook, &settings("canary")).expect_err("another");
        assert!(!error.to_string().contains("canary"), "{error}");
        assert!(secret(&webhook, &settings("")).is_err());
    }
}
