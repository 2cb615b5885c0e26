//! What is left when the jobs have ended: their processes on this host, and temporary files. Removes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

const PAUSE: Duration = Duration::from_millis(100);
const VARIABLE: &[u8] = b"OPS_JOB_ID=";

/// A process that outlived its job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Leaked {
    pub(super) pid: u32,
    pub(super) job_id: String,
}

/// Files below a folder; what cannot be read is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Temporary {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Temporary {
    pub(super) fn of(folder: &Path) -> Self {
        let mut sum = Self::default();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            for entry in entries {
                // Links are counted and not followed.
                let Ok(about) = entry.metadata() else {
                    continue;
                };
                sum.files += 1;
                if about.is_dir() {
                    folders.push(entry.path());
                } else {
                    sum.bytes += about.len();
                }
            }
        }
        sum
    }
}

/// The processes of these jobs that are still there after the grace; `None` where processes cannot be looked at.
pub(super) async fn leaked(ids: &BTreeSet<String>, grace: Duration) -> Option<Vec<Leaked>> {
    let begun = Instant::now();
    loop {
        let left = processes(ids)?;
        if left.is_empty() || begun.elapsed() >= grace {
            return Some(left);
        }
        sleep(PAUSE).await;
    }
}

/// Every command of a job, and what it started, bears the job's id in its environment.
fn processes(ids: &BTreeSet<String>) -> Option<Vec<Leaked>> {
    let all = fs::read_dir("/proc").ok()?.flatten();
    let one = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        // One that ended just now, or is another user's, is none of ours.
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let job_id = job_id(&environment)?;
        ids.contains(&job_id).then_some(Leaked { pid, job_id })
    };
    Some(all.filter_map(one).collect())
}

fn job_id(environment: &[u8]) -> Option<String> {
    let mut variables = environment.split(|byte| *byte == 0);
    let id = variables.find_map(|variable| variable.strip_prefix(VARIABLE))?;
    String::from_utf8(id.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_the_job_in_its_environment() {
        assert_eq!(job_id(b"A=1\0OPS_JOB_ID=7\0B=2"), Some("7".to_owned()));
        assert_eq!(job_id(b"A=OPS_JOB_ID=7\0"), None);
    }

    #[tokio::test]
    async fn a_process_that_outlives_its_job_is_leaked_until_it_ends() {
        let id = service::ids::uuid_v7().to_string();
        #[expect(clippy::disallowed_methods, reason = "a process to be found")]
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .env("OPS_JOB_ID", &id)
            .spawn()
            .expect("started");
        let ids = BTreeSet::from([id.clone()]);
        let found = leaked(&ids, Duration::ZERO).await;
        child.kill().expect("killed");
        child.wait().expect("ended");
        let pid = child.id();
        assert_eq!(found, Some(vec![Leaked { pid, job_id: id }]));
        assert_eq!(leaked(&ids, Duration::ZERO).await, Some(Vec::new()));
    }

    #[test]
    fn files_in_folders_count_and_links_lead_nowhere() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("a")).expect("made");
        fs::write(folder.path().join("a/b"), "1234").expect("written");
        let before = Temporary::of(folder.path());
        assert_eq!(before, Temporary { files: 2, bytes: 4 });
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).expect("linked");
        assert_eq!(Temporary::of(folder.path()).files, 3);
    }
}
