//! Makes a data directory and starts a server on it. Knows nothing of who shares it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::files::{self, end_of, free_space, last_lines, wait_until};
use crate::guard::{Guard, Remove, Watch};
use crate::pid_file::{PidFile, Status};
use crate::state::{Layout, fresh_socket};
use crate::url::{PORT, SUPERUSER};
use crate::{Error, Programs};

/// Recovery after a crash reads the log of changes before the server is ready.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);

/// Whether the data must survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They must: for work that somebody may miss.
    Durable,
    /// They need not: for tests, several times faster.
    Test,
    /// They must, on a server of the size that a busy installation gives it: for measurements.
    Measured,
}

const ALWAYS: [&str; 6] = [
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "timezone=UTC",
    "log_timezone=UTC",
    "jit=off",
    "logging_collector=off",
];
const DURABLE: [&str; 1] = ["max_connections=100"];
const MEASURED: [&str; 13] = [
    "max_connections=200",
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "wal_sync_method=fdatasync",
    "wal_compression=off",
    "shared_buffers=512MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=5min",
    "work_mem=16MB",
    "maintenance_work_mem=256MB",
    "effective_cache_size=8GB",
    "random_page_cost=1.1",
];
const TEST: [&str; 12] = [
    "max_connections=200",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "autovacuum=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "shared_buffers=64MB",
    "max_wal_size=256MB",
    "checkpoint_timeout=1h",
    "log_checkpoints=off",
    "dynamic_shared_memory_type=mmap", // in the data, so that a server which a test killed leaves nothing elsewhere
];

/// Starts a server; the caller holds the start lock, and `alive` proves that none of ours is left.
pub(crate) fn launch(
    layout: &Layout,
    programs: &Programs,
    mode: Mode,
    watch: Watch,
    remove: Remove,
    alive: &File,
) -> Result<Guard, Error> {
    clear_what_is_dead(layout)?;
    if !layout.data().exists() {
        make_data(layout, programs, mode, alive)?;
    }
    fresh_socket(layout)?;
    if layout.log().exists() {
        fs::rename(layout.log(), layout.home.join("log.old"))
            .map_err(Error::io("put aside", &layout.log()))?;
    }
    let mut guard = Guard::spawn(
        layout,
        watch,
        remove,
        alive,
        &server(layout, programs, mode),
    )?;
    let mut ended = false;
    let ready = wait_until(START_LIMIT, || {
        ended = guard.has_ended();
        ended || is_ready(&layout.data(), guard.server)
    });
    if ready && !ended {
        return Ok(guard);
    }
    let what = if ended {
        "the server ended"
    } else {
        "the server took too long"
    };
    Err(Error::NotReady {
        problem: format!(
            "{what}; the end of {}:\n{}",
            layout.log().display(),
            end_of(&layout.log())
        ),
    })
}

/// Whether this very process says that it is ready: the file may be left from an older one.
fn is_ready(data: &Path, server: u32) -> bool {
    PidFile::read(data).is_some_and(|file| file.pid == server && file.status == Status::Ready)
}

/// Takes away a pid file whose number another program has by now, which would keep the server from starting.
fn clear_what_is_dead(layout: &Layout) -> Result<(), Error> {
    let Some(file) = PidFile::read(&layout.data()).filter(PidFile::process_lives) else {
        return Ok(());
    };
    // Ours are all gone, so whoever answers was started by hand.
    if file.answers() {
        return Err(Error::ForeignServer {
            pid: file.pid,
            data: layout.data(),
        });
    }
    files::remove(&layout.data().join("postmaster.pid"))
}

/// Makes the data under another name first: a crash half-way leaves nothing that looks whole.
fn make_data(layout: &Layout, programs: &Programs, mode: Mode, alive: &File) -> Result<(), Error> {
    let new = layout.home.join("data.new");
    files::remove(&new)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the file that makes a cluster"
    )]
    let mut command = Command::new(programs.directory().join("initdb"));
    // Only the directory's mode keeps others out, which is proved at each start; so trust is enough.
    command
        .args([
            "-U",
            SUPERUSER,
            "-E",
            "UTF8",
            "--no-locale",
            "--auth-local=trust",
            "--auth-host=reject",
            "-D",
        ])
        .arg(&new);
    if mode == Mode::Test {
        command.arg("--no-sync");
    }
    command
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/bin:/bin")
        .current_dir(&layout.home);
    // It holds the lock too, so nobody removes its directory while it outlives us.
    command.stdin(Stdio::from(
        alive
            .try_clone()
            .map_err(Error::io("share the lock of", &layout.home))?,
    ));
    layout.user.take_over(&mut command);
    let output = command
        .output()
        .map_err(Error::io("start initdb of", programs.directory()))?;
    if !output.status.success() {
        let mut output = last_lines(&String::from_utf8_lossy(&output.stderr));
        if output.contains("could not look up effective user ID") {
            output.push_str("\nthis user has no entry in the password file: add one, or set DATABASE_URL to a server that you have");
        }
        return Err(Error::Program {
            program: "initdb",
            output,
        });
    }
    fs::rename(&new, layout.data()).map_err(Error::io("name", &layout.data()))?;
    let home = File::open(&layout.home).and_then(|home| home.sync_all());
    home.map_err(Error::io("write down", &layout.home))
}

fn server(layout: &Layout, programs: &Programs, mode: Mode) -> Vec<OsString> {
    let mut command: Vec<OsString> = vec![
        programs.directory().join("postgres").into(),
        "-D".into(),
        layout.data().into(),
    ];
    let by_mode: &[&str] = match mode {
        Mode::Durable => &DURABLE,
        Mode::Test => &TEST,
        Mode::Measured => &MEASURED,
    };
    let mut settings: Vec<String> = ALWAYS
        .iter()
        .chain(by_mode)
        .map(|setting| (*setting).to_owned())
        .collect();
    settings.push(format!("port={PORT}"));
    settings.push(format!(
        "unix_socket_directories={}",
        layout.socket.display()
    ));
    // Containers often have 64 MB here, which a few parallel queries use up.
    if mode != Mode::Test
        && cfg!(target_os = "linux")
        && free_space(Path::new("/dev/shm")) < 256 << 20
    {
        settings.push("dynamic_shared_memory_type=mmap".to_owned());
    }
    for setting in settings {
        command.extend(["-c".into(), setting.into()]);
    }
    command
}
