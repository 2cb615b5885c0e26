//! Other processes of a run: this program again as a service, and peers. The one file here that starts processes.

use std::fs::{self, DirBuilder};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::Result;

/// A process that prints lines and is killed with this.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a command with these variables beside what it inherits.
    ///
    /// # Errors
    /// When it cannot be started.
    #[expect(clippy::disallowed_methods, reason = "this is the file that does")]
    pub fn start(argv: &[String], environment: &[(String, String)]) -> Result<Self> {
        let (program, arguments) = argv.split_first().ok_or("a command without a program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let output = child.stdout.take().ok_or("no output")?;
        Ok(Self {
            child,
            lines: BufReader::new(output).lines(),
        })
    }

    /// The next line.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn line(&mut self) -> Result<String> {
        let line = self.lines.next_line().await?;
        line.ok_or_else(|| "the process ended before its time".into())
    }

    /// What follows `word` on the first line that begins with it.
    ///
    /// # Errors
    /// When it ends without having said so.
    pub async fn after(&mut self, word: &str) -> Result<String> {
        loop {
            let line = self.line().await?;
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    /// The most memory that it ever had, in megabytes.
    ///
    /// # Errors
    /// When it is gone, or the system does not tell.
    pub fn peak_memory(&self) -> Result<f64> {
        let id = self.child.id().ok_or("the process has ended")?;
        peak_memory_in(&std::fs::read_to_string(format!("/proc/{id}/status"))?)
            .ok_or_else(|| "the system does not tell".into())
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

fn peak_memory_in(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes / 1024.0)
}

/// Starts and reaps a program over and over, as many times as asked, one after the other.
///
/// # Errors
/// When it cannot be started.
#[expect(clippy::disallowed_methods, reason = "this is the file that does")]
pub fn spawn_and_reap(program: &str, times: u64) -> Result<()> {
    for _ in 0..times {
        std::process::Command::new(program)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
    }
    Ok(())
}

/// The same, each with what a command of a job has: a private folder with two more and two files, its payload on standard
/// input, and pipes that are read to their ends.
///
/// # Errors
/// When one cannot be started, or `folder` not be written to.
#[expect(clippy::disallowed_methods, reason = "this is the file that does")]
pub fn spawn_in_folders(program: &str, times: u64, folder: &Path) -> Result<()> {
    let private = || {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder
    };
    for number in 0..times {
        let own = folder.join(number.to_string());
        private().create(&own)?;
        private().create(own.join("artifacts"))?;
        private().create(own.join("input"))?;
        fs::write(own.join("payload.json"), "{}")?;
        fs::write(own.join("events.jsonl"), "")?;
        let mut child = std::process::Command::new(program)
            .current_dir(&own)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Most programs do not read it.
            let _ = stdin.write_all(b"{}");
        }
        child.wait_with_output()?;
        fs::remove_dir_all(&own)?;
    }
    Ok(())
}

/// This program, to be started as something else.
///
/// # Errors
/// When the system does not tell.
pub fn this_program() -> Result<String> {
    let path = std::env::current_exe()?;
    Ok(path.to_str().ok_or("a path that is no text")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_memory_is_read_from_what_the_system_tells() {
        let status = "Name:\tx\nVmPeak:\t  1 kB\nVmHWM:\t   20480 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(peak_memory_in(status), Some(20.0));
        assert_eq!(peak_memory_in("Name:\tx\n"), None);
    }
}
