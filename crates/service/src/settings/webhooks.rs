//! `WEBHOOK_…`: what webhooks are signed with, and what they may reach. Sends nothing.

use super::{AppEnv, Fallback, Kind, Setting, Values};
use crate::egress::Egress;
use crate::secret::Secret;

/// What both services are told of webhooks.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// What secrets of endpoints are derived from, the newest first; empty where nothing is set.
    pub signing_keys: Vec<Secret>,
    /// What may be called.
    pub egress: Egress,
}

/// Shorter keys could be guessed.
const SHORTEST_KEY: usize = 32;

impl WebhookSettings {
    /// The declarations.
    pub const SETTINGS: &'static [Setting] = &[
        Setting::new(
            "WEBHOOK_SIGNING_KEY",
            Kind::SecretList,
            Fallback::Means(
                "control plane: derived from `SECRET_KEY`; runner: it sends no webhooks",
            ),
            "what the secrets of webhooks are derived from; several while it is changed, the newest first; the same for all, and `opsctl webhooks signing-key` tells the one that `SECRET_KEY` gives",
        ),
        Setting::new(
            "WEBHOOK_ALLOW",
            Kind::List,
            Fallback::Unset,
            "what webhooks may reach beside public addresses: addresses, networks like `10.1.0.0/16`, or hosts of a private network",
        ),
    ];

    /// Reads and checks them.
    pub fn read(values: &mut Values, app_env: AppEnv) -> Self {
        let signing_keys = values.secret_list("WEBHOOK_SIGNING_KEY");
        if !app_env.is_development() && signing_keys.iter().any(|key| key.length() < SHORTEST_KEY) {
            values.refuse(
                "WEBHOOK_SIGNING_KEY",
                "is too short: outside dev and test it has at least 32 characters, for example from `openssl rand -hex 32`",
            );
        }
        let allowed = values.list("WEBHOOK_ALLOW");
        let egress = Egress::new(&allowed, app_env.is_development());
        Self {
            signing_keys,
            egress: egress.unwrap_or_else(|why| {
                values.refuse("WEBHOOK_ALLOW", why.to_string());
                Egress::default()
            }),
        }
    }
}
