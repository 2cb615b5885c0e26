//! Publishes outcomes to Notion, beside everything else: a Notion that is slow or away delays no job and no housekeeping.

use std::sync::Arc;
use std::time::Duration;

use notion::Publisher;

use crate::app::App;

/// How often it looks by itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Publishes what is due, one outcome after another, until the runner stops, and ends once what is under way has ended. It may
/// be cut off at any point: what was not recorded is looked for, and written again. A runner that never looks for work by
/// itself publishes when it is told to.
pub(crate) async fn publish(app: Arc<App>) {
    let Some(publisher) = &app.notion else {
        return app.stop.requested().await;
    };
    app.until_ready().await;
    let actor = format!("sweep:{}", app.identity.id);
    let looks = app.limits.poll_interval.is_some();
    let mut look_now = looks;
    loop {
        if look_now && !app.stop.is_requested() {
            look_now = match publisher.round(&actor, Publisher::LONGEST).await {
                Ok(round) => round.found_work(),
                Err(error) => {
                    tracing::warn!(event = "notion_not_reached", %error);
                    false
                }
            };
        }
        if look_now && !app.stop.is_requested() {
            continue;
        }
        tokio::select! {
            () = app.stop.requested() => return,
            () = app.publish.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY), if looks => {}
        }
        look_now = true;
    }
}
