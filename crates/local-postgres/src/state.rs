//! Where a cluster lives: the folder that follows from the caller's wishes, and the files in it.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};

use crate::files::{self, open_directory, private_directory};
use crate::user::ServerUser;
use crate::{Error, Options, Place};

/// The longest socket path that every system takes, in bytes.
const LONGEST_SOCKET: usize = 103;

/// The files of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The folder that the caller chose; downloaded programs are beside the cluster.
    pub(crate) state: PathBuf,
    /// The cluster's own directory, private to the server's user.
    pub(crate) home: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) user: ServerUser,
    /// Why this is not the folder that one would expect.
    pub(crate) note: Option<String>,
}

impl Layout {
    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// Held while a server is started or adopted.
    pub(crate) fn start_lock(&self) -> PathBuf {
        self.home.join("lock")
    }

    /// Held by the guard, the server and all its children: free means that none of them lives.
    pub(crate) fn alive_lock(&self) -> PathBuf {
        self.home.join("alive")
    }

    /// Held by the process whose end ends the server.
    pub(crate) fn owner_lock(&self) -> PathBuf {
        self.home.join("owner")
    }

    /// The major version that made the data, if there are any.
    pub(crate) fn made_by(&self) -> Option<u32> {
        fs::read_to_string(self.data().join("PG_VERSION"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Chooses the folder, makes what is missing of it and proves that it is private.
    pub(crate) fn prepare(options: &Options) -> Result<Self, Error> {
        let (state, note) = match &options.place {
            Place::At(state) => (absolute(state)?, None),
            Place::Ephemeral => return Self::ephemeral(options),
            Place::Default => default_state(options)?,
        };
        Self::at(state, note, options)
    }

    /// The layout in this very folder.
    pub(crate) fn at(
        state: PathBuf,
        note: Option<String>,
        options: &Options,
    ) -> Result<Self, Error> {
        let home = state.join("pg");
        let owner = fs::symlink_metadata(&home).ok().map(|found| found.uid());
        let user = ServerUser::choose(options.run_as.as_deref(), owner)?;
        open_directory(&state)?;
        must_be_open(&user, &state)?;
        private_directory(&home, &user)?;
        let socket = socket_directory(&home, &options.temp_dir);
        Ok(Self {
            state,
            home,
            socket,
            user,
            note,
        })
    }

    fn ephemeral(options: &Options) -> Result<Self, Error> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let user = ServerUser::choose(options.run_as.as_deref(), None)?;
        let temp = absolute(&options.temp_dir)?;
        must_be_open(&user, &temp)?;
        let state = loop {
            let count = MADE.fetch_add(1, Ordering::Relaxed);
            let noise = RandomState::new().build_hasher().finish();
            let state = temp.join(format!(
                "ops-jobs-pg-{}-{count}-{noise:016x}",
                std::process::id()
            ));
            if fs::symlink_metadata(&state).is_err() {
                break state;
            }
        };
        private_directory(&state, &user)?;
        Self::at(state, None, options)
    }
}

/// The folders that `Place::Default` can mean, the best first.
pub(crate) fn candidates(options: &Options) -> Vec<PathBuf> {
    let uid = rustix::process::geteuid();
    let mut candidates = Vec::new();
    if uid.is_root() {
        // Not below /root: the server's user cannot enter it.
        candidates.push(PathBuf::from("/var/lib/ops-jobs"));
    } else {
        candidates.extend(
            options
                .xdg_state_home
                .iter()
                .filter(|path| path.is_absolute())
                .map(|path| path.join("ops-jobs")),
        );
        candidates.extend(
            options
                .home
                .iter()
                .filter(|path| path.is_absolute())
                .map(|path| path.join(".local/state/ops-jobs")),
        );
    }
    candidates.push(options.temp_dir.join(format!("ops-jobs-{}", uid.as_raw())));
    candidates
}

/// The folder for `Place::Default`, and why it is not the first choice.
pub(crate) fn default_state(options: &Options) -> Result<(PathBuf, Option<String>), Error> {
    first_usable(candidates(options), options)
}

/// Each is made if it is missing; the error is that of the last.
fn first_usable(
    candidates: Vec<PathBuf>,
    options: &Options,
) -> Result<(PathBuf, Option<String>), Error> {
    let mut failed: Option<(PathBuf, Error)> = None;
    let mut note = None;
    for state in candidates {
        if let Some((unusable, error)) = failed.take() {
            // The first is the one that a person would expect, so its reason is told.
            note = note.or_else(|| {
                Some(format!(
                    "{} cannot be used ({}); using another folder",
                    unusable.display(),
                    with_cause(&error)
                ))
            });
        }
        let state = absolute(&state)?;
        match Layout::at(state.clone(), None, options) {
            Ok(_) => return Ok((state, note)),
            Err(error) => failed = Some((state, error)),
        }
    }
    Err(failed.map_or(
        Error::NoUser {
            problem: "no folder is left to try".to_owned(),
        },
        |(_, error)| error,
    ))
}

fn with_cause(error: &Error) -> String {
    std::error::Error::source(error)
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Fails when the server's user cannot get to a directory.
pub(crate) fn must_be_open(user: &ServerUser, needed: &Path) -> Result<(), Error> {
    user.first_closed(needed).map_or(Ok(()), |directory| {
        Err(Error::CannotEnter {
            user: user.name.clone(),
            directory,
            needed: needed.to_path_buf(),
        })
    })
}

/// The socket's directory: in the cluster's home, else, where its path is too long or odd, a short one in the temp directory.
fn socket_directory(home: &Path, temp: &Path) -> PathBuf {
    let beside = home.join("socket");
    let text = beside.to_string_lossy();
    let fits = text.len() + "/.s.PGSQL.5432".len() <= LONGEST_SOCKET;
    // The server takes a list of directories here, parted by commas.
    if fits && !text.contains([',', '"', ' ', '\\', '\'']) {
        return beside;
    }
    let name = format!("ops-pg-{}", short_hash(&text));
    let short = temp.join(&name);
    if short.as_os_str().len() + "/.s.PGSQL.5432".len() <= LONGEST_SOCKET {
        short
    } else {
        Path::new("/tmp").join(name)
    }
}

/// Twelve hex digits that stand for a text.
pub(crate) fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::io("find", path))
}

/// Makes the socket's directory and takes away what a dead server left there.
pub(crate) fn fresh_socket(layout: &Layout) -> Result<(), Error> {
    private_directory(&layout.socket, &layout.user)?;
    files::remove(&layout.socket.join(".s.PGSQL.5432"))?;
    files::remove(&layout.socket.join(".s.PGSQL.5432.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_or_odd_socket_path_becomes_a_short_one() {
        let temp = Path::new("/tmp");
        assert_eq!(
            socket_directory(Path::new("/a/pg"), temp),
            Path::new("/a/pg/socket")
        );
        let deep = PathBuf::from("/").join("x".repeat(90));
        let short = socket_directory(&deep, temp);
        assert!(
            short.starts_with("/tmp") && short.as_os_str().len() < 40,
            "{}",
            short.display()
        );
        assert_eq!(short, socket_directory(&deep, temp));
        assert_ne!(short, socket_directory(&deep.join("y"), temp));
        assert!(socket_directory(Path::new("/a,b"), temp).starts_with("/tmp"));
    }

    #[test]
    fn a_default_folder_that_cannot_be_used_gives_way_to_another_and_says_so() {
        let temp = tempfile::tempdir().expect("a directory");
        let blocked = temp.path().join("file");
        fs::write(&blocked, "").expect("written");
        // Where the server's user is not us, it must get to the folder.
        fs::set_permissions(
            temp.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .expect("opened");
        let last = temp.path().join("last");
        let options = Options::durable();
        let (state, note) =
            first_usable(vec![blocked.join("state"), last.clone()], &options).expect("chosen");
        assert_eq!(state, last);
        assert!(note.expect("a note").contains("cannot be used"));
    }
}
