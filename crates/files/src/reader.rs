//! Bytes on their way out, from any place in the file. A reader that comes up short fails: a download is whole or broken.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use jobs::File;
use object_store::path::Path;
use object_store::{GetOptions, GetRange};

use crate::depot::Depot;
use crate::error::FileError;
use crate::writer::CHUNK;

/// Some of a file's bytes.
pub type Piece = Result<Bytes, FileError>;

impl Depot {
    /// The bytes of a file from one place to another, which is never past its end.
    pub fn read(&self, file: &File, range: Range<u64>) -> BoxStream<'static, Piece> {
        let range = range.start.min(file.sum.size)..range.end.min(file.sum.size);
        if range.is_empty() {
            return stream::empty().boxed();
        }
        let wanted = range.end - range.start;
        let (depot, of_read) = (self.clone(), file.clone());
        let pieces = match &file.object {
            None => chunks(depot, file.id, range),
            Some(_) => stream::once(async move { depot.object(&of_read, range).await })
                .try_flatten()
                .boxed(),
        };
        whole(pieces, file.id, wanted)
    }

    /// All bytes of a file.
    pub fn read_all(&self, file: &File) -> BoxStream<'static, Piece> {
        self.read(file, 0..file.sum.size)
    }

    async fn object(
        &self,
        file: &File,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Piece>, FileError> {
        let key = Path::from(file.object.as_deref().unwrap_or_default());
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let found = self.objects()?.clone();
        let found = object_store::ObjectStore::get_opts(&*found, &key, options).await?;
        Ok(found.into_stream().map_err(FileError::from).boxed())
    }
}

fn chunks(depot: Depot, id: uuid::Uuid, range: Range<u64>) -> BoxStream<'static, Piece> {
    stream::try_unfold(range, move |left| {
        let depot = depot.clone();
        async move {
            if left.is_empty() {
                return Ok(None);
            }
            let chunk = CHUNK as u64;
            let number = i32::try_from(left.start / chunk).map_err(|_| FileError::Damaged(id))?;
            let body = depot
                .store
                .chunk(id, number)
                .await?
                .ok_or(FileError::Damaged(id))?;
            let skip = usize::try_from(left.start % chunk).unwrap_or(usize::MAX);
            let most = usize::try_from(left.end - left.start).unwrap_or(usize::MAX);
            if body.len() <= skip {
                return Err(FileError::Damaged(id));
            }
            let piece = Bytes::from(body).slice(skip..);
            let piece = piece.slice(..piece.len().min(most));
            let next = left.start + piece.len() as u64;
            Ok(Some((piece, next..left.end)))
        }
    })
    .boxed()
}

/// Ends with an error where the bytes end too early, or go on for too long.
fn whole(
    pieces: BoxStream<'static, Piece>,
    id: uuid::Uuid,
    wanted: u64,
) -> BoxStream<'static, Piece> {
    let counted = stream::try_unfold((pieces, wanted), move |(mut pieces, left)| async move {
        match pieces.try_next().await? {
            Some(piece) if piece.len() as u64 <= left => {
                let left = left - piece.len() as u64;
                Ok(Some((piece, (pieces, left))))
            }
            None if left == 0 => Ok(None),
            Some(_) | None => Err(FileError::Damaged(id)),
        }
    });
    counted.boxed()
}
