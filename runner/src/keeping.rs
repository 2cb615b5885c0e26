//! Keeps what an attempt left: finds it, stores it, and says what of it could not be kept. Once its files are whole, the
//! attempt may end; what it cannot keep fails it, so that nothing that succeeded is half there.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use files::{Depot, FileError, Owner, content_type_of};
use jobs::{Outcome, ProgressKind, StoreError};
use serde_json::{Value, json};

use crate::artifacts::{Folder, Found, MOST_FILES};
use crate::context::Context;
use crate::interruption::{Bell, Interruption};
use crate::run_folder::RunFolder;

/// All files of an attempt may have so many times as many bytes as one.
const MOST_TIMES: u64 = 8;
/// So many of those that were left out are named.
const MOST_NAMED: usize = 20;
const PIECE: usize = 256 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What is under way may still end when the runner is to stop: it hands back what has not within so long.
const WHILE_DRAINING: Duration = Duration::from_secs(5);
/// An attempt that has failed waits no longer for a place that is away.
const FOR_A_FAILURE: Duration = Duration::from_secs(60);

/// Why an attempt's files are not all kept.
enum Unkept {
    /// It cannot be had; the text is for the job's error.
    Refused(String),
    /// The lease is another's: whatever is stored never shows.
    Moot,
    /// The attempt has to end before they are.
    Interrupted(Interruption),
}

/// Stores what is in the folder and gives the outcome that the attempt then has.
pub(crate) async fn keep(context: &Context, folder: &Arc<RunFolder>, outcome: Outcome) -> Outcome {
    let keeps = match &outcome {
        Outcome::Succeeded(_) | Outcome::Failed(_) | Outcome::Retry(_) => true,
        Outcome::Aborted | Outcome::Released => false,
    };
    if !keeps {
        return outcome;
    }
    let patience = match &outcome {
        Outcome::Succeeded(_) => None,
        Outcome::Failed(_) | Outcome::Retry(_) | Outcome::Aborted | Outcome::Released => {
            Some(FOR_A_FAILURE)
        }
    };
    match keep_in_time(context, folder, patience).await {
        Ok(()) | Err(Unkept::Moot) => outcome,
        Err(Unkept::Interrupted(why)) => why.outcome(),
        Err(Unkept::Refused(why)) => {
            let data = json!({ "message": "artifacts were not kept", "reason": why });
            context.report(ProgressKind::Warning, data).await;
            match outcome {
                Outcome::Succeeded(_) => {
                    Outcome::Failed(format!("its artifacts could not be kept: {why}"))
                }
                other => other,
            }
        }
    }
}

/// Whoever aborts the job or stops the runner does not wait for a place that is away.
async fn keep_in_time(
    context: &Context,
    folder: &Arc<RunFolder>,
    patience: Option<Duration>,
) -> Result<(), Unkept> {
    let too_late = async {
        match patience {
            Some(patience) => tokio::time::sleep(patience).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        kept = keep_all(context, folder) => kept,
        why = interrupted(&context.bell, context.bell.rung()) => Err(Unkept::Interrupted(why)),
        () = too_late => Err(Unkept::Refused("where they go did not answer in time".to_owned())),
    }
}

/// Ends when the attempt is to end before its files are kept; what ended its handler has been heard already.
async fn interrupted(bell: &Bell, before: Option<Interruption>) -> Interruption {
    if before.is_none() {
        match bell.heard().await {
            Interruption::Aborted => return Interruption::Aborted,
            Interruption::Draining => {
                tokio::time::sleep(WHILE_DRAINING).await;
                return Interruption::Draining;
            }
            // The fence decides whether what is stored shows.
            Interruption::TimedOut(_) | Interruption::LeaseEnding | Interruption::LeaseLost => {}
        }
    }
    std::future::pending().await
}

/// The folder, if anything is in it.
fn left_in(path: &Path) -> io::Result<Option<Folder>> {
    let folder = match Folder::open(path) {
        // Whoever removes it keeps nothing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    Ok(if folder.is_empty()? {
        None
    } else {
        Some(folder)
    })
}

#[expect(clippy::needless_pass_by_value, reason = "errors are mapped by it")]
fn unreadable(error: io::Error) -> Unkept {
    let kind = error.kind();
    Unkept::Refused(format!("the artifacts folder cannot be read: {kind}"))
}

async fn keep_all(context: &Context, run: &Arc<RunFolder>) -> Result<(), Unkept> {
    // Most leave nothing, and that is seen at once; a look through what there is may take its time.
    let Some(folder) = left_in(&run.artifacts()).map_err(unreadable)? else {
        return Ok(());
    };
    let looked = blocking(move || {
        let found = folder.look()?;
        Ok((folder, found))
    });
    let (folder, found) = looked.await.map_err(unreadable)?;
    let folder = Arc::new(folder);
    tell_of_skipped(context, &found).await;
    if found.names.len() > MOST_FILES {
        let count = found.names.len();
        return Err(Unkept::Refused(format!(
            "{count} files are more than {MOST_FILES}: put them into an archive"
        )));
    }
    let mut left = context.limit.saturating_mul(MOST_TIMES);
    for name in &found.names {
        let size = keep_one(context, &folder, name).await?;
        left = left.checked_sub(size).ok_or_else(|| {
            Unkept::Refused(format!(
                "all files together are larger than {MOST_TIMES} times RUNNER_MAX_UPLOAD_BYTES"
            ))
        })?;
    }
    Ok(())
}

/// Stores one file, again and again while the database or the object store is away; gives its size.
async fn keep_one(context: &Context, folder: &Arc<Folder>, name: &str) -> Result<u64, Unkept> {
    let mut pause = FIRST_PAUSE;
    loop {
        let (of_open, path) = (Arc::clone(folder), name.to_owned());
        let file = blocking(move || of_open.file(&path)).await.ok().flatten();
        let Some(file) = file else {
            let data = json!({ "message": "an artifact was left out", "name": name, "reason": "it changed while it was read" });
            context.report(ProgressKind::Warning, data).await;
            return Ok(0);
        };
        let error = match store(context, &context.depot, file, name).await {
            Ok(size) => return Ok(size),
            Err(Failure::Refused(why)) => return Err(Unkept::Refused(why)),
            Err(Failure::Files(error)) => error,
        };
        match error {
            FileError::Store(StoreError::LeaseLost(_)) => return Err(Unkept::Moot),
            error if error.passes() => {
                tracing::warn!(event = "artifact_not_stored", job_id = %context.key.job_id, %error, "trying again");
                tokio::time::sleep(pause).await;
                if is_moot(context) {
                    return Err(Unkept::Moot);
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            error => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(event = "artifact_not_stored", job_id = %context.key.job_id, %error, cause);
                return Err(Unkept::Refused(error.to_string()));
            }
        }
    }
}

enum Failure {
    Refused(String),
    Files(FileError),
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::Files(error)
    }
}

async fn store(context: &Context, depot: &Depot, file: File, name: &str) -> Result<u64, Failure> {
    let owner = Owner::Attempt(context.key);
    let id = service::ids::uuid_v7();
    let mut writer = depot.begin(owner, id, name, content_type_of(name)).await?;
    let mut file = file;
    loop {
        let read = blocking(move || {
            let mut piece = Vec::with_capacity(PIECE);
            (&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
            Ok((file, piece))
        });
        let failure = match read.await {
            Ok((_, piece)) if piece.is_empty() => break,
            Ok((back, piece)) if writer.size() + piece.len() as u64 <= context.limit => {
                file = back;
                match writer.push(&piece).await {
                    Ok(()) if !is_moot(context) => continue,
                    Ok(()) => Failure::Files(StoreError::LeaseLost(context.key.job_id).into()),
                    Err(error) => Failure::Files(error),
                }
            }
            Ok(_) => Failure::Refused(format!(
                "{name} is larger than {} bytes (RUNNER_MAX_UPLOAD_BYTES)",
                context.limit
            )),
            Err(error) => Failure::Refused(format!("{name} cannot be read: {}", error.kind())),
        };
        writer.give_up().await;
        return Err(failure);
    }
    let (_, sum) = writer.finish(0).await?;
    Ok(sum.size)
}

fn is_moot(context: &Context) -> bool {
    matches!(context.bell.rung(), Some(Interruption::LeaseLost))
}

async fn tell_of_skipped(context: &Context, found: &Found) {
    if found.skipped.is_empty() {
        return;
    }
    let named = found.skipped.iter().take(MOST_NAMED);
    let named: Vec<Value> = named
        .map(|(name, why)| json!({ "name": name, "reason": why }))
        .collect();
    let data = json!({
        "message": "some of what is in the artifacts folder is left out",
        "count": found.skipped.len(),
        "skipped": named,
    });
    context.report(ProgressKind::Warning, data).await;
}

/// Work on files, where it keeps nobody waiting.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(std::io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_abort_ends_the_wait_for_a_place_that_is_away_and_what_was_known_before_does_not() {
        let bell = Bell::new();
        assert!(interrupted(&bell, None).now_or_never().is_none());
        bell.ring(Interruption::Aborted);
        assert_eq!(interrupted(&bell, None).await, Interruption::Aborted);
        let rung = bell.rung();
        assert!(
            interrupted(&bell, rung).now_or_never().is_none(),
            "known before"
        );

        let bell = Bell::new();
        bell.ring(Interruption::Draining);
        let draining = interrupted(&bell, None).now_or_never();
        assert!(draining.is_none(), "what is under way may end");

        let bell = Bell::new();
        bell.ring(Interruption::LeaseLost);
        assert!(interrupted(&bell, None).now_or_never().is_none());
    }
}
