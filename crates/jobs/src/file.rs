//! A file of a job, as it is recorded: what it is given, or what it leaves. Its bytes are another matter.

use time::OffsetDateTime;
use uuid::Uuid;

/// What is known of a file once all of it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Bytes.
    pub size: u64,
    /// SHA-256 of them.
    pub sha256: [u8; 32],
    /// CRC-32 of them, as ZIP archives have it.
    pub crc32: u32,
}

/// A file in the making: what is known before its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// UUIDv7.
    pub id: Uuid,
    /// An artifact's path in its folder; an input's name in its sender's words.
    pub name: String,
    /// What it is.
    pub content_type: String,
    /// Its key in an object store; `None`: its bytes go to PostgreSQL.
    pub object: Option<String>,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// UUIDv7.
    pub id: Uuid,
    /// An artifact's path in its folder; an input's name in its sender's words.
    pub name: String,
    /// What it is.
    pub content_type: String,
    /// The stage that left it.
    pub stage: Option<String>,
    /// Its key in an object store; `None`: its bytes are in PostgreSQL.
    pub object: Option<String>,
    /// Size and digests.
    pub sum: Sum,
    /// When it was begun.
    pub created_at: OffsetDateTime,
}

/// Files that were uploaded for a job that is still to be recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// In the order of the upload.
    pub ids: Vec<Uuid>,
    /// Stands for all their names and bytes in what an idempotency key is for; `None` without files.
    pub digest: Option<[u8; 32]>,
}
