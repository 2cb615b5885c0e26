//! The private folder of one run: what a command is given, and where it leaves its result. Removed after the run.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde_json::Value;

use crate::config::AfterRun;

/// The largest result file that is read.
const LARGEST_RESULT: u64 = 1024 * 1024;
/// Less free space than this is none.
const OUT_OF_SPACE: u64 = 64 * 1024;

/// The folder of one run; dropping it removes it.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    after_run: AfterRun,
}

impl RunFolder {
    /// Makes the folder, with one for what the job is given and one for what it leaves.
    pub(crate) fn make(path: PathBuf, after_run: AfterRun) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(&path)?;
        let folder = Self { path, after_run };
        DirBuilder::new().mode(0o700).create(folder.artifacts())?;
        DirBuilder::new().mode(0o700).create(folder.inputs())?;
        Ok(folder)
    }

    /// Puts a command's payload into it, and an empty file for its events, which it gives.
    pub(crate) fn furnish(&self, payload: &[u8]) -> io::Result<File> {
        private_file(&self.payload())?.write_all(payload)?;
        private_file(&self.events())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn payload(&self) -> PathBuf {
        self.path.join("payload.json")
    }

    /// What the stages before this one answered; there only for a job with stages.
    pub(crate) fn stages(&self) -> PathBuf {
        self.path.join("stages.json")
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    pub(crate) fn result(&self) -> PathBuf {
        self.path.join("result.json")
    }

    pub(crate) fn artifacts(&self) -> PathBuf {
        self.path.join("artifacts")
    }

    /// Where the files are that the job is given.
    pub(crate) fn inputs(&self) -> PathBuf {
        self.path.join("input")
    }

    /// The list of them, with the names that their sender gave them.
    pub(crate) fn inputs_list(&self) -> PathBuf {
        self.path.join("inputs.json")
    }

    /// The result that the command left, or what is wrong with it.
    pub(crate) fn read_result(&self) -> Result<Value, String> {
        let text = self
            .read_result_text()
            .map_err(|error| format!("result cannot be read: {}", error.kind()))?;
        if text.len() as u64 > LARGEST_RESULT {
            return Err(format!("result is larger than {LARGEST_RESULT} bytes"));
        }
        if text.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&text).map_err(|_| "result is not JSON".to_owned())
    }

    /// Empty where there is none. Follows no link and waits for no pipe that the command may have put there instead.
    fn read_result_text(&self) -> io::Result<Vec<u8>> {
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        let file = match OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(self.result())
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut text = Vec::new();
        file.take(LARGEST_RESULT + 1).read_to_end(&mut text)?;
        Ok(text)
    }

    /// Whether next to nothing can be written any more, for want of space or of inodes.
    pub(crate) fn is_out_of_space(&self) -> bool {
        rustix::fs::statvfs(&self.path).is_ok_and(|disk| {
            let is_full = disk.f_bavail.saturating_mul(disk.f_frsize) < OUT_OF_SPACE;
            is_full || (disk.f_files > 0 && disk.f_favail == 0)
        })
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if self.after_run == AfterRun::Remove {
            remove(&self.path);
        }
    }
}

pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

pub(crate) fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(event = "folder_not_removed", folder = %path.display(), %error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, RunFolder) {
        let outer = tempfile::tempdir().expect("a folder");
        let path = outer.path().join("run");
        std::fs::create_dir_all(path.join("artifacts/deep")).expect("made");
        (
            outer,
            RunFolder {
                path,
                after_run: AfterRun::Remove,
            },
        )
    }

    #[test]
    fn a_result_is_json_or_nothing() {
        let (_outer, run) = folder();
        assert_eq!(run.read_result(), Ok(Value::Null));
        for (text, expected) in [
            ("", Ok(Value::Null)),
            (" \n", Ok(Value::Null)),
            ("{\"a\":1}", Ok(serde_json::json!({"a": 1}))),
            ("nonsense", Err("result is not JSON".to_owned())),
        ] {
            std::fs::write(run.result(), text).expect("written");
            assert_eq!(run.read_result(), expected, "{text}");
        }
        std::fs::write(run.result(), vec![b' '; 2 * 1024 * 1024]).expect("written");
        assert!(run.read_result().expect_err("too large").contains("larger"));
    }

    #[test]
    fn a_result_that_is_a_link_is_not_followed() {
        let (outer, run) = folder();
        std::fs::write(outer.path().join("secret"), "1").expect("written");
        std::os::unix::fs::symlink(outer.path().join("secret"), run.result()).expect("linked");
        assert!(run.read_result().is_err());
    }

    #[test]
    fn a_run_folder_goes_with_its_files() {
        let (outer, run) = folder();
        std::fs::write(run.artifacts().join("deep/a"), "1").expect("written");
        std::fs::write(run.artifacts().join("b"), "1").expect("written");
        drop(run);
        assert!(!outer.path().join("run").exists());
    }
}
