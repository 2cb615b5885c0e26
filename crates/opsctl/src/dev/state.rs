//! The state folder of `opsctl dev`, and the lock that keeps a second one out. The system frees the lock at our death.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::screen::Screen;
use crate::settings::Surroundings;

const LOCK: &str = "dev.lock";

/// A state folder that nobody else uses while this value lives.
#[derive(Debug)]
pub(super) struct State {
    folder: PathBuf,
    _lock: File,
}

impl State {
    /// Opens the folder that was asked for, or the usual one, or says why neither can be used.
    pub(super) fn open(
        asked: Option<&Path>,
        surroundings: &Surroundings,
        screen: &Screen,
    ) -> Result<Self, Error> {
        if let Some(asked) = asked {
            let folder = std::path::absolute(asked).map_err(Error::io("find", asked))?;
            return make_folder(&folder).and_then(|()| Self::lock(folder));
        }
        let uid = rustix::process::geteuid();
        if let Some(usual) = usual_folder(uid.is_root(), surroundings) {
            match make_folder(&usual) {
                Ok(()) => return Self::lock(usual),
                Err(error) => screen.say(&format!(
                    "{}; using a folder for temporary files",
                    crate::error::sentence(&error)
                )),
            }
        }
        let last = surroundings
            .temp_dir
            .join(format!("ops-jobs-{}", uid.as_raw()));
        make_folder(&last)?;
        must_be_ours(&last, uid.as_raw())?;
        Self::lock(last)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn lock(folder: PathBuf) -> Result<Self, Error> {
        let path = folder.join(LOCK);
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(&path).map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Without its number the message still says what to do.
                let _ = file.read_to_string(&mut holder);
                return Err(in_use(&folder, holder.trim()));
            }
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(Error::io("write", &path))?;
        Ok(Self {
            folder,
            _lock: file,
        })
    }
}

fn in_use(folder: &Path, holder: &str) -> Error {
    let folder = folder.display();
    Error::Failed(format!(
        "another opsctl dev (process {holder}) is using {folder}: stop it first, or choose another folder with --state"
    ))
}

fn usual_folder(is_root: bool, surroundings: &Surroundings) -> Option<PathBuf> {
    if is_root {
        // Not below /root: PostgreSQL's user cannot enter it.
        return Some(PathBuf::from("/var/lib/ops-jobs"));
    }
    let absolute = |path: &Option<PathBuf>| path.clone().filter(|path| path.is_absolute());
    let xdg = absolute(&surroundings.xdg_state_home);
    xdg.or_else(|| Some(absolute(&surroundings.home)?.join(".local/state")))
        .map(|path| path.join("ops-jobs"))
}

/// Makes the folder and proves that we may write in it. PostgreSQL's user must be able to enter what is made.
fn make_folder(folder: &Path) -> Result<(), Error> {
    let mut missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|path| !path.exists())
        .collect();
    missing.reverse();
    for path in missing {
        fs::create_dir(path)
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
            .map_err(Error::io("make the state folder", path))?;
    }
    let writable = rustix::fs::access(
        folder,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    );
    writable.map_err(|error| Error::io("write in the state folder", folder)(error.into()))
}

/// A folder among everybody's temporary files might be another user's trap.
fn must_be_ours(folder: &Path, uid: u32) -> Result<(), Error> {
    let found = fs::symlink_metadata(folder).map_err(Error::io("look at", folder))?;
    if found.is_dir() && found.uid() == uid && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    let folder = folder.display();
    Err(Error::Failed(format!(
        "{folder} may belong to somebody else: choose a folder of your own with --state"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(home: &Path) -> Surroundings {
        Surroundings {
            home: Some(home.to_path_buf()),
            xdg_state_home: None,
            temp_dir: home.join("tmp"),
            path: None,
        }
    }

    #[test]
    fn a_state_folder_is_used_by_one_and_free_again_afterwards() {
        let temp = tempfile::tempdir().expect("a folder");
        let (folder, around) = (temp.path().join("a/b"), surroundings(temp.path()));
        let open = || State::open(Some(&folder), &around, &Screen::plain());
        let first = open().expect("opened");
        let error = open().expect_err("in use").to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        assert!(open().is_ok());
    }

    #[test]
    fn the_usual_folder_follows_the_user() {
        let around = |home: Option<&str>, xdg: Option<&str>| Surroundings {
            home: home.map(PathBuf::from),
            xdg_state_home: xdg.map(PathBuf::from),
            temp_dir: PathBuf::from("/tmp"),
            path: None,
        };
        let usual = |is_root, home, xdg| usual_folder(is_root, &around(home, xdg));
        assert_eq!(
            usual(true, Some("/root"), None),
            Some(PathBuf::from("/var/lib/ops-jobs"))
        );
        assert_eq!(
            usual(false, Some("/h"), None),
            Some(PathBuf::from("/h/.local/state/ops-jobs"))
        );
        assert_eq!(
            usual(false, Some("/h"), Some("/x")),
            Some(PathBuf::from("/x/ops-jobs"))
        );
        assert_eq!(
            usual(false, Some("/h"), Some("relative")),
            Some(PathBuf::from("/h/.local/state/ops-jobs"))
        );
        assert_eq!(usual(false, None, None), None);
    }

    #[test]
    fn a_link_among_temporary_files_is_no_folder_of_ours() {
        let temp = tempfile::tempdir().expect("a folder");
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(temp.path(), &link).expect("linked");
        let uid = rustix::process::geteuid().as_raw();
        assert!(must_be_ours(&link, uid).is_err());
        assert!(must_be_ours(temp.path(), uid).is_ok());
        assert!(must_be_ours(temp.path(), uid + 1).is_err());
    }
}
