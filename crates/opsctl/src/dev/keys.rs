//! The generated keys of `opsctl dev`: kept between starts, in files that only their owner can read.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use service::Secret;
use service::ids::random_hex;

use super::services::Services;
use crate::error::Error;

pub(super) const KEYS_FILE: &str = "dev.env";
pub(super) const HEADER_FILE: &str = "ops-key.header";

/// The three keys that a set-up needs.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) api_key: Secret,
    pub(super) runner_token: Secret,
    pub(super) secret_key: Secret,
}

/// Where the keys are kept.
#[derive(Clone, Debug)]
pub(super) struct KeyFiles {
    /// `NAME=value` lines for a shell.
    pub(super) env: PathBuf,
    /// The header for `curl -H @FILE`, so that the key is in no argument.
    pub(super) header: PathBuf,
}

impl Keys {
    /// The keys that are kept in the folder, or new ones.
    pub(super) fn of(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(KEYS_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).ok_or_else(|| {
                Error::Failed(format!(
                    "{} lacks a key: remove it, and new ones are made",
                    path.display()
                ))
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::new()),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    fn new() -> Self {
        Self {
            api_key: Secret::new(format!("opsk_{}", random_hex::<32>())),
            runner_token: Secret::new(format!("opsr_{}", random_hex::<32>())),
            secret_key: Secret::new(random_hex::<32>()),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let found = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            found.filter(|value| value.len() >= 32).map(Secret::new)
        };
        Some(Self {
            api_key: value("OPS_API_KEY")?,
            runner_token: value("RUNNER_TOKEN")?,
            secret_key: value("SECRET_KEY")?,
        })
    }

    /// Writes the keys, and where they are good for, into the folder.
    pub(super) fn keep(&self, folder: &Path, services: &Services) -> Result<KeyFiles, Error> {
        let files = KeyFiles {
            env: folder.join(KEYS_FILE),
            header: folder.join(HEADER_FILE),
        };
        write_private(
            &files.env,
            &self.env(&services.control_plane_url(), &services.runner_url()),
        )?;
        write_private(
            &files.header,
            &format!("X-Ops-Key: {}\n", self.api_key.expose()),
        )?;
        Ok(files)
    }

    fn env(&self, control_plane: &str, runner: &str) -> String {
        format!(
            "# Made by `opsctl dev`, for this machine only. In a shell: set -a; . THIS_FILE; set +a\n\
             OPS_URL={control_plane}\nRUNNER_URL={runner}\nOPS_API_KEY={}\nRUNNER_TOKEN={}\nSECRET_KEY={}\n",
            self.api_key.expose(),
            self.runner_token.expose(),
            self.secret_key.expose(),
        )
    }
}

/// Writes a file that nobody else can read at any moment, whole or not at all.
fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Error::io("replace", &new)(error));
        }
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&new, path))
        .map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_read_again_as_they_were_written() {
        let keys = Keys::new();
        assert!(keys.api_key.expose().starts_with("opsk_") && keys.api_key.length() == 5 + 64);
        assert!(keys.runner_token.expose().starts_with("opsr_"));
        let read = Keys::parse(&keys.env("http://a", "http://b")).expect("whole");
        assert_eq!(read.api_key.expose(), keys.api_key.expose());
        assert_eq!(read.runner_token.expose(), keys.runner_token.expose());
        assert_eq!(read.secret_key.expose(), keys.secret_key.expose());
        assert_ne!(Keys::new().api_key.expose(), keys.api_key.expose());
    }

    #[test]
    fn a_keys_file_is_private_even_where_an_open_one_stood() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(KEYS_FILE);
        fs::write(&path, "old").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("opened");
        write_private(&path, "new").expect("written");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(
            (mode & 0o777, fs::read_to_string(&path).expect("read")),
            (0o600, "new".to_owned())
        );
    }

    #[test]
    fn a_broken_keys_file_is_told_and_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(KEYS_FILE), "OPS_API_KEY=canary\n").expect("written");
        let error = Keys::of(folder.path()).expect_err("broken").to_string();
        assert!(
            error.contains("remove it") && !error.contains("canary"),
            "{error}"
        );
        assert!(Keys::of(&folder.path().join("none")).is_ok());
    }
}
