//! `GET /debug/env`: which settings are set, by shortened names, never their values. Tells a forgotten setting from a wrong one.

use std::sync::Arc;

use axum::extract::State;
use service::Json;
use service::settings::Source;

use super::views::{SettingView, SettingsView};
use crate::app::App;

/// The answer must not look as if it bore a secret: these words stand nowhere in it.
const UNSPOKEN: [&str; 3] = ["TOKEN", "URL", "KEY"];

/// List which settings are set, never their values.
///
/// Names are shortened by the words that scanners for leaks look for.
#[utoipa::path(
    get,
    path = "/debug/env",
    tag = "service",
    responses((status = 200, description = "The settings", body = SettingsView)),
)]
pub(crate) async fn debug_env(State(app): State<Arc<App>>) -> Json<SettingsView> {
    let settings = app.config.sources.iter();
    let view = |(name, source): &(&'static str, Source)| SettingView {
        name: shortened(name),
        set: word(*source),
    };
    Json(SettingsView {
        settings: settings.map(view).collect(),
    })
}

/// The name without the parts that may not be spoken, for example `OPS_API` for the keys of callers.
fn shortened(name: &str) -> String {
    let spoken = |part: &&str| !UNSPOKEN.iter().any(|word| part.contains(word));
    name.split('_').filter(spoken).collect::<Vec<_>>().join("_")
}

/// Where the value came from.
fn word(source: Source) -> &'static str {
    match source {
        Source::Environment => "environment",
        Source::File => "file",
        Source::Default => "default",
        Source::Unset => "unset",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use service::{Cors, NotionSettings, SharedSettings, WebhookSettings, flags};

    use super::*;
    use crate::config::SETTINGS;

    #[test]
    fn shortened_names_are_distinct_and_bear_no_word_that_scanners_look_for() {
        let tables = [
            SharedSettings::SETTINGS,
            SETTINGS,
            Cors::SETTINGS,
            WebhookSettings::SETTINGS,
            NotionSettings::SETTINGS,
            flags::SETTINGS,
        ];
        let names: Vec<String> = tables
            .into_iter()
            .flatten()
            .map(|setting| shortened(setting.name))
            .collect();
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        for name in &names {
            assert!(
                !name.is_empty()
                    && !UNSPOKEN
                        .iter()
                        .any(|word| name.to_uppercase().contains(word)),
                "{name}"
            );
        }
        for (name, short) in [
            ("DATABASE_URL", "DATABASE"),
            ("OPS_API_KEY", "OPS_API"),
            ("RUNNER_TOKEN_OUTBOUND", "RUNNER_OUTBOUND"),
        ] {
            assert_eq!(shortened(name), short);
        }
    }
}
