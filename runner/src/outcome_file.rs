//! Outcomes on disk until the database has them, so that neither a long outage nor the runner's own end loses what was
//! done. Only a `RUNNER_WORK_DIR` lasts long enough to be worth it. Decides nothing about jobs.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jobs::{LeaseKey, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

const PREFIX: &str = "outcome-";
const SUFFIX: &str = ".json";

/// The folder where outcomes wait; `None` inside: they are not kept.
#[derive(Clone, Debug)]
pub(crate) struct Outcomes {
    folder: Option<PathBuf>,
}

/// An outcome that an earlier life of the runner could not hand in.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) key: LeaseKey,
    pub(crate) runner_id: String,
    pub(crate) outcome: Outcome,
}

#[derive(Serialize, Deserialize)]
struct Written {
    job_id: Uuid,
    fence: i64,
    attempt: i32,
    runner_id: String,
    outcome: Word,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Succeeded(Value),
    Retry(String),
    Failed(String),
    Aborted,
}

impl Word {
    /// What was handed back has no outcome to lose.
    fn of(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Succeeded(result) => Some(Self::Succeeded(result.clone())),
            Outcome::Retry(why) => Some(Self::Retry(why.clone())),
            Outcome::Failed(why) => Some(Self::Failed(why.clone())),
            Outcome::Aborted => Some(Self::Aborted),
            Outcome::Released => None,
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            Self::Succeeded(result) => Outcome::Succeeded(result),
            Self::Retry(why) => Outcome::Retry(why),
            Self::Failed(why) => Outcome::Failed(why),
            Self::Aborted => Outcome::Aborted,
        }
    }
}

impl Outcomes {
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// Writes the outcome, for good: it is there after a loss of power too.
    pub(crate) async fn keep(&self, key: LeaseKey, runner_id: &str, outcome: &Outcome) {
        let (Some(folder), Some(outcome)) = (self.folder.clone(), Word::of(outcome)) else {
            return;
        };
        let written = Written {
            job_id: key.job_id,
            fence: key.fence,
            attempt: key.attempt,
            runner_id: runner_id.to_owned(),
            outcome,
        };
        let kept = tokio::task::spawn_blocking(move || write(&folder, &written)).await;
        if let Err(error) = kept.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())) {
            tracing::warn!(event = "outcome_not_kept", job_id = %key.job_id, %error);
        }
    }

    /// Takes the outcome away: the database has it, or will never take it.
    pub(crate) fn forget(&self, key: LeaseKey) {
        let Some(folder) = &self.folder else { return };
        match std::fs::remove_file(path(folder, key.job_id, key.fence)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(event = "outcome_not_removed", job_id = %key.job_id, %error);
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// What is still to be handed in.
    pub(crate) fn left(&self) -> Vec<Kept> {
        let Some(folder) = &self.folder else {
            return Vec::new();
        };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
            .filter_map(|name| read(&folder.join(name)))
            .collect()
    }
}

fn path(folder: &Path, job_id: Uuid, fence: i64) -> PathBuf {
    folder.join(format!("{PREFIX}{job_id}-{fence}{SUFFIX}"))
}

fn write(folder: &Path, written: &Written) -> io::Result<()> {
    let finished = path(folder, written.job_id, written.fence);
    let draft = finished.with_extension("draft");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(&serde_json::to_vec(written)?)?;
    file.sync_all()?;
    std::fs::rename(&draft, &finished)?;
    File::open(folder)?.sync_all()
}

fn read(path: &Path) -> Option<Kept> {
    let read = std::fs::read(path).and_then(|text| Ok(serde_json::from_slice::<Written>(&text)?));
    match read {
        Ok(written) => Some(Kept {
            key: LeaseKey {
                job_id: written.job_id,
                fence: written.fence,
                attempt: written.attempt,
            },
            runner_id: written.runner_id,
            outcome: written.outcome.outcome(),
        }),
        Err(error) => {
            tracing::error!(event = "outcome_unreadable", file = %path.display(), %error);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn key(fence: i64) -> LeaseKey {
        LeaseKey {
            job_id: Uuid::from_u128(7),
            fence,
            attempt: 2,
        }
    }

    #[tokio::test]
    async fn an_outcome_is_there_until_it_is_forgotten_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let outcomes = Outcomes::new(Some(folder.path().to_path_buf()));
        let kinds = [
            Outcome::Succeeded(serde_json::json!({"a": 1})),
            Outcome::Retry("later".to_owned()),
            Outcome::Failed("no".to_owned()),
            Outcome::Aborted,
        ];
        for (fence, outcome) in (1..).zip(&kinds) {
            outcomes.keep(key(fence), "r", outcome).await;
        }
        let file = path(folder.path(), key(1).job_id, 1);
        let mode = file.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut left = outcomes.left();
        left.sort_by_key(|kept| kept.key.fence);
        let found: Vec<_> = left.iter().map(|kept| kept.outcome.clone()).collect();
        assert_eq!(found, kinds);
        assert_eq!((left[0].key, left[0].runner_id.as_str()), (key(1), "r"));
        (1..=4).for_each(|fence| outcomes.forget(key(fence)));
        assert!(outcomes.left().is_empty());
    }

    #[tokio::test]
    async fn what_was_handed_back_and_what_is_half_written_is_nothing_to_offer() {
        let folder = tempfile::tempdir().expect("a folder");
        let outcomes = Outcomes::new(Some(folder.path().to_path_buf()));
        outcomes.keep(key(1), "r", &Outcome::Released).await;
        std::fs::write(folder.path().join("outcome-x.draft"), "{").expect("written");
        std::fs::write(folder.path().join("outcome-y.json"), "{").expect("written");
        assert!(outcomes.left().is_empty());
    }
}
