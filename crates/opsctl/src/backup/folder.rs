//! The folder of the backups: which files make one up, what they are called, and which of them have had their time. A backup is
//! there exactly when its dump stands under its name.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};
use time::format_description::FormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

use crate::error::Error;

const PREFIX: &str = "ops-jobs-";
const STAMP: &[FormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");
/// What makes a backup up beside its dump.
const PARTS: [&str; 4] = ["dump", "dump.sha256", "manifest.json", "objects"];
/// What is being written has this before its name.
const PARTIAL: &str = ".partial-";
/// So many stay, however old they are.
const NEVER_REMOVED: usize = 3;

/// The files of one backup, there or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupFiles {
    folder: PathBuf,
    stem: String,
    partial: &'static str,
}

impl BackupFiles {
    /// Those that belong to this dump.
    pub(crate) fn of_dump(dump: &Path) -> Result<Self, Error> {
        let name = dump.file_name().and_then(|name| name.to_str());
        let stem = name.and_then(|name| name.strip_suffix(".dump"));
        match stem {
            Some(stem) if !stem.is_empty() => Ok(Self {
                folder: dump.parent().unwrap_or(Path::new("")).to_path_buf(),
                stem: stem.to_owned(),
                partial: "",
            }),
            _ => Err(Error::Usage(format!(
                "{} is not a dump: name a file that ends with .dump",
                dump.display()
            ))),
        }
    }

    fn part(&self, part: &str) -> PathBuf {
        self.folder
            .join(format!("{}{}.{part}", self.partial, self.stem))
    }

    pub(crate) fn dump(&self) -> PathBuf {
        self.part("dump")
    }

    pub(crate) fn sha256(&self) -> PathBuf {
        self.part("dump.sha256")
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.part("manifest.json")
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.part("objects")
    }

    /// The same while they are being written.
    pub(crate) fn partial(&self) -> Self {
        Self {
            partial: PARTIAL,
            ..self.clone()
        }
    }

    /// The instant in its name.
    pub(crate) fn taken_at(&self) -> Option<OffsetDateTime> {
        let stamp = self.stem.strip_prefix(PREFIX)?;
        let at = PrimitiveDateTime::parse(stamp, STAMP).ok()?;
        // A name that is written in another way is not one of ours.
        (at.format(STAMP).ok()? == stamp).then(|| at.assume_utc())
    }

    /// Removes what there is of them, the dump first: what is left then is no backup.
    fn remove(&self) -> io::Result<()> {
        for part in PARTS {
            let path = self.part(part);
            let Ok(found) = path.symlink_metadata() else {
                continue;
            };
            if found.is_dir() {
                fs::remove_dir_all(&path)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// The folder, with nobody else writing into it.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens it for a new backup, made where it is missing, and clears away what an earlier one left unfinished.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(Error::io("make", path))?;
        // What is written into the manifest and the database must not hang on where we are.
        let path = path.canonicalize().map_err(Error::io("find", path))?;
        let lock_path = path.join(".lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(Error::io("open", &lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Error::Failed(format!(
                "another backup into {} is under way: wait for it",
                path.display()
            ))
        })?;
        let folder = Self { path, _lock: lock };
        for entry in names(&folder.path)? {
            if entry.starts_with(&format!("{PARTIAL}{PREFIX}")) {
                let path = folder.path.join(entry);
                let removed = if path.is_dir() {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
                removed.map_err(Error::io("remove", &path))?;
            }
        }
        Ok(folder)
    }

    /// Whether others than its owner may look into it.
    pub(crate) fn is_open_to_others(&self) -> bool {
        self.path
            .metadata()
            .is_ok_and(|found| found.mode() & 0o077 != 0)
    }

    /// The files of a backup of this instant.
    pub(crate) fn backup_of(&self, at: OffsetDateTime) -> Result<BackupFiles, Error> {
        let stamp = at
            .to_offset(time::UtcOffset::UTC)
            .format(STAMP)
            .map_err(|_| {
                Error::Failed("the database's clock shows no year of four digits".to_owned())
            })?;
        let files = BackupFiles {
            folder: self.path.clone(),
            stem: format!("{PREFIX}{stamp}"),
            partial: "",
        };
        if files.dump().symlink_metadata().is_ok() {
            return Err(Error::Failed(format!(
                "{} is there already: one backup a second is enough",
                files.dump().display()
            )));
        }
        Ok(files)
    }

    /// Gives a backup that is written its names, the dump last, and makes sure that they outlive a power cut.
    pub(crate) fn publish(&self, files: &BackupFiles) -> Result<(), Error> {
        let partial = files.partial();
        for part in PARTS.iter().rev() {
            let (from, to) = (partial.part(part), files.part(part));
            if from.symlink_metadata().is_ok() {
                fs::rename(&from, &to).map_err(Error::io("rename", &from))?;
            }
        }
        sync_folder(&self.path)
    }

    /// Removes what was being written; where it cannot be, the next backup does it.
    pub(crate) fn discard(&self, files: &BackupFiles) {
        let _ = files.partial().remove();
    }

    /// Removes the backups that have had their time by the dates in their names, but never the newest ones; gives them.
    pub(crate) fn remove_expired(
        &self,
        now: OffsetDateTime,
        keep: Duration,
    ) -> Result<Vec<PathBuf>, Error> {
        let mut removed = Vec::new();
        for files in expired(backups_in(&self.path)?, now, keep) {
            files.remove().map_err(Error::io("remove", &files.dump()))?;
            removed.push(files.dump());
        }
        Ok(removed)
    }
}

/// The backups in a folder, the newest first: files, no links, of exactly our names.
pub(crate) fn backups_in(path: &Path) -> Result<Vec<(OffsetDateTime, BackupFiles)>, Error> {
    let mut found: Vec<(OffsetDateTime, BackupFiles)> = names(path)?
        .into_iter()
        .filter_map(|name| {
            let files = BackupFiles::of_dump(&path.join(name)).ok()?;
            let is_file = files.dump().symlink_metadata().ok()?.is_file();
            Some((files.taken_at()?, files)).filter(|_| is_file)
        })
        .collect();
    found.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    Ok(found)
}

fn expired(
    backups: Vec<(OffsetDateTime, BackupFiles)>,
    now: OffsetDateTime,
    keep: Duration,
) -> impl Iterator<Item = BackupFiles> {
    backups
        .into_iter()
        .skip(NEVER_REMOVED)
        .filter(move |(at, _)| now - *at > keep)
        .map(|(_, files)| files)
}

fn names(path: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(path).map_err(Error::io("read", path))?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect())
}

/// A new file that only we can read.
pub(crate) fn new_file(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("make", path))
}

/// Writes a small file that only we can read, and makes sure that it outlives a power cut.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<(), Error> {
    let mut file = new_file(path)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", path))
}

pub(crate) fn new_folder(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(Error::io("make", path))
}

pub(crate) fn sync_folder(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("write", path))
}

/// Size and SHA-256 of a file as it stands on disk.
pub(crate) fn sum_of(path: &Path) -> Result<(u64, [u8; 32]), Error> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let (mut size, mut sum) = (0, Sha256::new());
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut piece).map_err(Error::io("read", path))?;
        if read == 0 {
            return Ok((size, sum.finalize().into()));
        }
        size += read as u64;
        sum.update(&piece[..read]);
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn stems(folder: &Path) -> Vec<String> {
        let mut names = names(folder).expect("read");
        names.sort();
        names
    }

    #[test]
    fn exactly_what_has_expired_goes_with_all_its_parts_and_never_the_newest_three() {
        let temp = tempfile::tempdir().expect("a folder");
        let now = datetime!(2026-03-01 00:00:00 UTC);
        let folder = Folder::open(temp.path()).expect("open");
        let put = |name: &str| fs::write(temp.path().join(name), name).expect("written");
        let ours: Vec<String> = (0..20)
            .map(|day| {
                let files = folder.backup_of(now - Duration::days(day)).expect("free");
                put(&format!("{}.dump", files.stem));
                put(&format!("{}.dump.sha256", files.stem));
                fs::create_dir(files.objects()).expect("made");
                fs::write(files.objects().join("x"), "x").expect("written");
                files.stem
            })
            .collect();
        let foreign = [
            "ops-jobs-20200101T000000Z.dump.old",
            "ops-jobs-20200101.dump",
            "ops-jobs-20200101T000000z.dump",
            "ops-jobs-+2020101T000000Z.dump",
            "other-20200101T000000Z.dump",
            "ops-jobs-20991231T000000Z.dump",
            "notes.txt",
        ];
        foreign.iter().for_each(|name| put(name));
        std::os::unix::fs::symlink(
            "notes.txt",
            temp.path().join("ops-jobs-20190101T000000Z.dump"),
        )
        .expect("linked");
        let removed = folder
            .remove_expired(now, Duration::days(14))
            .expect("removed");
        let gone: Vec<String> = ours
            .iter()
            .skip(15)
            .map(|stem| format!("{stem}.dump"))
            .collect();
        let names: Vec<String> = removed
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        assert_eq!(names, gone);
        let left = stems(temp.path());
        assert!(
            ours.iter()
                .skip(15)
                .all(|stem| !left.iter().any(|name| name.starts_with(stem.as_str())))
        );
        assert!(
            ours.iter()
                .take(15)
                .all(|stem| left.contains(&format!("{stem}.objects")))
        );
        assert!(
            foreign
                .iter()
                .all(|name| left.contains(&(*name).to_owned()))
        );
        assert!(left.contains(&"ops-jobs-20190101T000000Z.dump".to_owned()));
        // All of them are old now, the one of a clock that went wrong apart.
        folder
            .remove_expired(now + Duration::days(1000), Duration::days(14))
            .expect("removed");
        let left = backups_in(temp.path()).expect("read");
        assert_eq!(left.len(), 3);
    }

    #[test]
    fn a_backup_is_there_once_its_dump_has_its_name_and_what_was_left_half_done_goes() {
        let temp = tempfile::tempdir().expect("a folder");
        let path = temp.path().join("deep/backups");
        let at = datetime!(2026-03-01 10:20:30 UTC);
        let folder = Folder::open(&path).expect("made");
        assert!(!folder.is_open_to_others());
        assert!(Folder::open(&path).is_err(), "one at a time");
        let files = folder.backup_of(at).expect("free");
        write_whole(&files.partial().dump(), "half").expect("written");
        assert_eq!(backups_in(&path).expect("read"), []);
        drop(folder);
        let folder = Folder::open(&path).expect("open");
        assert_eq!(stems(&path), [".lock"]);
        write_whole(&files.partial().dump(), "abc").expect("written");
        write_whole(&files.partial().sha256(), "x").expect("written");
        folder.publish(&files).expect("renamed");
        assert_eq!(backups_in(&path).expect("read")[0].0, at);
        assert_eq!(sum_of(&files.dump()).expect("read").0, 3);
        let mode = files.dump().metadata().expect("there").mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(folder.backup_of(at).is_err(), "the name is taken");
    }
}
