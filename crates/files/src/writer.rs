//! Bytes on their way in. What is written shows nowhere before `finish`; what is dropped before it is swept one day.

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use jobs::{LeaseKey, NewFile, Sum};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use crate::content_type::content_type_of;
use crate::depot::Depot;
use crate::error::FileError;
use crate::name::file_name_of;
use crate::sums::Sums;

/// Bytes a chunk in PostgreSQL.
pub(crate) const CHUNK: usize = 256 * 1024;
/// Bytes that are held back for one part of an object: the least that an S3 takes.
pub(crate) const PART: usize = 5 * 1024 * 1024;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A job's that is still to be recorded.
    Upload,
    /// A running attempt's.
    Attempt(LeaseKey),
}

/// A file in the making.
#[derive(Debug)]
pub struct Writer {
    depot: Depot,
    owner: Owner,
    id: Uuid,
    sums: Sums,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Chunks { held: Vec<u8>, next: i32 },
    Object(Box<BufWriter>),
}

impl Depot {
    /// Begins a file under a new id.
    ///
    /// # Errors
    /// When its record cannot be made: the lease is lost, or the database does not answer.
    pub async fn begin(
        &self,
        owner: Owner,
        id: Uuid,
        name: &str,
        content_type: &str,
    ) -> Result<Writer, FileError> {
        let new = NewFile {
            id,
            name: name.to_owned(),
            content_type: content_type.to_owned(),
            object: self.object_of(id),
        };
        match owner {
            Owner::Upload => self.store.begin_input(&new).await?,
            Owner::Attempt(key) => self.store.begin_artifact(key, &new).await?,
        }
        let sink = match (&new.object, &self.objects) {
            (Some(key), Some(objects)) => Sink::Object(Box::new(
                BufWriter::with_capacity(objects.clone(), Path::from(key.as_str()), PART)
                    .with_max_concurrency(1),
            )),
            _ => Sink::Chunks {
                held: Vec::with_capacity(CHUNK),
                next: 0,
            },
        };
        Ok(Writer {
            depot: self.clone(),
            owner,
            id,
            sums: Sums::default(),
            sink,
        })
    }
}

impl Writer {
    /// How many bytes have come so far.
    pub fn size(&self) -> u64 {
        self.sums.size()
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they cannot be stored; the file is then to be given up.
    pub async fn push(&mut self, mut bytes: &[u8]) -> Result<(), FileError> {
        self.sums.pass(bytes);
        match &mut self.sink {
            Sink::Object(object) => object.put(Bytes::copy_from_slice(bytes)).await?,
            Sink::Chunks { held, next } => {
                while !bytes.is_empty() {
                    let fits = bytes.len().min(CHUNK - held.len());
                    held.extend_from_slice(&bytes[..fits]);
                    bytes = &bytes[fits..];
                    if held.len() == CHUNK {
                        self.depot.store.append_chunk(self.id, *next, held).await?;
                        held.clear();
                        *next += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Stores what is left and says that the file is whole; `place` orders the files of an upload.
    ///
    /// # Errors
    /// When that cannot be done; the file then never shows.
    pub async fn finish(mut self, place: i32) -> Result<(Uuid, Sum), FileError> {
        match &mut self.sink {
            Sink::Object(object) => object.shutdown().await.map_err(not_ended)?,
            Sink::Chunks { held, next } if !held.is_empty() => {
                self.depot.store.append_chunk(self.id, *next, held).await?;
            }
            Sink::Chunks { .. } => {}
        }
        let sum = self.sums.sum();
        match self.owner {
            Owner::Upload => {
                self.depot
                    .store
                    .complete_input(self.id, place, &sum)
                    .await?;
            }
            Owner::Attempt(key) => {
                self.depot
                    .store
                    .complete_artifact(key, self.id, &sum)
                    .await?;
            }
        }
        Ok((self.id, sum))
    }

    /// Forgets the file; what cannot be forgotten now is swept one day.
    pub async fn give_up(mut self) {
        if let Sink::Object(object) = &mut self.sink {
            // A part that stays behind is the bucket's lifecycle rule's.
            let _ = object.abort().await;
        }
        let _ = self.depot.store.discard_files(&[self.id]).await;
    }
}

/// A file of an upload, once it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// Under which id.
    pub id: Uuid,
    /// Its name, as it is kept and shown.
    pub name: String,
    /// Its size and digests.
    pub sum: Sum,
}

impl Depot {
    /// Stores a file of an upload piece by piece, as they come; what comes to nothing is forgotten. `id` is a new
    /// one, `sent` the name in its sender's words, `place` its place in the upload.
    ///
    /// # Errors
    /// What a piece says instead of its bytes, and what `failed` makes of an error of ours.
    pub async fn take_in<E>(
        &self,
        id: Uuid,
        sent: Option<&str>,
        place: i32,
        mut pieces: BoxStream<'_, Result<Bytes, E>>,
        failed: impl Fn(FileError) -> E,
    ) -> Result<Uploaded, E> {
        let name = file_name_of(sent);
        let begun = self.begin(Owner::Upload, id, &name, content_type_of(&name));
        let mut writer = begun.await.map_err(&failed)?;
        loop {
            let step = match pieces.next().await {
                Some(Ok(bytes)) => writer.push(&bytes).await.map_err(&failed),
                Some(Err(error)) => Err(error),
                None => break,
            };
            if let Err(error) = step {
                writer.give_up().await;
                return Err(error);
            }
        }
        let (id, sum) = writer.finish(place).await.map_err(&failed)?;
        Ok(Uploaded { id, name, sum })
    }
}

pub(crate) fn not_ended(error: std::io::Error) -> FileError {
    FileError::Objects(object_store::Error::Generic {
        store: "object store",
        source: error.into(),
    })
}
