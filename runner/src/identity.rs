//! One process at a time bears a RUNNER_ID. A lock file in the work folder tells at once that the start before this one
//! is over; without it, only its silence in the database does. Runs no job.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobs::Admission;
use service::Readiness;
use uuid::Uuid;

use crate::app::App;
use crate::error::StartError;
use crate::housekeeping::report_every;
use crate::late_outcomes;

/// How often the database is asked whether the other process is still heard of.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A connection may die without a word.
const PATIENCE: Duration = Duration::from_secs(10);

/// Held while this process lives; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub(crate) struct NameLock {
    path: PathBuf,
    _file: File,
    /// The start that held it before, which is over then, and did not end in order.
    pub(crate) dead: Option<Uuid>,
}

impl NameLock {
    /// Takes the lock of a runner's name in a folder, or gives `None` where another process holds it.
    pub(crate) fn take(folder: &Path, runner_id: &str, boot_id: Uuid) -> io::Result<Option<Self>> {
        let name = runner_id.replace('%', "%25").replace('/', "%2F");
        let path = folder.join(format!(".{name}.lock"));
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
            // Whoever held it may have removed the file meanwhile: a lock on what nobody finds is none.
            if !is_at(&file, &path)? {
                continue;
            }
            let mut text = String::new();
            // What is no id, as after a full disk, names no start.
            let _ = (&mut file).take(64).read_to_string(&mut text);
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(boot_id.to_string().as_bytes())?;
            return Ok(Some(Self {
                path,
                _file: file,
                dead: text.trim().parse().ok(),
            }));
        }
    }

    /// Lets go of the name in order: nothing of this start is left that a later one would have to know.
    pub(crate) fn release(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(event = "lock_not_removed", file = %self.path.display(), %error);
        }
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok(found.dev() == held.dev() && found.ino() == held.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// How a single try to be admitted ended.
enum Try {
    Admitted,
    Occupied(Occupant),
    NotYet,
}

/// Another start under this name, and when it was last heard of.
#[derive(PartialEq)]
struct Occupant(Uuid, String);

/// Tries once, where the database is there; otherwise [`admit`] does it in its own time.
pub(crate) async fn admit_at_once(app: &App, dead: Option<Uuid>) {
    if matches!(app.database_readiness().await, Readiness::Ready) {
        try_once(app, dead).await;
    }
}

/// Waits until this start bears its runner's name, and takes back what earlier starts were running.
///
/// # Errors
/// [`StartError::NameTaken`] when another process under this name is heard of.
pub(crate) async fn admit(app: &App, dead: Option<Uuid>) -> Result<(), StartError> {
    let mut known: Option<Occupant> = None;
    while !app.is_admitted() {
        if matches!(app.database_readiness().await, Readiness::Ready) {
            match try_once(app, dead).await {
                Try::Admitted => return Ok(()),
                Try::NotYet => {}
                Try::Occupied(other) if known.as_ref().is_some_and(|known| *known != other) => {
                    return Err(StartError::NameTaken(app.identity.id.clone()));
                }
                Try::Occupied(other) => {
                    if known.is_none() {
                        tracing::warn!(
                            event = "runner_id_taken",
                            runner_id = app.identity.id,
                            "another process bore this RUNNER_ID a moment ago; waiting to see whether it is alive"
                        );
                    }
                    known = Some(other);
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn try_once(app: &App, dead: Option<Uuid>) -> Try {
    let silence = 3 * report_every(&app.limits);
    let asked = app.store.admit_runner(app.own_report(), dead, silence);
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(Admission::Admitted)) => {
            late_outcomes::hand_in_first(app).await;
            take_over(app).await;
            app.admit();
            Try::Admitted
        }
        Ok(Ok(Admission::Taken {
            boot_id,
            last_seen_at,
        })) => Try::Occupied(Occupant(boot_id, last_seen_at.to_string())),
        Ok(Err(error)) => {
            tracing::warn!(event = "not_admitted", %error);
            Try::NotYet
        }
        Err(_) => Try::NotYet,
    }
}

/// What cannot be taken back now comes back by its leases.
async fn take_over(app: &App) {
    match tokio::time::timeout(PATIENCE, app.store.take_over(&app.identity)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(recovered)) => tracing::info!(
            event = "taken_over",
            recovered,
            "jobs of this runner's earlier starts"
        ),
        Ok(Err(error)) => tracing::warn!(event = "not_taken_over", %error),
        Err(_) => tracing::warn!(event = "not_taken_over", "the database did not answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(folder: &Path, boot: u128) -> Option<NameLock> {
        NameLock::take(folder, "a/b", Uuid::from_u128(boot)).expect("an answer")
    }

    #[test]
    fn one_at_a_time_holds_a_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = take(folder.path(), 1).expect("the lock");
        assert_eq!(first.dead, None);
        assert!(take(folder.path(), 2).is_none());
        let other = NameLock::take(folder.path(), "b", Uuid::nil()).expect("an answer");
        assert!(other.is_some(), "another name is free");
    }

    #[test]
    fn a_start_knows_of_one_that_did_not_end_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(take(folder.path(), 1));
        let second = take(folder.path(), 2).expect("free again");
        assert_eq!(second.dead, Some(Uuid::from_u128(1)));
        second.release();
        assert_eq!(take(folder.path(), 3).expect("free again").dead, None);
    }
}
