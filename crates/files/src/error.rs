//! What can go wrong with a file's bytes, told apart by what the caller should do.

use std::error::Error;
use std::fmt;

use jobs::StoreError;
use uuid::Uuid;

/// Why bytes were not stored or read.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileError {
    /// PostgreSQL did not do it.
    Store(StoreError),
    /// The object store did not do it.
    Objects(object_store::Error),
    /// What is stored is not what the record says.
    Damaged(Uuid),
    /// `ARTIFACT_STORE` names a place that cannot be used; the text never holds a secret.
    Place(String),
    /// A file on this machine was not written or read.
    Disk(std::io::Error),
}

impl FileError {
    /// Whether the same may work a little later.
    pub fn passes(&self) -> bool {
        match self {
            Self::Store(StoreError::Unavailable(_)) => true,
            // Timeouts and refusals of the network come as this one; what is final has a variant of its own.
            Self::Objects(object_store::Error::Generic { .. }) => true,
            Self::Store(_)
            | Self::Objects(_)
            | Self::Damaged(_)
            | Self::Place(_)
            | Self::Disk(_) => false,
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(_) => f.write_str("the database did not store or give a file"),
            Self::Objects(_) => {
                f.write_str("the object store (ARTIFACT_STORE) did not store or give a file")
            }
            Self::Damaged(id) => write!(f, "file {id} is not whole"),
            Self::Disk(_) => f.write_str("a file on this machine was not written or read"),
            Self::Place(why) => write!(f, "ARTIFACT_STORE cannot be used: {why}"),
        }
    }
}

impl Error for FileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(cause) => Some(cause),
            Self::Objects(cause) => Some(cause),
            Self::Disk(cause) => Some(cause),
            Self::Damaged(_) | Self::Place(_) => None,
        }
    }
}

impl From<StoreError> for FileError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<object_store::Error> for FileError {
    fn from(error: object_store::Error) -> Self {
        Self::Objects(error)
    }
}

impl From<std::io::Error> for FileError {
    fn from(error: std::io::Error) -> Self {
        Self::Disk(error)
    }
}
