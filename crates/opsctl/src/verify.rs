//! `opsctl verify`: every row against its events, straight from the database. Mends nothing, and has no SQL.

use jobs::Finding;
use serde_json::json;

use crate::db;
use crate::error::Error;
use crate::exit::Exit;
use crate::screen::{Output, Screen, harmless};
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, screen: &Screen) -> Result<Exit, Error> {
    let store = db::open(settings.database_url()?.expose(), settings.pooler()?)?;
    let mut findings = Vec::new();
    let verified = store
        .verify(|finding: Finding| match screen.output() {
            // People see a finding when it is found; a document wants them all.
            Output::Text => screen.line(&harmless(&finding.to_string())),
            Output::Json => findings.push(finding),
        })
        .await;
    let swept = store.last_sweep().await;
    store.close().await;
    let verified = verified.map_err(Error::database("read the jobs and their events"))?;
    let swept = swept.map_err(Error::database("read when the last sweep was"))?;
    if screen.output() == Output::Json {
        screen.json(&json!({
            "jobs": verified.jobs, "events": verified.events, "seals": verified.seals, "last_sweep": swept,
            "findings": findings,
        }));
    }
    screen.say(&format!(
        "{} jobs, {} events, {} seals: {}",
        verified.jobs,
        verified.events,
        verified.seals,
        match verified.findings {
            0 => "every row is explained by its events".to_owned(),
            1 => "1 finding".to_owned(),
            many => format!("{many} findings"),
        }
    ));
    screen.say(&swept.map_or("no sweep was done yet".to_owned(), |swept| {
        format!(
            "the last sweep was {:.0} s ago, by {}",
            swept.ago_seconds,
            harmless(&swept.actor)
        )
    }));
    Ok(if verified.findings == 0 {
        Exit::Ok
    } else {
        Exit::Failed
    })
}
