//! A control group (v2) below which each run has a leaf of its own: killed as one, and held to its limits as one. Used where
//! it was delegated or named; everything works without it. Touches no group that is not ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, getxattr};
use serde::{Deserialize, Serialize};

/// Where the runner goes, so that its own group may give controllers to the leaves.
const OF_RUNNER: &str = "ops-runner";
/// The name of a leaf begins so.
const LEAF: &str = "ops-run-";
/// The extended attributes by which systemd marks what it has delegated.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// Where leaves are made, and what they can hold their runs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroup {
    base: PathBuf,
    /// Where this process is, and shims stay.
    home: PathBuf,
    pub(crate) memory: bool,
    pub(crate) pids: bool,
}

impl Cgroup {
    /// The group that was named, or the one that this process was given as its own.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self, String> {
        let own = own_group()?;
        let base = match named {
            Some(path) => path.to_owned(),
            None => delegated(&own)?,
        };
        let is_group = base.join("cgroup.procs").exists() && base.join("cgroup.kill").exists();
        if !is_group {
            return Err(format!(
                "{} is no cgroup v2 of Linux 5.14 or newer",
                base.display()
            ));
        }
        let home = leave(&base, own).map_err(|why| format!("{}: {why}", base.display()))?;
        for controller in ["+memory", "+pids"] {
            // Where it is not there, the limits are those of the processes alone.
            let _ = fs::write(base.join("cgroup.subtree_control"), controller);
        }
        let given = fs::read_to_string(base.join("cgroup.subtree_control")).unwrap_or_default();
        let has = |controller| {
            given
                .split_ascii_whitespace()
                .any(|word| word == controller)
        };
        let cgroup = Self {
            memory: has("memory"),
            pids: has("pids"),
            home,
            base,
        };
        cgroup.clear();
        let trial = cgroup.leaf(Path::new("trial"));
        fs::create_dir(&trial.path).map_err(|why| format!("{}: {why}", trial.path.display()))?;
        trial.remove();
        Ok(cgroup)
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// The leaf of a run, made by its shim.
    pub(super) fn leaf(&self, folder: &Path) -> Leaf {
        let run = folder.file_name().unwrap_or_default().to_string_lossy();
        let boot = folder
            .parent()
            .and_then(Path::file_name)
            .unwrap_or_default();
        Leaf {
            path: self
                .base
                .join(format!("{LEAF}{}-{run}", boot.to_string_lossy())),
            home: self.home.clone(),
            memory: self.memory,
            pids: self.pids,
        }
    }

    /// Removes the leaves of the dead: where somebody lives, it fails.
    fn clear(&self) {
        for entry in fs::read_dir(&self.base).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(LEAF) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// The group of this process.
fn own_group() -> Result<PathBuf, String> {
    let read = |file: &str| fs::read_to_string(file).map_err(|why| format!("{file}: {why}"));
    let mounts = read("/proc/self/mountinfo")?;
    let groups = read("/proc/self/cgroup")?;
    group_of(&mounts, &groups).ok_or_else(|| "no cgroup v2 is mounted".to_owned())
}

fn group_of(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        if !kind.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = mount.split_ascii_whitespace().skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = Path::new(group).strip_prefix(root).ok()?;
        Some(Path::new(point).join(below))
    })
}

/// The group of this process, or its parent, if one of them is ours to divide.
fn delegated(own: &Path) -> Result<PathBuf, String> {
    [Some(own), own.parent()]
        .into_iter()
        .flatten()
        .find(|path| is_delegated(path))
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} is not delegated to this process", own.display()))
}

fn is_delegated(path: &Path) -> bool {
    // The root of all is nobody's.
    if !path.join("cgroup.events").exists() {
        return false;
    }
    let is_marked = DELEGATED.into_iter().any(|name| {
        let mut value = [0; 8];
        matches!(getxattr(path, name, &mut value[..]), Ok(1)) && value[0] == b'1'
    });
    // Root may write everywhere: that says nothing.
    let may_write = !rustix::process::geteuid().is_root()
        && ["", "cgroup.procs", "cgroup.subtree_control"]
            .into_iter()
            .all(|file| access(path.join(file), Access::WRITE_OK).is_ok());
    is_marked || may_write
}

/// A group with processes in it gives no controllers away: where this one is all there is, it moves to a group below.
fn leave(base: &Path, own: PathBuf) -> io::Result<PathBuf> {
    if base != own {
        return Ok(own);
    }
    let members = fs::read_to_string(base.join("cgroup.procs"))?;
    if members.trim() != std::process::id().to_string() {
        return Ok(own);
    }
    let home = base.join(OF_RUNNER);
    match fs::create_dir(&home) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    join(&home)?;
    Ok(home)
}

/// Moves this process.
fn join(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), "0")
}

/// The group of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Leaf {
    path: PathBuf,
    home: PathBuf,
    memory: bool,
    pids: bool,
}

impl Leaf {
    /// Makes it, and starts something in it; this process is outside again when this returns.
    ///
    /// # Errors
    /// When there is no such group, in which nothing was started then.
    pub(super) fn start_in<T>(
        &self,
        memory: Option<u64>,
        processes: Option<u64>,
        start: impl FnOnce() -> T,
    ) -> io::Result<T> {
        fs::create_dir(&self.path)?;
        let prepared = self
            .limit("memory.max", memory.filter(|_| self.memory))
            // It swaps no memory that it may not have, and goes as a whole.
            .and_then(|()| {
                self.limit(
                    "memory.oom.group",
                    memory.filter(|_| self.memory).and(Some(1)),
                )
            })
            .and_then(|()| join(&self.path));
        if let Err(error) = prepared {
            self.remove();
            return Err(error);
        }
        if memory.is_some() && self.memory {
            // Where there is no swap there is no such file.
            let _ = self.limit("memory.swap.max", Some(0));
        }
        let started = start();
        // Whoever stays would be killed with the run. It cannot fail: there it came from.
        join(&self.home)?;
        self.limit("pids.max", processes.filter(|_| self.pids))?;
        Ok(started)
    }

    fn limit(&self, file: &str, value: Option<u64>) -> io::Result<()> {
        match value {
            Some(value) => fs::write(self.path.join(file), value.to_string()),
            None => Ok(()),
        }
    }

    /// Whether it holds its run to a number of processes.
    pub(super) fn counts(&self) -> bool {
        self.pids
    }

    pub(super) fn kill(&self) {
        // An error means that there is no such group.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    /// How often memory, or a process, was refused.
    pub(super) fn refusals(&self) -> (u64, u64) {
        (
            self.count("memory.events", "oom_kill"),
            self.count("pids.events", "max"),
        )
    }

    fn count(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .find_map(|(word, count)| (word == name).then(|| count.parse().ok())?)
            .unwrap_or(0)
    }

    /// Removes it once nobody lives in it.
    pub(super) fn remove(&self) {
        let _ = fs::remove_dir(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str =
        "30 23 0:26 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_group_is_found_where_it_is_mounted() {
        let groups = "4:memory:/x\n0::/system.slice/ops.service\n";
        assert_eq!(
            group_of(MOUNTS, groups),
            Some("/sys/fs/cgroup/unified/system.slice/ops.service".into())
        );
        let container = MOUNTS.replace("0:26 / ", "0:26 /docker/1 ");
        assert_eq!(
            group_of(&container, "0::/docker/1/a\n"),
            Some("/sys/fs/cgroup/unified/a".into())
        );
        assert_eq!(group_of("", groups), None);
        assert_eq!(group_of(MOUNTS, "4:memory:/x\n"), None);
    }

    #[test]
    fn a_folder_that_is_no_group_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = Cgroup::find(Some(folder.path())).expect_err("no group");
        assert!(!refused.is_empty());
    }
}
