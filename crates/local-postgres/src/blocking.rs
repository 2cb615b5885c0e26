//! The one door from async callers to this crate's blocking work (processes, locks, files).

use crate::Error;

/// Runs blocking work on a thread that may block.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Error> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| Error::Interrupted { source })?
}
