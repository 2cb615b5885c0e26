//! PostgreSQL for tests: one server for all test processes of a checkout, a database of its own for each test.
//!
//! The server outlives the process that started it and stops by itself some 20 seconds after the last test process
//! ended, however that ended; its data are removed then. Two empty lock files stay.

mod bouncer;
mod database;
mod private;
mod shared;

use std::error::Error as StdError;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Error, Options};

pub use bouncer::{Bouncer, bouncer};
pub use database::TestDatabase;
pub use private::{PrivateCluster, private_cluster};
pub use shared::TestServer;

/// What the test processes of one checkout must agree on, and where they find things.
#[derive(Clone)]
pub struct Settings {
    /// The caller's surroundings: PATH, HOME and the like. `mode` and `place` are not looked at.
    pub options: Options,
    /// The folder that the shared server stands for; only its name is used.
    pub workspace: PathBuf,
    /// The address of a server to use instead of our own, with the right to make databases.
    pub given_url: Option<String>,
    /// How long the shared server waits for another test process, in whole seconds.
    pub linger: Duration,
}

impl Settings {
    /// Reads PATH, HOME, `XDG_STATE_HOME`, TMPDIR and `TEST_DATABASE_URL`: the one place where this library does.
    #[must_use]
    pub fn from_environment() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "tests run before any settings exist"
        )]
        let variable =
            |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
        let mut options = Options::ephemeral();
        options.path = variable("PATH");
        options.home = variable("HOME").map(PathBuf::from);
        options.xdg_state_home = variable("XDG_STATE_HOME").map(PathBuf::from);
        options.temp_dir = variable("TMPDIR").map_or(options.temp_dir, PathBuf::from);
        Self {
            options,
            workspace: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")),
            given_url: variable("TEST_DATABASE_URL").and_then(|url| url.into_string().ok()),
            linger: Duration::from_secs(20),
        }
    }
}

/// A database of its own for one test, copied from the template `template_key`, which `build` fills the first time.
///
/// `build` gets the address of an empty database, and runs once for all test processes; a key stands for what it makes
/// for good, so put a hash of the migrations into it.
pub async fn database<Build>(template_key: &str, build: Build) -> Result<TestDatabase, Error>
where
    Build: AsyncFnOnce(String) -> Result<(), Box<dyn StdError + Send + Sync>>,
{
    TestServer::of_this_process()
        .await?
        .database(template_key, build)
        .await
}
