//! Listens for hints that work has arrived. It claims nothing, and nothing depends on it: without it the runner looks once a
//! poll interval.

use std::sync::Arc;
use std::time::Duration;

use jobs::{Hints, StoreError};
use service::Secret;

use crate::app::App;

/// After a connection was lost, the next is tried so much later.
const PAUSE: Duration = Duration::from_secs(1);

/// Listens until it is cut off, which is safe at any point; through `direct` where the usual address cannot listen.
pub(crate) async fn listen(app: Arc<App>, direct: Option<Secret>) {
    app.until_ready().await;
    let mut told = false;
    loop {
        let listening = app.store.listen(direct.as_ref().map(Secret::expose)).await;
        let lost = match listening {
            Ok(Some(hints)) => {
                tracing::info!(event = "listening");
                told = false;
                pass_on(&app, hints).await
            }
            Ok(None) => {
                tracing::warn!(
                    event = "not_listening",
                    "a pooler lends no session to listen on, so due jobs wait for the next poll: set DATABASE_DIRECT_URL"
                );
                return std::future::pending().await;
            }
            Err(error) => error,
        };
        if !told {
            tracing::warn!(event = "not_listening", error = %lost, "looking once a poll interval meanwhile");
            told = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Rings for each hint until the connection is lost.
async fn pass_on(app: &App, mut hints: Hints) -> StoreError {
    loop {
        // At first too: what came before the connection was there, nobody told.
        app.backlog.work_arrived();
        if let Err(lost) = hints.heard().await {
            return lost;
        }
    }
}
