//! `opsctl meta`: what the control plane is.

use serde_json::Value;

use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::jobs::cell;
use crate::screen::{Output, Screen, harmless};
use crate::settings::Settings;

pub(crate) async fn meta(settings: &Settings, screen: &Screen) -> Result<Exit, Error> {
    let answer = ControlPlane::new(settings.access()?)?
        .get("/meta", &[])
        .await?;
    match screen.output() {
        Output::Json => screen.json(&answer),
        Output::Text => {
            for (name, value) in answer.as_object().into_iter().flatten() {
                match value {
                    Value::Object(members) => {
                        for (member, value) in members {
                            screen.line(&format!(
                                "{:<40} {}",
                                format!("{name}.{member}"),
                                harmless(&cell(value))
                            ));
                        }
                    }
                    _ => screen.line(&format!("{name:<40} {}", harmless(&cell(value)))),
                }
            }
        }
    }
    Ok(Exit::Ok)
}
