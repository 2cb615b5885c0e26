//! What must not be left behind: processes that a job started. They are known by a folder
//! that their environment names, or that they work in.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// The processes whose environment names something below the folder.
pub fn processes_of(folder: &Path) -> Vec<i32> {
    let needle = format!("{}/", folder.display()).into_bytes();
    let names = |pid: &i32| {
        // A process that has ended meanwhile, or that another user's rights hide, is none of ours.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(needle.len()).any(|window| window == needle)
    };
    processes().filter(names).collect()
}

/// Kills the processes whose environment names something below the folder.
pub fn end_processes_of(folder: &Path) {
    for pid in processes_of(folder).into_iter().filter_map(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// A process's command line, as anybody on the machine can read it.
pub fn command_line(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

/// The processes that work in the folder or below it, as a PostgreSQL does in its data.
pub fn processes_in(folder: &Path) -> Vec<i32> {
    let works_there = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|path| path.starts_with(folder));
    processes().filter(works_there).collect()
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("a /proc to look at");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
