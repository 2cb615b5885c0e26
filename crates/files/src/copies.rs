//! Objects of the object store as files of a backup, out and back in. Knows no record: what a copy should be, the caller says.

use std::path::Path as FilePath;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use jobs::Sum;
use object_store::ObjectStoreExt as _;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::depot::Depot;
use crate::error::FileError;
use crate::sums::Sums;
use crate::writer::{PART, not_ended};

const PIECE: usize = 256 * 1024;

impl Depot {
    /// Whether there is an object store at all.
    pub fn has_objects(&self) -> bool {
        self.objects.is_some()
    }

    /// Copies an object into a new file, and gives its sum; `None` where there is no such object.
    ///
    /// # Errors
    /// When the object store does not answer, or the file cannot be written.
    pub async fn copy_out(&self, key: &str, to: &FilePath) -> Result<Option<Sum>, FileError> {
        let found = match self.objects()?.get(&Path::from(key)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found?,
        };
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)
            .await?;
        let mut sums = Sums::default();
        let mut pieces = found.into_stream();
        while let Some(piece) = pieces.try_next().await? {
            sums.pass(&piece);
            file.write_all(&piece).await?;
        }
        file.sync_all().await?;
        Ok(Some(sums.sum()))
    }

    /// Puts a file back as an object, unless an object of its size is there.
    ///
    /// # Errors
    /// When the object store does not answer, or the file cannot be read.
    pub async fn put_back(&self, key: &str, from: &FilePath) -> Result<bool, FileError> {
        let (objects, path) = (self.objects()?, Path::from(key));
        let mut file = File::open(from).await?;
        let size = file.metadata().await?.len();
        match objects.head(&path).await {
            Ok(there) if there.size == size => return Ok(false),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut object =
            BufWriter::with_capacity(objects.clone(), path, PART).with_max_concurrency(1);
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            (&mut file)
                .take(PIECE as u64)
                .read_to_end(&mut piece)
                .await?;
            if piece.is_empty() {
                break;
            }
            object.put(Bytes::from(piece)).await?;
        }
        object.shutdown().await.map_err(not_ended)?;
        Ok(true)
    }
}
