//! Waiting for a job's end by asking again and again. A control plane that is away for a while is waited for, too.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::show;
use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::screen::Screen;

/// How often is asked at first, and at most as rarely.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A control plane that does not answer for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until the job has ended, shows it, and says whether it succeeded.
pub(super) async fn until_it_ends(
    recorded: &Value,
    control_plane: &ControlPlane,
    screen: &Screen,
) -> Result<Exit, Error> {
    let job = telling(recorded, control_plane, screen, |_| {}).await?;
    show::job(&job, screen);
    Ok(if status(&job) == "succeeded" {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

/// Asks until the job has ended, and shows each answer to whoever wants to see it.
pub(crate) async fn telling(
    recorded: &Value,
    control_plane: &ControlPlane,
    screen: &Screen,
    mut tell: impl FnMut(&Value),
) -> Result<Value, Error> {
    let id = recorded
        .get("id")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    screen.say(&format!("waiting for job {id}"));
    let mut job = recorded.clone();
    let mut pause = PAUSES.0;
    let mut answered = Instant::now();
    while !has_ended(&job) {
        sleep(pause).await;
        pause = (pause * 3 / 2).min(PAUSES.1);
        match control_plane.get(&format!("/jobs/{id}"), &[]).await {
            Ok(now) => (job, answered) = (now, Instant::now()),
            Err(error) if error.exit() == Exit::Unavailable && answered.elapsed() < PATIENCE => {}
            Err(error) => return Err(error),
        }
        tell(&job);
    }
    Ok(job)
}

/// Whether nothing will happen to the job any more.
pub(crate) fn has_ended(job: &Value) -> bool {
    matches!(status(job), "succeeded" | "failed" | "aborted")
}

pub(crate) fn status(job: &Value) -> &str {
    job.get("status")
        .and_then(Value::as_str)
        .unwrap_or_default()
}
