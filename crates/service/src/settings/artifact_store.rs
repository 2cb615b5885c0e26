//! `ARTIFACT_STORE` and what goes with it: where the bytes of files are kept. Opens nothing.

use std::path::PathBuf;

use url::Url;

use super::{Fallback, Kind, Setting, Values};
use crate::secret::Secret;

/// Where the bytes of files are kept.
#[derive(Debug, Clone)]
pub enum ArtifactStore {
    /// In the database.
    Postgres,
    /// In a folder that every service reaches by the same path.
    Folder(PathBuf),
    /// In a bucket of an S3-compatible store.
    Bucket(Box<Bucket>),
}

/// A bucket and the keys to it.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What every object's key begins with; may be empty.
    pub prefix: String,
    /// Its region.
    pub region: String,
    /// Another address than the cloud's own.
    pub endpoint: Option<Url>,
    /// The id of the access key, and the key; `None`: what the machine itself is given.
    pub keys: Option<(Secret, Secret)>,
    /// Beside keys that are lent for a time.
    pub session: Option<Secret>,
}

const WRONG: &str =
    "is no place for files: set it to postgres, file:///an/absolute/path or s3://bucket/prefix";

impl ArtifactStore {
    /// The declarations.
    pub const SETTINGS: [Setting; 6] = [
        Setting::new(
            "ARTIFACT_STORE",
            Kind::Text,
            Fallback::Is("postgres"),
            "where files are kept: `postgres`, or an object store by its address: `file:///folder`, `s3://bucket/prefix`",
        ),
        Setting::new(
            "AWS_REGION",
            Kind::Text,
            Fallback::Is("us-east-1"),
            "with `s3://`: the bucket's region",
        ),
        Setting::new(
            "AWS_ENDPOINT_URL",
            Kind::Url,
            Fallback::Unset,
            "with `s3://`: the address of another S3-compatible store",
        ),
        Setting::new(
            "AWS_ACCESS_KEY_ID",
            Kind::Secret,
            Fallback::Means("what the machine is given"),
            "with `s3://`: the id of the access key",
        ),
        Setting::new(
            "AWS_SECRET_ACCESS_KEY",
            Kind::Secret,
            Fallback::RequiredWhen("with AWS_ACCESS_KEY_ID"),
            "with `s3://`: the access key",
        ),
        Setting::new(
            "AWS_SESSION_TOKEN",
            Kind::Secret,
            Fallback::Unset,
            "with `s3://`: beside keys that are lent for a time",
        ),
    ];

    /// Reads and checks them.
    pub fn read(values: &mut Values) -> Self {
        let address = values.text("ARTIFACT_STORE");
        let region = values.text("AWS_REGION");
        let endpoint = values.optional_url("AWS_ENDPOINT_URL");
        let id = values.optional_secret("AWS_ACCESS_KEY_ID");
        let key = values.optional_secret("AWS_SECRET_ACCESS_KEY");
        let session = values.optional_secret("AWS_SESSION_TOKEN");
        if address == "postgres" {
            return Self::Postgres;
        }
        let keys = match (id, key) {
            (Some(id), Some(key)) => Some((id, key)),
            (Some(_), None) => {
                values.require("AWS_SECRET_ACCESS_KEY");
                None
            }
            (None, Some(_)) => {
                values.refuse(
                    "AWS_SECRET_ACCESS_KEY",
                    "goes with AWS_ACCESS_KEY_ID: set both",
                );
                None
            }
            (None, None) => None,
        };
        match place(&address) {
            Some(Place::Folder(folder)) => Self::Folder(folder),
            Some(Place::Bucket(name, prefix)) => Self::Bucket(Box::new(Bucket {
                name,
                prefix,
                region,
                endpoint,
                keys,
                session,
            })),
            None => {
                values.refuse("ARTIFACT_STORE", WRONG);
                Self::Postgres
            }
        }
    }
}

impl ArtifactStore {
    /// What of it is secret.
    pub fn secrets(&self) -> Vec<Secret> {
        match self {
            Self::Postgres | Self::Folder(_) => Vec::new(),
            Self::Bucket(bucket) => {
                let key = bucket.keys.iter().map(|(_, key)| key);
                key.chain(&bucket.session).cloned().collect()
            }
        }
    }
}

enum Place {
    Folder(PathBuf),
    Bucket(String, String),
}

fn place(address: &str) -> Option<Place> {
    let url = Url::parse(address).ok()?;
    let plain = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && url.port().is_none();
    match (url.scheme(), url.host_str()) {
        ("file", None) if plain && address.starts_with("file:///") && url.path() != "/" => {
            url.to_file_path().ok().map(Place::Folder)
        }
        ("s3", Some(bucket)) if plain => Some(Place::Bucket(
            bucket.to_owned(),
            url.path().trim_matches('/').to_owned(),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Environment, Sources};

    fn read(pairs: &[(&str, &str)]) -> Result<ArtifactStore, Vec<String>> {
        let sources = Sources {
            config: None,
            environment: Environment::from_pairs(pairs.iter().copied()),
        };
        let mut values = Values::load(&[&ArtifactStore::SETTINGS], &[], sources);
        let read = ArtifactStore::read(&mut values);
        values.finish(read).map_err(|error| {
            error
                .problems
                .into_iter()
                .map(|problem| problem.name)
                .collect()
        })
    }

    #[test]
    fn files_are_kept_in_the_database_in_a_folder_or_in_a_bucket() {
        assert!(matches!(read(&[]), Ok(ArtifactStore::Postgres)));
        let folder = read(&[("ARTIFACT_STORE", "file:///srv/ops%20files")]);
        assert!(
            matches!(folder, Ok(ArtifactStore::Folder(path)) if path == std::path::Path::new("/srv/ops files"))
        );
        let bucket = read(&[
            ("ARTIFACT_STORE", "s3://nightly/ops/jobs/"),
            ("AWS_ACCESS_KEY_ID", "canary"),
            ("AWS_SECRET_ACCESS_KEY", "canary"),
        ]);
        let Ok(ArtifactStore::Bucket(bucket)) = bucket else {
            panic!("a bucket")
        };
        assert_eq!(
            (bucket.name.as_str(), bucket.prefix.as_str()),
            ("nightly", "ops/jobs")
        );
        assert!(bucket.keys.is_some() && !format!("{bucket:?}").contains("canary"));
    }

    #[test]
    fn what_is_no_place_is_refused_at_once() {
        for address in [
            "mysql",
            "file://host/x",
            "file:///",
            "file:x",
            "s3://",
            "s3://u:p@b",
            "gs://b",
            "s3://b?x=1",
            "/x",
        ] {
            assert_eq!(
                read(&[("ARTIFACT_STORE", address)]).expect_err(address),
                ["ARTIFACT_STORE"]
            );
        }
        let half = [("ARTIFACT_STORE", "s3://b"), ("AWS_ACCESS_KEY_ID", "x")];
        assert_eq!(read(&half).expect_err("half"), ["AWS_SECRET_ACCESS_KEY"]);
    }
}
