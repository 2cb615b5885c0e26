//! The folder of one boot, with a folder for each run in it. Held by a lock that the system frees at our death, so that the
//! next boot knows which folders nobody holds: it kills what still runs there, and removes them.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobs::LeaseKey;

use crate::config::{AfterRun, Folders};
use crate::process::sweep;
use crate::run_folder::{RunFolder, private_file, remove};

/// The name of a boot's folder begins so.
const BOOT: &str = "ops-runner-";
/// While it is made it has this name, so that nobody takes it for a dead one.
const UNBORN: &str = ".new-ops-runner-";
const LOCK: &str = "lock";
/// How long what a dead boot left running is killed.
const SWEEP: Duration = Duration::from_secs(2);

/// Where the runs of this boot have their folders.
#[derive(Debug)]
pub(crate) struct WorkDir {
    path: PathBuf,
    after_run: AfterRun,
    _lock: Option<File>,
}

impl WorkDir {
    /// Clears away dead boots and makes the folder of this one.
    pub(crate) fn prepare(folders: &Folders) -> io::Result<Self> {
        let outer = folders.work.as_ref().unwrap_or(&folders.temporary);
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(outer)?;
        let outer = std::path::absolute(outer)?;
        clear(&outer);
        let boot = service::ids::random_hex::<8>();
        let unborn = outer.join(format!("{UNBORN}{boot}"));
        let path = outer.join(format!("{BOOT}{boot}"));
        DirBuilder::new().mode(0o700).create(&unborn)?;
        let lock = match folders.after_run {
            AfterRun::Remove => {
                let lock = private_file(&unborn.join(LOCK))?;
                lock.try_lock()?;
                Some(lock)
            }
            // Without a lock it is nobody's to remove.
            AfterRun::Keep => None,
        };
        fs::rename(&unborn, &path)?;
        Ok(Self {
            path,
            after_run: folders.after_run,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder of one run.
    pub(crate) fn run_folder(&self, key: LeaseKey) -> io::Result<RunFolder> {
        let path = self.path.join(format!("{}-{}", key.job_id, key.fence));
        RunFolder::make(path, self.after_run)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if self.after_run == AfterRun::Remove {
            remove(&self.path);
        }
    }
}

/// Kills and removes what dead boots left in a folder.
fn clear(outer: &Path) {
    let Ok(entries) = fs::read_dir(outer) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let is_boot = entry.file_name().to_string_lossy().starts_with(BOOT);
        if !is_boot {
            continue;
        }
        let path = entry.path();
        if let Some(_lock) = lock_of_the_dead(&path) {
            let left = sweep(None, &path, SWEEP);
            tracing::warn!(event = "dead_boot_cleared", folder = %path.display(), left);
            remove(&path);
        }
    }
}

/// The lock of a folder that is ours and that nobody holds. In /tmp anybody may make a folder of that name.
fn lock_of_the_dead(path: &Path) -> Option<File> {
    let found = fs::symlink_metadata(path).ok()?;
    let is_ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
    if !is_ours {
        return None;
    }
    let lock = File::open(path.join(LOCK)).ok()?;
    match lock.try_lock() {
        Ok(()) => Some(lock),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(outer: &Path, after_run: AfterRun) -> Folders {
        Folders {
            work: Some(outer.to_owned()),
            temporary: PathBuf::new(),
            after_run,
        }
    }

    fn names(outer: &Path) -> usize {
        fs::read_dir(outer).expect("a folder").count()
    }

    #[test]
    fn a_boot_clears_the_dead_away_and_leaves_the_living_and_the_kept_alone() {
        let outer = tempfile::tempdir().expect("a folder");
        let dead = outer.path().join("ops-runner-dead");
        fs::create_dir_all(dead.join("run/artifacts")).expect("made");
        fs::write(dead.join(LOCK), "").expect("written");
        let living = WorkDir::prepare(&folders(outer.path(), AfterRun::Remove)).expect("made");
        let kept = WorkDir::prepare(&folders(outer.path(), AfterRun::Keep)).expect("made");
        let next = WorkDir::prepare(&folders(outer.path(), AfterRun::Remove)).expect("made");
        assert!(!dead.exists());
        let kept_path = kept.path().to_owned();
        for boot in [living, kept, next] {
            assert!(boot.path().exists());
            drop(boot);
        }
        assert!(kept_path.exists());
        assert_eq!(names(outer.path()), 1);
    }
}
