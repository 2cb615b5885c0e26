//! A `PgBouncer` in transaction mode before a test's database, for tests that must pass through one.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::Error;
use crate::blocking::blocking;
use crate::files::{private_directory, remove, wait_until};
use crate::launch::START_LIMIT;
use crate::testing::Settings;
use crate::user::ServerUser;

/// Runs the pooler, and ends it when our end of the pipe closes, however we ended.
const SCRIPT: &str =
    r#""$@" & child=$!; read -r _; kill -9 "$child" 2>/dev/null; wait "$child" 2>/dev/null"#;

/// A pooler that lends each transaction another of its few sessions; gone with this value.
#[derive(Debug)]
pub struct Bouncer {
    address: SocketAddr,
    folder: PathBuf,
    child: Child,
    pipe: Option<ChildStdin>,
}

/// Starts a pooler of `sessions` sessions before the server of `url`, which must be reached over a unix socket or
/// loopback without a password.
///
/// # Errors
/// When `PgBouncer` is not installed: the error says what to install.
pub async fn bouncer(host: String, port: u16, sessions: u32) -> Result<Bouncer, Error> {
    blocking(move || Bouncer::start(&host, port, sessions)).await
}

impl Bouncer {
    /// Where clients connect to, with any database of the server, as any user.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn start(host: &str, port: u16, sessions: u32) -> Result<Self, Error> {
        let settings = Settings::from_environment();
        let user = ServerUser::choose(settings.options.run_as.as_deref(), None)?;
        let program = program(&settings)?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(Error::io("find a port for", &program))?;
        let folder = settings.options.temp_dir.join(format!(
            "ops-bouncer-{}-{}",
            std::process::id(),
            free.port()
        ));
        private_directory(&folder, &user)?;
        let config = folder.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={host} port={port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
             default_pool_size = {sessions}\nserver_round_robin = 1\nmax_client_conn = 200\n",
            free.port()
        );
        fs::File::create(&config)
            .and_then(|mut file| {
                file.set_permissions(fs::Permissions::from_mode(0o644))?;
                file.write_all(text.as_bytes())
            })
            .map_err(Error::io("write", &config))?;
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the file that starts the pooler"
        )]
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "bouncer"]).arg(&program);
        command.arg("-q").arg(&config).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command.stderr(
            fs::File::create(folder.join("log")).map_err(Error::io("write a log in", &folder))?,
        );
        user.take_over(&mut command);
        let mut child = command.spawn().map_err(Error::io("start", &program))?;
        let bouncer = Self {
            address: free,
            pipe: child.stdin.take(),
            folder,
            child,
        };
        if wait_until(START_LIMIT, || TcpStream::connect(free).is_ok()) {
            return Ok(bouncer);
        }
        Err(Error::NotReady {
            problem: format!(
                "PgBouncer does not listen: {}",
                fs::read_to_string(bouncer.folder.join("log")).unwrap_or_default()
            ),
        })
    }
}

fn program(settings: &Settings) -> Result<PathBuf, Error> {
    let path = settings.options.path.iter().flat_map(std::env::split_paths);
    path.chain(["/usr/sbin", "/usr/bin", "/usr/local/bin"].map(PathBuf::from))
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.is_file())
        .ok_or_else(|| Error::NotReady {
            problem: "PgBouncer is not installed: run `.ci/install`, or `apt-get install pgbouncer` (Debian, Ubuntu), \
                      `dnf install pgbouncer` (Fedora), `brew install pgbouncer` (macOS)"
                .to_owned(),
        })
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.child.wait();
        let _ = remove(&self.folder);
    }
}
