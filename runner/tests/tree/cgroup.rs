//! Commands in cgroups of their own where the machine lets a test make one, and without where it does not.

use std::fs;
use std::path::PathBuf;

use jobs::Status;

use crate::stage::{Stage, family_of, wait_until};

/// A cgroup (v2) for one test.
struct Group(PathBuf);

impl Group {
    /// `None` where this machine has no hierarchy in which this process may make one.
    fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(point))
        })?;
        let path = mount.join(format!("ops-jobs-tests-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn leaves(&self) -> usize {
        let entries = fs::read_dir(&self.0).expect("the group");
        entries
            .filter(|entry| entry.as_ref().expect("an entry").path().is_dir())
            .count()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_a_cgroup_that_is_killed_and_removed_with_it_where_one_can_be_made() {
    let stage = Stage::new("").await;
    let Some(group) = Group::make() else {
        return without(&stage).await;
    };
    let path = group.0.to_str().expect("a path");
    let runner = stage.runner(&[("RUNNER_CGROUP", path)]).await;
    assert!(stage.logged("cgroup"));
    let quick = stage.submit("quick").await;
    stage.until(quick, Status::Succeeded).await;
    let id = stage.submit("stays").await;
    stage.until_escaped(id).await;
    let family = family_of(id);
    assert!(family.len() >= 3, "{family:?}");
    for pid in family {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        assert!(
            groups.is_empty() || groups.contains(&format!("{id}-")),
            "outside: {groups}"
        );
    }
    assert_eq!(group.leaves(), 1);
    let answer = stage.store.abort(id, "key:test", None).await;
    answer.expect("an abort");
    stage.until(id, Status::Aborted).await;
    assert_eq!(family_of(id), [0; 0]);
    wait_until("the leaf is removed", async || {
        (group.leaves() == 0).then_some(())
    })
    .await;
    assert!(!stage.logged("no_cgroup_leaf"));
    runner.end().await;
}

/// Where there is no cgroup: the runner says so, and kills all the same.
#[expect(
    clippy::print_stderr,
    reason = "a test that verified less than its name says so"
)]
async fn without(stage: &Stage) {
    eprintln!("no cgroup v2 can be made here: verified that a runner says so and kills without");
    let runner = stage.runner(&[]).await;
    assert!(stage.logged("no_cgroup"));
    let id = stage.submit("leaves").await;
    stage.until(id, Status::Succeeded).await;
    assert_eq!(family_of(id), [0; 0]);
    runner.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_whose_named_cgroup_cannot_be_used_says_so_and_does_not_start() {
    let stage = Stage::new("").await;
    let folder = stage.path("no-group");
    let refused = stage.refused(&[("RUNNER_CGROUP", folder.to_str().expect("a path"))]);
    assert!(
        refused.contains("RUNNER_CGROUP cannot be used"),
        "{refused}"
    );
}
