//! What a caller wishes of a cluster. Reads nothing by itself.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::Mode;

/// Which folder a cluster lives in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The usual one: `/var/lib/ops-jobs` for root, else `ops-jobs` in the user's state directory.
    Default,
    /// This one, or none.
    At(PathBuf),
    /// A new one in the temp directory, which is removed when the cluster stops.
    Ephemeral,
}

/// What a caller wishes of a cluster; the surroundings are given here, because this crate reads no environment.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether the data must survive a power cut.
    pub mode: Mode,
    /// The folder.
    pub place: Place,
    /// The caller's HOME.
    pub home: Option<PathBuf>,
    /// The caller's `XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// The caller's PATH.
    pub path: Option<OsString>,
    /// The caller's temp directory.
    pub temp_dir: PathBuf,
    /// The directory of PostgreSQL's programs, if the caller insists on one.
    pub programs: Option<PathBuf>,
    /// The user to run PostgreSQL as, if the caller is root and insists on one.
    pub run_as: Option<String>,
}

impl Options {
    /// A lasting cluster in the default place.
    #[must_use]
    pub fn durable() -> Self {
        Self {
            mode: Mode::Durable,
            place: Place::Default,
            home: None,
            xdg_state_home: None,
            path: None,
            temp_dir: PathBuf::from("/tmp"),
            programs: None,
            run_as: None,
        }
    }

    /// A fast cluster that leaves nothing behind.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self {
            mode: Mode::Test,
            place: Place::Ephemeral,
            ..Self::durable()
        }
    }
}
