//! Where bytes are kept, and the clearing away of those that nobody needs any more.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jobs::Store;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _};
use uuid::Uuid;

use crate::error::FileError;

/// An upload that is older and not whole was broken off.
const BROKEN_OFF: Duration = Duration::from_secs(24 * 3600);
/// An object store that says nothing for so long is away.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `ARTIFACT_STORE` says.
#[derive(Clone, Debug, Default)]
pub enum Place {
    /// The database.
    #[default]
    Postgres,
    /// A folder, which every service must reach by the same path.
    Folder(PathBuf),
    /// A bucket of an S3-compatible store.
    S3(S3),
}

/// A bucket and the keys to it.
#[derive(Clone, Default)]
pub struct S3 {
    /// The bucket.
    pub bucket: String,
    /// What every object's key begins with; may be empty.
    pub prefix: String,
    /// The region.
    pub region: String,
    /// Another address than the cloud's own.
    pub endpoint: Option<String>,
    /// The id of the access key.
    pub access_key_id: Option<String>,
    /// The access key.
    pub secret_access_key: Option<String>,
    /// Beside keys that are lent for a time.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// The files of jobs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Depot {
    pub(crate) store: Store,
    pub(crate) objects: Option<Arc<dyn ObjectStore>>,
}

impl Depot {
    /// Opens a place; connects to nothing.
    ///
    /// # Errors
    /// [`FileError::Place`] when it cannot be one.
    pub fn open(store: Store, place: &Place) -> Result<Self, FileError> {
        let objects: Option<Arc<dyn ObjectStore>> = match place {
            Place::Postgres => None,
            Place::Folder(folder) => Some(Arc::new(open_folder(folder)?)),
            Place::S3(s3) => Some(open_bucket(s3)?),
        };
        Ok(Self { store, objects })
    }

    /// Files in an object store that the caller has opened: for tests.
    pub fn with_objects(store: Store, objects: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            objects: Some(objects),
        }
    }

    /// The records.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The key of a new file's object; `None` where bytes go to PostgreSQL.
    pub(crate) fn object_of(&self, id: Uuid) -> Option<String> {
        self.objects.as_ref().map(|_| id.to_string())
    }

    pub(crate) fn objects(&self) -> Result<&Arc<dyn ObjectStore>, FileError> {
        self.objects.as_ref().ok_or_else(|| {
            FileError::Place("a file is in an object store, and none is named".to_owned())
        })
    }

    /// Clears away broken uploads, and objects whose files are gone. Any runner may, none has to lead.
    ///
    /// # Errors
    /// When the database or the object store does not answer; the next sweep does the rest.
    pub async fn sweep(&self) -> Result<u64, FileError> {
        let swept = self.store.sweep_files(BROKEN_OFF).await?;
        if let Some(objects) = &self.objects {
            let garbage = self.store.garbage().await?;
            for key in &garbage {
                match objects.delete(&Path::from(key.as_str())).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if !garbage.is_empty() {
                self.store.garbage_removed(&garbage).await?;
            }
        }
        Ok(swept)
    }
}

fn open_folder(folder: &std::path::Path) -> Result<LocalFileSystem, FileError> {
    let unusable = |why: &dyn fmt::Display| FileError::Place(format!("the folder: {why}"));
    std::fs::create_dir_all(folder).map_err(|error| unusable(&error.kind()))?;
    LocalFileSystem::new_with_prefix(folder)
        .map(|opened| opened.with_fsync(true))
        .map_err(|error| unusable(&error))
}

fn open_bucket(s3: &S3) -> Result<Arc<dyn ObjectStore>, FileError> {
    let plain = s3
        .endpoint
        .as_ref()
        .is_some_and(|endpoint| endpoint.starts_with("http://"));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&s3.bucket)
        .with_region(&s3.region)
        .with_client_options(
            ClientOptions::new()
                .with_timeout_disabled()
                .with_read_timeout(PATIENCE),
        )
        .with_allow_http(plain);
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let (Some(id), Some(key)) = (&s3.access_key_id, &s3.secret_access_key) {
        builder = builder.with_access_key_id(id).with_secret_access_key(key);
    }
    if let Some(token) = &s3.session_token {
        builder = builder.with_token(token);
    }
    // What it says may quote a setting.
    let bucket = builder.build().map_err(|_| {
        FileError::Place("the bucket, its region or its endpoint is wrong".to_owned())
    })?;
    Ok(if s3.prefix.is_empty() {
        Arc::new(bucket)
    } else {
        Arc::new(PrefixStore::new(bucket, s3.prefix.as_str()))
    })
}
