//! The shell that runs a server and outlives us just long enough to stop it (`guard.sh`). Decides nothing itself.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::Error;
use crate::files::wait_until;
use crate::pid_file::raw_pid;
use crate::state::Layout;

const SCRIPT: &str = include_str!("guard.sh");
/// The guard itself loses its patience after ten seconds.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Whose end ends the server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Watch {
    /// Ours.
    Owner,
    /// That of everybody who holds the FIFO `users`, after this many seconds in which nobody did.
    Users { linger: u32 },
}

/// What the guard removes after a stop that was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remove {
    Nothing,
    Data,
    All,
}

/// A running guard and its server.
#[derive(Debug)]
pub(crate) struct Guard {
    child: Child,
    /// Its end, by our hand or by our death, tells the guard to stop the server.
    pipe: Option<ChildStdin>,
    /// The server's process id.
    pub(crate) server: u32,
}

impl Guard {
    pub(crate) fn spawn(
        layout: &Layout,
        watch: Watch,
        remove: Remove,
        alive: &File,
        server: &[OsString],
    ) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            doing: "start the server's guard".to_owned(),
            source,
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the file that starts a server"
        )]
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "guard"]);
        let (who, stdin) = match watch {
            Watch::Owner => ("owner".to_owned(), Stdio::piped()),
            Watch::Users { linger } => (linger.to_string(), Stdio::null()),
        };
        let what = match remove {
            Remove::Nothing => "keep",
            Remove::Data => "data",
            Remove::All => "all",
        };
        command
            .arg(who)
            .arg(what)
            .arg(&layout.home)
            .arg(&layout.socket)
            .args(server);
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .current_dir("/");
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(alive.try_clone().map_err(failed)?);
        // A Ctrl-C at our terminal is for us; we stop the server when we are done with it.
        command.process_group(0);
        layout.user.take_over(&mut command);
        let mut child = command.spawn().map_err(failed)?;
        let pipe = child.stdin.take();
        let mut line = String::new();
        let told = child
            .stdout
            .take()
            .map(|stdout| BufReader::new(stdout).read_line(&mut line))
            .transpose();
        match (told, line.trim().parse()) {
            (Ok(_), Ok(server)) => Ok(Self {
                child,
                pipe,
                server,
            }),
            (Err(source), _) => Err(failed(source)),
            (Ok(_), Err(_)) => Err(Error::NotReady {
                problem: format!("its guard ended; see {}", layout.log().display()),
            }),
        }
    }

    /// Whether the guard is gone, and with it the server.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops the server (a fast, clean shutdown) and waits until it is gone.
    pub(crate) fn stop(mut self) {
        drop(self.pipe.take());
        if !wait_until(STOP_LIMIT, || self.has_ended()) {
            self.signal(Signal::KILL);
            // Its server is gone, so it ends too.
            let _ = self.child.wait();
        }
    }

    /// Sends the server a signal that ends it, and waits for that; the guard removes nothing then.
    pub(crate) fn end_server_by(mut self, signal: Signal) {
        self.signal(signal);
        if !wait_until(STOP_LIMIT, || self.has_ended()) {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        // That it is gone already is what we want.
        let _ = raw_pid(self.server).map(|pid| kill_process(pid, signal));
    }
}
