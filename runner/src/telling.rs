//! Tells endpoints what happened to jobs, beside everything else: a receiver that is slow delays no job and no housekeeping.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use webhooks::Sender;

use crate::app::App;

/// How often it looks by itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Rounds under way at once: one that waits for a slow receiver keeps the next from nothing.
const MOST_ROUNDS: usize = 8;
/// How often what ended long ago is looked for.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// Sends what is due until the runner stops, and ends once what is under way has ended. It may be cut off at any point: what
/// was not recorded is sent again, under its own id. A runner that never looks for work by itself sends when it is told to.
pub(crate) async fn tell(app: Arc<App>) {
    let Some(sender) = &app.webhooks else {
        return app.stop.requested().await;
    };
    app.until_ready().await;
    let actor = format!("sweep:{}", app.identity.id);
    let looks = app.limits.poll_interval.is_some();
    let mut kept: Option<Instant> = None;
    let mut rounds = FuturesUnordered::new();
    let mut look_now = looks;
    loop {
        if look_now && rounds.len() < MOST_ROUNDS {
            rounds.push(sender.round(&actor, Sender::LONGEST));
        }
        if kept.is_none_or(|at| at.elapsed() >= KEEP_EVERY) {
            kept = Some(Instant::now());
            if let Err(error) = app.store.keep_webhooks().await {
                tracing::warn!(event = "webhooks_not_kept", %error);
            }
        }
        look_now = tokio::select! {
            () = app.stop.requested() => break,
            Some(ended) = rounds.next() => match ended {
                Ok(round) => round.found_work(),
                Err(error) => {
                    tracing::warn!(event = "webhooks_not_sent", %error);
                    false
                }
            },
            () = app.tell.notified() => true,
            () = tokio::time::sleep(LOOK_EVERY), if looks => true,
        };
    }
    while rounds.next().await.is_some() {}
}
