//! What an attempt left in its artifacts folder: found without following a link, stored under its lease. The folder is
//! hostile ground: whatever a handler put there, nothing outside of it is read.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use files::is_artifact_name;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, openat};

/// So many files of an attempt are kept.
pub(crate) const MOST_FILES: usize = 1_000;
/// Looking ends here, whatever else is in the folder.
const MOST_ENTRIES: usize = 10_000;
const DEEPEST: usize = 15;
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Without waiting for the other end of a pipe.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// What is in a folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Paths of regular files below it, sorted.
    pub(crate) names: Vec<String>,
    /// What is left out, and why.
    pub(crate) skipped: Vec<(String, &'static str)>,
}

/// The folder, and whatever is opened below it.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl Folder {
    /// Opens the folder itself, unless it was replaced by a link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, FOLDER, Mode::empty())?))
    }

    /// Whether nothing at all is in it.
    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        let root = openat(&self.0, ".", FOLDER, Mode::empty())?;
        for entry in Dir::read_from(&root)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks for what may be kept.
    pub(crate) fn look(&self) -> io::Result<Found> {
        let mut found = Found::default();
        let mut seen = 0;
        let root = openat(&self.0, ".", FOLDER, Mode::empty())?;
        walk(&root, "", 0, &mut seen, &mut found)?;
        found.names.sort_unstable();
        Ok(found)
    }

    /// Opens a file by the name under which it was found, step by step, each without following a link; gives nothing when
    /// it has become something else meanwhile.
    pub(crate) fn file(&self, name: &str) -> io::Result<Option<File>> {
        let mut parts = name.split('/').peekable();
        let mut folder = openat(&self.0, ".", FOLDER, Mode::empty())?;
        while let Some(part) = parts.next() {
            if parts.peek().is_some() {
                folder = openat(&folder, part, FOLDER, Mode::empty())?;
                continue;
            }
            let file = openat(&folder, part, FILE, Mode::empty())?;
            return Ok(is_plain(&file)?.then(|| File::from(file)));
        }
        Ok(None)
    }
}

/// A regular file with one name: a second name may be that of somebody else's file.
fn is_plain(file: &OwnedFd) -> io::Result<bool> {
    let stat = fstat(file)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1)
}

fn walk(
    folder: &OwnedFd,
    path: &str,
    depth: usize,
    seen: &mut usize,
    found: &mut Found,
) -> io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let raw = entry.file_name().to_bytes();
        if raw == b"." || raw == b".." {
            continue;
        }
        *seen += 1;
        if *seen > MOST_ENTRIES {
            if *seen == MOST_ENTRIES + 1 {
                found.skipped.push((
                    path.to_owned(),
                    "there is more in the folder than is looked at",
                ));
            }
            return Ok(());
        }
        let shown = String::from_utf8_lossy(raw);
        let name = if path.is_empty() {
            shown.into_owned()
        } else {
            format!("{path}/{shown}")
        };
        if let Err(why) = enter(folder, &entry, &name, depth, seen, found)? {
            found.skipped.push((name, why));
        }
    }
    Ok(())
}

fn enter(
    folder: &OwnedFd,
    entry: &rustix::fs::DirEntry,
    name: &str,
    depth: usize,
    seen: &mut usize,
    found: &mut Found,
) -> io::Result<Result<(), &'static str>> {
    if entry.file_name().to_str().is_err() || !is_artifact_name(name) {
        return Ok(Err("its name cannot be kept: rename it"));
    }
    // Opened instead of looked at, so that what is judged is what is read.
    let opened = match openat(folder, entry.file_name(), FILE, Mode::empty()) {
        Ok(opened) => opened,
        Err(rustix::io::Errno::LOOP) => return Ok(Err("it is a link")),
        Err(rustix::io::Errno::NXIO) => return Ok(Err("it is no regular file")),
        Err(_) => return Ok(Err("it cannot be opened")),
    };
    let stat = fstat(&opened)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory if depth < DEEPEST => {
            walk(&opened, name, depth + 1, seen, found)?;
            Ok(())
        }
        FileType::Directory => Err("it is too deep"),
        FileType::RegularFile if stat.st_nlink > 1 => Err("it has another name (a hard link)"),
        FileType::RegularFile => {
            found.names.push(name.to_owned());
            Ok(())
        }
        _ => Err("it is no regular file"),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_plain_files_below_the_folder_are_found() {
        let outer = tempfile::tempdir().expect("a folder");
        let root = outer.path().join("artifacts");
        std::fs::create_dir_all(root.join("deep/er")).expect("made");
        std::fs::write(outer.path().join("secret"), "s").expect("written");
        std::fs::write(root.join("b.txt"), "b").expect("written");
        std::fs::write(root.join("deep/er/a.txt"), "a").expect("written");
        std::fs::write(root.join("bad\\name"), "x").expect("written");
        symlink("/etc/passwd", root.join("link")).expect("linked");
        symlink("/etc", root.join("deep/folder-link")).expect("linked");
        std::fs::hard_link(outer.path().join("secret"), root.join("hard")).expect("linked");
        let pipe = rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RWXU, 0);
        pipe.expect("a pipe");
        let found = Folder::open(&root).expect("opened").look().expect("looked");
        assert_eq!(found.names, ["b.txt", "deep/er/a.txt"]);
        let mut skipped: Vec<_> = found
            .skipped
            .iter()
            .map(|(name, why)| format!("{name}: {why}"))
            .collect();
        skipped.sort_unstable();
        assert_eq!(
            skipped,
            [
                "bad\\name: its name cannot be kept: rename it",
                "deep/folder-link: it is a link",
                "hard: it has another name (a hard link)",
                "link: it is a link",
                "pipe: it is no regular file",
            ]
        );
    }

    #[test]
    fn what_is_swapped_for_a_link_after_it_was_found_is_not_read() {
        let outer = tempfile::tempdir().expect("a folder");
        let root = outer.path().join("artifacts");
        std::fs::create_dir_all(root.join("deep")).expect("made");
        std::fs::write(root.join("deep/a"), "mine").expect("written");
        std::fs::create_dir(outer.path().join("other")).expect("made");
        std::fs::write(outer.path().join("other/a"), "secret").expect("written");
        let folder = Folder::open(&root).expect("opened");
        let mut text = String::new();
        let file = folder.file("deep/a").expect("opened").expect("plain");
        { file }.read_to_string(&mut text).expect("read");
        assert_eq!(text, "mine");
        std::fs::remove_file(root.join("deep/a")).expect("removed");
        symlink(outer.path().join("other/a"), root.join("deep/a")).expect("linked");
        assert!(folder.file("deep/a").is_err());
        std::fs::remove_dir_all(root.join("deep")).expect("removed");
        symlink(outer.path().join("other"), root.join("deep")).expect("linked");
        assert!(folder.file("deep/a").is_err());
        std::fs::rename(&root, outer.path().join("moved")).expect("moved");
        symlink(outer.path().join("other"), &root).expect("linked");
        assert!(Folder::open(&root).is_err());
    }
}
