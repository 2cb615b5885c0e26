//! Seals the histories of jobs that have ended, beside everything else: however many there are, no lost job waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::app::App;

/// How often it looks by itself, and how much later where it could not seal.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// So long it goes on before it looks whether it is told to.
const BUDGET: Duration = Duration::from_secs(5);
/// A connection may die without a word. The longest history takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// So much later a runner seals while jobs wait for its slots: the database is theirs.
const LATER: Duration = Duration::from_secs(30);

/// Seals what is due until it is cut off, which is safe at any point: a page is sealed or not. A runner that never looks for work
/// by itself seals when it is told to.
pub(crate) async fn seal(app: Arc<App>) {
    app.until_ready().await;
    let actor = format!("sweep:{}", app.identity.id);
    let looks = app.limits.poll_interval.is_some();
    let later = || {
        if app.backlog.may_wait() && app.slots.used() > 0 {
            LATER
        } else {
            Duration::ZERO
        }
    };
    loop {
        tokio::select! {
            () = app.seal.notified() => {}
            () = sleep(LOOK_EVERY), if looks => {}
        }
        let failed = match timeout(PATIENCE, app.store.seal(&actor, BUDGET, later)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the database did not answer".to_owned(),
        };
        tracing::warn!(event = "seal_failed", error = failed);
        sleep(LOOK_AGAIN).await;
    }
}
