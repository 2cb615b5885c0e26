//! The fenced sink: an effect outside the database that refuses a stale claim. A file a job holds the greatest fence seen,
//! changed under its lock; a common file says what was accepted and refused, in the order of each job.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

/// What the sink said to one effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The job.
    pub job: Uuid,
    /// The fence that was shown.
    pub fence: i64,
    /// Whether it was at least the greatest seen.
    pub accepted: bool,
}

const EFFECT: usize = 25;

/// Offers an effect; `false` when a later claim has been here.
///
/// # Errors
/// When the files cannot be used.
pub fn offer(folder: &Path, job: Uuid, fence: i64) -> io::Result<bool> {
    fs::create_dir_all(folder)?;
    let name = folder.join(job.simple().to_string());
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(name)?;
    // Freed when the file is closed, also by a kill.
    flock(&file, FlockOperation::LockExclusive)?;
    let mut seen = [0; 8];
    let greatest = match file.read_exact(&mut seen) {
        Ok(()) => i64::from_le_bytes(seen),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
        Err(error) => return Err(error),
    };
    let accepted = fence >= greatest;
    if accepted {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&fence.to_le_bytes())?;
    }
    let mut bytes = [0; EFFECT];
    bytes[..16].copy_from_slice(job.as_bytes());
    bytes[16..24].copy_from_slice(&fence.to_le_bytes());
    bytes[24] = u8::from(accepted);
    let mut said: File = OpenOptions::new()
        .append(true)
        .create(true)
        .open(folder.join("effects"))?;
    said.write_all(&bytes)?;
    Ok(accepted)
}

/// Everything that was offered.
///
/// # Errors
/// When the file cannot be read; one that is not there is empty.
pub fn read(folder: &Path) -> io::Result<Vec<Effect>> {
    let bytes = match fs::read(folder.join("effects")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let effect = |bytes: &[u8]| {
        Some(Effect {
            job: Uuid::from_slice(bytes.get(..16)?).ok()?,
            fence: i64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?),
            accepted: *bytes.get(24)? == 1,
        })
    };
    Ok(bytes.chunks(EFFECT).filter_map(effect).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_fence_is_refused_and_the_same_one_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let offered: Vec<bool> = [3, 5, 4, 5]
            .map(|fence| offer(folder.path(), Uuid::nil(), fence).expect("an answer"))
            .to_vec();
        assert_eq!(offered, [true, true, false, true]);
        let said: Vec<bool> = read(folder.path())
            .expect("read")
            .iter()
            .map(|effect| effect.accepted)
            .collect();
        assert_eq!(said, offered);
    }
}
