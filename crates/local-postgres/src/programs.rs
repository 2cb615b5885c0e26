//! Finds PostgreSQL's programs on this machine. Starts nothing but `postgres --version`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Error;

/// The oldest major version that the product supports.
const OLDEST: u32 = 14;

/// Where packages put the server's programs; `*` stands for a part of one name.
const KNOWN_PLACES: [&str; 13] = [
    "/usr/lib/postgresql/*/bin",         // Debian, Ubuntu
    "/usr/pgsql-*/bin",                  // PostgreSQL's own rpm
    "/usr/lib64/pgsql*/bin",             // SUSE and others
    "/usr/libexec/postgresql*",          // Alpine
    "/usr/local/pgsql*/bin",             // from source
    "/opt/homebrew/opt/postgresql*/bin", // Homebrew
    "/usr/local/opt/postgresql*/bin",    // Homebrew on Intel
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/Library/PostgreSQL/*/bin",
    "/run/current-system/sw/bin", // NixOS
    "/usr/local/bin",
    "/usr/bin", // Fedora, Arch
];

/// A directory with the programs of one PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    directory: PathBuf,
    version: String,
    major: u32,
    psql: Option<PathBuf>,
}

/// Where to look, and for what.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Search<'a> {
    /// Only here.
    pub(crate) only: Option<&'a Path>,
    pub(crate) path: Option<&'a OsStr>,
    /// Where downloads may be kept, one directory a version.
    pub(crate) downloads: &'a [PathBuf],
    /// Only this major version, with the data that it made.
    pub(crate) made: Option<(u32, &'a Path)>,
}

impl Programs {
    /// Finds the programs: in `only` if given, else on `path`, else the newest in the places where packages put them.
    ///
    /// Fails when there are none of version 14 or newer; the message names the places looked at and what to install.
    pub fn find(only: Option<&Path>, path: Option<&OsStr>) -> Result<Self, Error> {
        Self::search(&Search {
            only,
            path,
            ..Search::default()
        })
    }

    pub(crate) fn search(search: &Search<'_>) -> Result<Self, Error> {
        if let Some(directory) = search.only {
            let found =
                Self::look_at(directory, search.path).map_err(|problem| Error::BadPrograms {
                    directory: directory.to_path_buf(),
                    problem,
                })?;
            return match search.made {
                Some((made_by, data)) if made_by != found.major => Err(Error::OtherMajor {
                    data: data.to_path_buf(),
                    made_by,
                    found: vec![found.major],
                }),
                _ => Ok(found),
            };
        }
        let on_path: Vec<PathBuf> = search
            .path
            .map(|path| {
                std::env::split_paths(path)
                    .filter(|entry| entry.is_absolute())
                    .collect()
            })
            .unwrap_or_default();
        let mut places = known_places();
        places.extend(
            search
                .downloads
                .iter()
                .flat_map(|downloads| expand(&format!("{}/*/bin", downloads.display()))),
        );
        Self::search_in(search, &on_path, &places)
    }

    fn search_in(
        search: &Search<'_>,
        on_path: &[PathBuf],
        places: &[PathBuf],
    ) -> Result<Self, Error> {
        let mut majors = Vec::new();
        let mut suits = |found: &Self| {
            majors.push(found.major);
            search
                .made
                .is_none_or(|(made_by, _)| made_by == found.major)
        };
        // Asking a program for its version takes 10 ms, so the first on PATH ends the search.
        let first = on_path
            .iter()
            .filter_map(|place| Self::look_at(place, search.path).ok())
            .find(|found| suits(found));
        if let Some(found) = first {
            return Ok(found);
        }
        let known = places
            .iter()
            .filter_map(|place| Self::look_at(place, search.path).ok())
            .filter(|found| suits(found));
        if let Some(found) = known.max_by_key(|found| found.major) {
            return Ok(found);
        }
        majors.sort_unstable();
        majors.dedup();
        match search.made {
            Some((made_by, data)) if !majors.is_empty() => Err(Error::OtherMajor {
                data: data.to_path_buf(),
                made_by,
                found: majors,
            }),
            _ => Err(Error::NoPrograms {
                looked: on_path
                    .iter()
                    .cloned()
                    .chain(KNOWN_PLACES.iter().map(PathBuf::from))
                    .collect(),
            }),
        }
    }

    /// A server needs both programs in one directory: an installation of the client alone has neither.
    fn look_at(place: &Path, path: Option<&OsStr>) -> Result<Self, String> {
        let both = |directory: &Path| {
            directory.join("postgres").is_file() && directory.join("initdb").is_file()
        };
        if !both(place) {
            return Err("it does not hold both postgres and initdb".to_owned());
        }
        // A link on PATH leads to the directory with all the programs and, for some builds, their libraries.
        let real = fs::canonicalize(place.join("postgres"))
            .ok()
            .and_then(|program| program.parent().map(Path::to_path_buf));
        let directory = real
            .filter(|real| both(real))
            .unwrap_or_else(|| place.to_path_buf());
        let version =
            version(&directory.join("postgres")).ok_or("postgres --version does not answer")?;
        let major = major(&version).ok_or_else(|| format!("{version:?} is no version"))?;
        if major < OLDEST {
            return Err(format!(
                "it holds {version}, and {OLDEST} is the oldest that works"
            ));
        }
        let psql = std::iter::once(directory.clone())
            .chain(path.iter().flat_map(std::env::split_paths))
            .chain([PathBuf::from("/usr/bin")]);
        let psql = psql
            .map(|directory| directory.join("psql"))
            .find(|program| program.is_file());
        Ok(Self {
            directory,
            version,
            major,
            psql,
        })
    }

    /// The directory that holds the programs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The version in the program's own words, like `15.18`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The `psql` beside the server, else the one on PATH.
    pub fn psql(&self) -> Result<&Path, Error> {
        self.psql.as_deref().ok_or(Error::NoPsql)
    }
}

/// Where packages put programs, as far as it is there.
pub(crate) fn known_places() -> Vec<PathBuf> {
    KNOWN_PLACES
        .iter()
        .flat_map(|place| expand(place))
        .collect()
}

/// The directories that a pattern with at most one `*` stands for.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(if parent.is_empty() { "/" } else { parent }) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().join(after.trim_start_matches('/')))
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

#[expect(
    clippy::disallowed_methods,
    reason = "asks the server's program for its version"
)]
fn version(postgres: &Path) -> Option<String> {
    let output = Command::new(postgres)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| text.split_whitespace().nth(2).map(str::to_owned))
        .flatten()
}

/// `15.18`, `19devel` and `18beta1` all begin with the major version.
pub(crate) fn major(version: &str) -> Option<u32> {
    version
        .chars()
        .take_while(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn install(directory: &Path, version: &str) {
        fs::create_dir_all(directory).expect("a directory");
        for program in ["postgres", "initdb"] {
            let path = directory.join(program);
            fs::write(
                &path,
                format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version} (Any 1)'\n"),
            )
            .expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made a program");
        }
    }

    #[test]
    fn the_first_on_path_wins_and_else_the_newest_known() {
        let temp = tempfile::tempdir().expect("a directory");
        let places: Vec<PathBuf> = ["13.9", "14.1", "18.0", "15.2"]
            .iter()
            .map(|version| temp.path().join(version))
            .collect();
        for place in &places {
            install(
                place,
                place.file_name().and_then(OsStr::to_str).expect("a name"),
            );
        }
        let found = |on_path: &[PathBuf], made| {
            Programs::search_in(
                &Search {
                    made,
                    ..Search::default()
                },
                on_path,
                &places,
            )
        };
        assert_eq!(
            found(&[places[1].clone()], None).expect("found").major(),
            14
        );
        assert_eq!(found(&[], None).expect("found").version(), "18.0");
        assert_eq!(
            found(&[places[2].clone()], Some((15, Path::new("/data"))))
                .expect("found")
                .major(),
            15
        );
        let error = found(&[], Some((16, Path::new("/data")))).expect_err("there is no 16");
        assert!(
            error
                .to_string()
                .starts_with("/data was made by PostgreSQL 16, found 14, 15, 18;"),
            "{error}"
        );
    }

    #[test]
    fn a_directory_without_initdb_is_no_server() {
        let temp = tempfile::tempdir().expect("a directory");
        install(temp.path(), "18.0");
        fs::remove_file(temp.path().join("initdb")).expect("removed");
        let error = Programs::find(Some(temp.path()), None).expect_err("half of it is missing");
        assert!(
            error.to_string().contains("both postgres and initdb"),
            "{error}"
        );
        let error = Programs::search_in(&Search::default(), &[temp.path().to_path_buf()], &[])
            .expect_err("nothing");
        assert!(
            error.to_string().contains("apt install postgresql")
                && error.to_string().contains("/usr/lib/postgresql"),
            "{error}"
        );
    }

    #[test]
    fn an_old_server_that_was_asked_for_is_named() {
        let temp = tempfile::tempdir().expect("a directory");
        install(temp.path(), "13.4");
        assert!(
            Programs::find(Some(temp.path()), None)
                .expect_err("too old")
                .to_string()
                .contains("13.4")
        );
    }

    #[test]
    fn versions_before_their_release_have_a_major() {
        assert_eq!(
            [
                major("15.18"),
                major("19devel"),
                major("18beta1"),
                major("x")
            ],
            [Some(15), Some(19), Some(18), None]
        );
    }
}
