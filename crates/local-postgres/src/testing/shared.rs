//! The server that the test processes share. A process counts as a user while it holds the FIFO `users` open for
//! writing, which the system ends with it; the guard stops the server when there was none for a while.
//!
//! No start can race a stop: the guard first renames the FIFO, then looks for users once more; a process is a user only
//! if the FIFO still has its name after it was opened. Whoever finds the door closed waits until the guard is gone.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustix::fs::OFlags;
use tokio::sync::OnceCell;

use crate::blocking::blocking;
use crate::cluster::programs_for;
use crate::files::{self, PAUSE, lock, private_directory, try_lock, wait_until};
use crate::guard::{Remove, Watch};
use crate::launch::{START_LIMIT, launch};
use crate::pid_file::{PidFile, Status};
use crate::psql::Psql;
use crate::settle::end_orphan;
use crate::state::{Layout, short_hash};
use crate::testing::Settings;
use crate::url::{over_socket, with_database};
use crate::user::ServerUser;
use crate::{Error, Mode, Place, Programs};

/// Where the server's data go if so much is free there, in bytes: dropping a database on a disk is slow.
const MEMORY: (&str, u64) = ("/dev/shm", 2 << 30);

/// A server on which tests make databases; it may stop only when the last clone of this is gone.
#[derive(Clone)]
pub struct TestServer {
    pub(super) admin_url: String,
    pub(super) psql: Psql,
    /// Where the locks of templates are.
    pub(super) locks: PathBuf,
    _user: Option<Arc<File>>,
}

impl fmt::Debug for TestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestServer")
            .field("locks", &self.locks)
            .finish_non_exhaustive()
    }
}

impl TestServer {
    /// The server of this process, by `Settings::from_environment`; it is a user of it until its end.
    pub async fn of_this_process() -> Result<&'static Self, Error> {
        static SERVER: OnceCell<TestServer> = OnceCell::const_new();
        SERVER
            .get_or_try_init(async || Self::new(&Settings::from_environment()).await)
            .await
    }

    /// The given server, else the one shared by the processes with the same `workspace`.
    pub async fn new(settings: &Settings) -> Result<Self, Error> {
        let mut settings = settings.clone();
        settings.options.place = Place::Ephemeral;
        if let Some(url) = settings.given_url.clone() {
            return blocking(move || Self::given(&url, &settings)).await;
        }
        let (layout, settings) =
            blocking(move || shared_layout(&settings).map(|layout| (layout, settings))).await?;
        let programs = programs_for(&layout, &settings.options).await?;
        blocking(move || Self::shared(&layout, &programs, &settings)).await
    }

    fn given(url: &str, settings: &Settings) -> Result<Self, Error> {
        let locks = settings.options.temp_dir.join(format!(
            "ops-jobs-locks-{}",
            rustix::process::geteuid().as_raw()
        ));
        let us = ServerUser::ourselves();
        private_directory(&locks, &us)?;
        let locks = locks.join(short_hash(url));
        private_directory(&locks, &us)?;
        Ok(Self {
            admin_url: with_database(url, "postgres"),
            psql: Psql::on(settings.options.path.clone())?,
            locks,
            _user: None,
        })
    }

    fn shared(layout: &Layout, programs: &Programs, settings: &Settings) -> Result<Self, Error> {
        let psql = Psql::of(programs, settings.options.path.clone())?;
        let _starting = lock(&layout.start_lock())?;
        let user = join_or_start(layout, programs, settings)?;
        let admin_url = over_socket(&layout.socket, "postgres");
        Ok(Self {
            admin_url,
            psql,
            locks: layout.home.clone(),
            _user: Some(Arc::new(user)),
        })
    }
}

fn shared_layout(settings: &Settings) -> Result<Layout, Error> {
    let workspace = settings
        .workspace
        .canonicalize()
        .map_err(Error::io("find", &settings.workspace))?;
    let user = ServerUser::choose(settings.options.run_as.as_deref(), None)?;
    let name = format!(
        "ops-jobs-tests-{}",
        short_hash(&format!("{} {}", workspace.display(), user.uid))
    );
    let (memory, enough) = MEMORY;
    let in_memory = Path::new(memory).join(&name);
    // Who came earlier may have filled the memory, and still is where everybody must go.
    let state = if in_memory.exists() || files::free_space(Path::new(memory)) >= enough {
        in_memory
    } else {
        settings.options.temp_dir.join(&name)
    };
    private_directory(&state, &user)?;
    Layout::at(state, None, &settings.options)
}

/// Becomes a user of the running server, or starts one; the caller holds the start lock.
fn join_or_start(layout: &Layout, programs: &Programs, settings: &Settings) -> Result<File, Error> {
    let users = layout.home.join("users");
    let start = Instant::now();
    loop {
        if let Some(user) = join(&users) {
            let ready = wait_until(START_LIMIT, || is_ready(layout) || is_gone(layout));
            if ready && is_ready(layout) {
                return Ok(user);
            }
        } else if let Some(alive) = try_lock(&layout.alive_lock())? {
            // Nobody lives, so what is there is the rest of an accident; making it new takes half a second.
            ["data", "data.new"]
                .iter()
                .try_for_each(|name| files::remove(&layout.home.join(name)))?;
            let linger = u32::try_from(settings.linger.as_secs())
                .unwrap_or(u32::MAX)
                .max(1);
            // Dropping the guard's handle leaves it alone: this server is not ours.
            drop(launch(
                layout,
                programs,
                Mode::Test,
                Watch::Users { linger },
                Remove::Data,
                &alive,
            )?);
        } else if start.elapsed() > START_LIMIT / 4 {
            // A guard that stops its server is done long before: this one was killed.
            end_orphan(layout)?;
        }
        if start.elapsed() > START_LIMIT {
            return Err(Error::NotReady {
                problem: format!(
                    "the tests' server in {} neither runs nor ends",
                    layout.home.display()
                ),
            });
        }
        thread::sleep(PAUSE);
    }
}

/// Holds the FIFO open, if a guard reads it and will go on doing so.
fn join(users: &Path) -> Option<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(users)
        .ok()?;
    file.write_all(b"\n").ok()?;
    let (ours, named) = (file.metadata().ok()?, users.symlink_metadata().ok()?);
    (ours.ino() == named.ino() && ours.dev() == named.dev()).then_some(file)
}

fn is_ready(layout: &Layout) -> bool {
    PidFile::read(&layout.data()).is_some_and(|file| file.status == Status::Ready && file.answers())
}

fn is_gone(layout: &Layout) -> bool {
    try_lock(&layout.alive_lock()).is_ok_and(|lock| lock.is_some())
}
