//! What is left once everything was stopped: processes that name the run's folder, and folders of runs. Ends none.

use std::fs;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The processes whose environment names the folder, as every handler's does.
pub(crate) fn processes(folder: &Path) -> Vec<String> {
    let needle = format!("GAUNTLET_DIR={}", folder.display()).into_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("a /proc to look at").flatten() {
        let path = entry.path();
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == needle)
        {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            found.push(format!(
                "{} {}",
                path.display(),
                String::from_utf8_lossy(&line).replace('\0', " ")
            ));
        }
    }
    found
}

/// The run folders that are left: the job and the fence of each.
pub(crate) fn folders(work: &[PathBuf]) -> Vec<(Uuid, i64)> {
    let entries = work
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (job, fence) = name.rsplit_once('-')?;
            Some((job.parse().ok()?, fence.parse().ok()?))
        })
        .collect()
}
