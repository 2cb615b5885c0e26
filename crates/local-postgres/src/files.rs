//! Private directories, locks and logs. Follows no symbolic link in a folder that another user owns.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::Error;
use crate::user::ServerUser;

/// How often a condition is looked at again.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

/// Makes a directory that only `user` may use, or proves that the one that is there is such a directory. One of ours that is
/// private and empty becomes one.
pub(crate) fn private_directory(path: &Path, user: &ServerUser) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("make the directory", path)(error)),
    }
    if user.is_someone_else() {
        hand_over(path, user)?;
    }
    let found = fs::symlink_metadata(path).map_err(Error::io("look at", path))?;
    let problem = if !found.is_dir() {
        "it is no directory".to_owned()
    } else if found.uid() != user.uid {
        format!(
            "it belongs to user id {}, not to {}",
            found.uid(),
            user.name
        )
    } else if found.mode() & 0o077 != 0 {
        format!("its mode is {:o}, not 700", found.mode() & 0o777)
    } else {
        return Ok(());
    };
    Err(Error::NotPrivate {
        directory: path.to_path_buf(),
        problem,
    })
}

/// Gives a directory away that is ours, private and empty: we made it, or a process like us that has not handed it over yet,
/// or died before it could. Any other stays as it is.
fn hand_over(path: &Path, user: &ServerUser) -> Result<(), Error> {
    // By its descriptor, so that what was looked at is what is given.
    let Ok(directory) = OpenOptions::new()
        .read(true)
        .custom_flags(no_follow() | OFlags::DIRECTORY.bits().cast_signed())
        .open(path)
    else {
        return Ok(()); // Whoever may not use it hears so by what it is.
    };
    let found = directory.metadata().map_err(Error::io("look at", path))?;
    let is_ours = found.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || found.mode() & 0o077 != 0 {
        return Ok(());
    }
    let listed = rustix::fs::Dir::read_from(&directory)
        .map_err(io::Error::from)
        .map_err(Error::io("look into", path))?;
    let is_used = listed.flatten().any(|entry| {
        let name = entry.file_name().to_bytes();
        name != b"." && name != b".."
    });
    if is_used {
        return Ok(());
    }
    std::os::unix::fs::fchown(&directory, Some(user.uid), Some(user.gid))
        .map_err(Error::io("hand over", path))
}

/// Makes a directory and what is missing above it, all of which everybody may enter.
pub(crate) fn open_directory(path: &Path) -> Result<(), Error> {
    let mut missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    missing.reverse();
    for directory in missing {
        match fs::create_dir(directory) {
            Ok(()) => fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
                .map_err(Error::io("open", directory))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("make the directory", directory)(error)),
        }
    }
    Ok(())
}

/// Opens a file for locking.
pub(crate) fn lock_file(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(path)
        .map_err(Error::io("open the lock", path))
}

/// Waits for a lock without end; the system frees it when its holder dies.
pub(crate) fn lock(path: &Path) -> Result<File, Error> {
    let file = lock_file(path)?;
    file.lock().map_err(Error::io("take the lock", path))?;
    Ok(file)
}

/// Takes a lock if it is free.
pub(crate) fn try_lock(path: &Path) -> Result<Option<File>, Error> {
    let file = lock_file(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Error::io("take the lock", path)(error)),
    }
}

/// Waits for a condition, for a limited time.
pub(crate) fn wait_until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(PAUSE);
    }
}

/// The last lines of a text file, for an error message.
pub(crate) fn end_of(path: &Path) -> String {
    let mut text = Vec::new();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(no_follow())
        .open(path);
    // Without a log there is nothing to show.
    let _ = opened.and_then(|mut file| file.read_to_end(&mut text));
    last_lines(&String::from_utf8_lossy(&text))
}

/// The last lines of a text.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines
        .get(lines.len().saturating_sub(8)..)
        .unwrap_or_default()
        .join("\n")
}

/// Free space, in bytes, for users without privileges; 0 where it cannot be known.
pub(crate) fn free_space(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize))
}

/// Removes a file or directory with all that is in it; that there is none is fine.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let removed = if found.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn no_follow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_can_read_is_refused() {
        let temp = tempfile::tempdir().expect("a directory");
        let open = temp.path().join("open");
        open_directory(&open).expect("made");
        let user = ServerUser::choose(None, None).expect("a user");
        let error = private_directory(&open, &user).expect_err("it is not private");
        assert!(matches!(error, Error::NotPrivate { .. }), "{error}");
    }

    #[test]
    fn everybody_who_makes_a_private_directory_at_once_has_it() {
        let temp = tempfile::tempdir().expect("a directory");
        let user = ServerUser::choose(None, None).expect("a user");
        let start = std::sync::Barrier::new(4);
        for number in 0..200 {
            let path = temp.path().join(number.to_string());
            thread::scope(|scope| {
                let makers: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            private_directory(&path, &user)
                        })
                    })
                    .collect();
                for maker in makers {
                    maker.join().expect("no panic").expect("it is private");
                }
            });
        }
    }

    #[test]
    fn a_directory_that_was_not_handed_over_yet_is_and_one_in_use_stays_with_its_owner() {
        let temp = tempfile::tempdir().expect("a directory");
        let user = ServerUser::choose(None, None).expect("a user");
        let (empty, used) = (temp.path().join("empty"), temp.path().join("used"));
        for path in [&empty, &used] {
            DirBuilder::new().mode(0o700).create(path).expect("made");
        }
        fs::write(used.join("file"), "").expect("written");
        private_directory(&empty, &user).expect("handed over");
        let open = temp.path().join("open");
        open_directory(&open).expect("made");
        private_directory(&open, &user).expect_err("it is not private");
        let owner = |path| fs::symlink_metadata(path).expect("it is there").uid();
        assert_eq!(owner(&empty), user.uid);
        let ours = rustix::process::geteuid().as_raw();
        let result = private_directory(&used, &user);
        assert_eq!(result.is_ok(), user.uid == ours, "{result:?}");
        assert_eq!(owner(&used), ours);
        assert_eq!(owner(&open), ours, "what is refused stays as it was");
    }

    #[test]
    fn a_link_in_the_place_of_a_lock_is_not_followed() {
        let temp = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink(temp.path().join("target"), temp.path().join("lock"))
            .expect("a link");
        assert!(lock_file(&temp.path().join("lock")).is_err());
        assert!(!temp.path().join("target").exists());
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("lock");
        let first = try_lock(&path).expect("opened");
        assert!(first.is_some());
        assert!(try_lock(&path).expect("opened").is_none());
        drop(first);
        assert!(try_lock(&path).expect("opened").is_some());
    }
}
