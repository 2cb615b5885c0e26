//! The services' log goes to a file, so that it is not between the lines of the story on the screen.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use service::telemetry::LogSettings;

use crate::error::Error;

pub(super) const LOG_FILE: &str = "dev.log";
pub(super) const OLD_LOG_FILE: &str = "dev.log.old";

/// Begins a new log in the folder; the one of the last start is kept beside it.
pub(super) fn start(folder: &Path, settings: &LogSettings) -> Result<PathBuf, Error> {
    let path = folder.join(LOG_FILE);
    match fs::rename(&path, folder.join(OLD_LOG_FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Error::io("put aside", &path)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let file = options
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    service::telemetry::init_to_file(settings, file);
    Ok(path)
}
