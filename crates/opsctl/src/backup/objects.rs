//! The objects of an object store beside a dump: copied out, checked, put back. What is lost is said and stops nothing: a dump
//! without one artifact is worth more than none.

use std::fs;
use std::path::{Path, PathBuf};

use files::Depot;
use jobs::ObjectRecord;
use sha2::{Digest as _, Sha256};

use super::folder::{BackupFiles, hex, new_folder, sum_of, sync_folder};
use super::manifest::{Manifest, ObjectCopy};
use crate::error::Error;
use crate::screen::harmless;

/// What became of the objects of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    pub(crate) objects: Vec<ObjectCopy>,
    pub(crate) lost: Vec<String>,
}

/// The file of a copy. Keys are ids; whatever else one may be, it leads nowhere.
fn file_of(folder: &Path, key: &str) -> PathBuf {
    let plain = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain {
        folder.join(key)
    } else {
        folder.join(hex(&Sha256::digest(key.as_bytes())))
    }
}

/// Copies the objects of a snapshot into the folder of a backup that is being written. Objects never change: what an earlier
/// backup has is not fetched again.
pub(crate) async fn copy_out(
    depot: &Depot,
    records: &[ObjectRecord],
    to: &BackupFiles,
    before: Option<&BackupFiles>,
) -> Result<Copied, Error> {
    let mut copied = Copied::default();
    if records.is_empty() {
        return Ok(copied);
    }
    if !depot.has_objects() {
        return Err(Error::Usage(format!(
            "{} files of jobs are in an object store: set ARTIFACT_STORE as the services have it",
            records.len()
        )));
    }
    let folder = to.objects();
    new_folder(&folder)?;
    for record in records {
        let file = file_of(&folder, &record.key);
        let earlier = before.map(|before| file_of(&before.objects(), &record.key));
        let linked = earlier.is_some_and(|earlier| {
            is_whole(&earlier, record) && fs::hard_link(&earlier, &file).is_ok()
        });
        if !linked {
            match depot.copy_out(&record.key, &file).await {
                Ok(Some(sum)) if sum.sha256.as_slice() == record.sha256 => {}
                Ok(Some(_)) => {
                    fs::remove_file(&file).map_err(Error::io("remove", &file))?;
                    copied.lost.push(format!(
                        "object {} is not what was stored: its SHA-256 is another",
                        harmless(&record.key)
                    ));
                    continue;
                }
                Ok(None) => {
                    copied.lost.push(format!(
                        "object {} is not in the object store",
                        harmless(&record.key)
                    ));
                    continue;
                }
                Err(error) => {
                    return Err(Error::Service {
                        name: "the object store",
                        source: Box::new(error),
                    });
                }
            }
        }
        copied.objects.push(ObjectCopy {
            key: record.key.clone(),
            size: record.size.unsigned_abs(),
            sha256: hex(&record.sha256),
        });
    }
    sync_folder(&folder)?;
    Ok(copied)
}

fn is_whole(file: &Path, record: &ObjectRecord) -> bool {
    sum_of(file).is_ok_and(|(_, sha256)| sha256.as_slice() == record.sha256)
}

/// What is wrong with the copies beside a dump.
pub(crate) fn check(files: &BackupFiles, manifest: &Manifest) -> Vec<String> {
    let mut problems = Vec::new();
    for object in &manifest.objects {
        let file = file_of(&files.objects(), &object.key);
        match sum_of(&file) {
            Ok((size, sha256)) if size == object.size && hex(&sha256) == object.sha256 => {}
            Ok(_) => problems.push(format!(
                "the copy of object {} is not what was stored",
                harmless(&object.key)
            )),
            Err(_) => problems.push(format!(
                "the copy of object {} is missing or cannot be read",
                harmless(&object.key)
            )),
        }
    }
    problems
}

/// Puts the copies back where the object store has none; gives how many.
pub(crate) async fn put_back(
    depot: &Depot,
    files: &BackupFiles,
    manifest: &Manifest,
) -> Result<u64, Error> {
    let mut put = 0;
    for object in &manifest.objects {
        let file = file_of(&files.objects(), &object.key);
        let done = depot.put_back(&object.key, &file).await;
        put += u64::from(done.map_err(|error| Error::Service {
            name: "the object store",
            source: Box::new(error),
        })?);
    }
    Ok(put)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_leads_out_of_the_folder() {
        let folder = Path::new("/b");
        assert_eq!(
            file_of(folder, "0190163d-8694"),
            Path::new("/b/0190163d-8694")
        );
        for key in ["../x", "a/b", "", "..", ".lock"] {
            let file = file_of(folder, key);
            assert_eq!(file.parent(), Some(folder), "{key}");
            assert_eq!(
                file.file_name().map(std::ffi::OsStr::len),
                Some(64),
                "{key}"
            );
        }
    }
}
