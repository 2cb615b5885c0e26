//! Hands in what an earlier life of this runner did and could not record. The fence decides whether it still counts.

use std::sync::Arc;
use std::time::Duration;

use jobs::{Outcome, StoreError};

use crate::app::App;
use crate::outcome_file::Kept;

const PAUSE: Duration = Duration::from_secs(1);

/// Offers everything that is left, as long as it takes; ends early only when the runner does.
pub(crate) async fn hand_in(app: Arc<App>, left: Vec<Kept>) {
    if left.is_empty() {
        return;
    }
    app.until_ready().await;
    for kept in left {
        while !offered(&app, &kept).await {
            tokio::select! {
                () = app.stop.requested() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        app.outcomes.forget(kept.key);
    }
}

/// Offers everything that is left once, while the claims that it belongs to are still this runner's: before they are taken
/// back. What cannot be settled now waits for [`hand_in`].
pub(crate) async fn hand_in_first(app: &App) {
    for kept in app.outcomes.left() {
        if offered(app, &kept).await {
            app.outcomes.forget(kept.key);
        }
    }
}

/// Whether the matter is settled, one way or the other.
async fn offered(app: &App, kept: &Kept) -> bool {
    let job_id = kept.key.job_id;
    let mut answer = app
        .store
        .offer(kept.key, &kept.runner_id, kept.outcome.clone())
        .await;
    if let (Err(StoreError::Refused(why)), Outcome::Succeeded(_)) = (&answer, &kept.outcome) {
        let failed = Outcome::Failed(format!("result could not be stored: {why}"));
        answer = app.store.offer(kept.key, &kept.runner_id, failed).await;
    }
    match answer {
        Ok(finished) => {
            let status = finished.status.as_str();
            tracing::info!(event = "late_outcome_recorded", %job_id, status);
            true
        }
        Err(error @ StoreError::Unavailable(_)) => {
            tracing::warn!(event = "late_outcome_waits", %job_id, %error);
            false
        }
        Err(error) => {
            tracing::warn!(event = "late_outcome_refused", %job_id, %error);
            true
        }
    }
}
