//! What is left once everything was stopped: processes that name the run's folder, and folders of runs. Ends none.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use uuid::Uuid;

use crate::terms::CANARY;

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

/// The run folders that are left: the job and the fence of each. Each boot of a runner has a folder for its own.
pub(crate) fn folders(work: &[PathBuf]) -> Vec<(Uuid, i64)> {
    let below = |folder: &PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let boots: Vec<PathBuf> = work.iter().flat_map(below).collect();
    let runs = boots.iter().flat_map(below).chain(boots.clone());
    runs.filter_map(|path| {
        let (job, fence) = path.file_name()?.to_str()?.rsplit_once('-')?;
        Some((job.parse().ok()?, fence.parse().ok()?))
    })
    .collect()
}

/// The files below a folder in which a secret stands.
pub(crate) fn canaries(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if kind.is_file() && holds_canary(&path) => {
                    found.push(path.display().to_string());
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    // What handlers saw of their own surroundings.
    let seen = fs::read_to_string(folder.join("secrets-seen")).unwrap_or_default();
    found.extend(seen.lines().map(str::to_owned));
    found
}

/// The processes whose arguments hold a secret: everybody on the host can read them.
pub(crate) fn canaries_in_arguments(processes: &[Pid]) -> Vec<String> {
    processes
        .iter()
        .map(|pid| PathBuf::from(format!("/proc/{pid}/cmdline")))
        .filter(|arguments| holds_canary(arguments))
        .map(|arguments| arguments.display().to_string())
        .collect()
}

fn holds_canary(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap_or_default();
    let canary = CANARY.as_bytes();
    bytes.windows(canary.len()).any(|window| window == canary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_run_is_found_within_that_of_its_boot() {
        let work = tempfile::tempdir().expect("a folder");
        let job = Uuid::from_u128(7);
        fs::create_dir_all(work.path().join(format!("ops-runner-0f/{job}-12"))).expect("a folder");
        assert_eq!(folders(&[work.path().to_path_buf()]), [(job, 12)]);
    }

    #[test]
    fn a_secret_is_found_wherever_it_stands_below_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("below")).expect("a folder");
        fs::write(folder.path().join("clean"), "nothing").expect("a file");
        assert_eq!(canaries(folder.path()), Vec::<String>::new());
        fs::write(folder.path().join("below/log"), format!("token={CANARY}-x")).expect("a file");
        assert_eq!(canaries(folder.path()).len(), 1);
    }
}
