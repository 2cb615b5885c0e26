//! The Notion database that finished jobs are published to, asked from here with the token that is set here. Publishes nothing.

use ::notion::Publisher;

use super::{Came, Finding};
use crate::settings::Settings;

/// Nothing, where `NOTION_ENABLED` is off here.
pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    let came = match settings.notion() {
        Ok(None) => return Vec::new(),
        Ok(Some(notion)) => match Publisher::look(notion).await {
            Ok(()) => Came::Right("the token is accepted, and no property is missing".to_owned()),
            Err(error) => Came::Wrong(error),
        },
        Err(error) => Came::Wrong(error.to_string().replace('\n', " ")),
    };
    vec![Finding::new("Notion", came)]
}
