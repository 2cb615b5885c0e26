//! Commands that take more than they may: the job fails and says which limit, and the runner goes on renewing.

use jobs::{Job, Status};

use crate::stage::{Stage, family_of, wait_until};

/// Of every bomb.
pub(crate) const BOMB_LIMITS: &str =
    "limits = { memory_bytes = 67108864, processes = 40, file_bytes = 1048576 }";

/// Lets a bomb go off beside a job that goes on; gives the bomb's end.
async fn set_off(stage: &Stage, bomb: &str) -> Job {
    let runner = stage.runner(&[("RUNNER_LEASE_SECONDS", "3")]).await;
    let beside = stage.submit("stays").await;
    stage.until_escaped(beside).await;
    let id = stage.submit(bomb).await;
    let job = stage.until(id, Status::Failed).await;
    assert_eq!(family_of(id), [0; 0]);
    let then = stage.until(beside, Status::Running).await.lease_expires_at;
    wait_until("the runner renews", async || {
        let now = stage.until(beside, Status::Running).await.lease_expires_at;
        (now > then).then_some(())
    })
    .await;
    runner.end().await;
    assert_eq!(stage.sweep().await, 0, "no lease has run out");
    job
}

fn error(job: &Job) -> &str {
    job.error.as_deref().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_fails_and_names_its_limit() {
    let stage = Stage::new(BOMB_LIMITS).await;
    let job = set_off(&stage, "forks").await;
    assert!(error(&job).contains("limits.processes = 40"), "{job:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_bomb_fails_and_names_its_limit() {
    let stage = Stage::new(BOMB_LIMITS).await;
    let job = set_off(&stage, "eats").await;
    assert!(
        error(&job).contains("limits.memory_bytes = 67108864"),
        "{job:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grows_too_large_fails_and_names_its_limit() {
    let stage = Stage::new(BOMB_LIMITS).await;
    let job = set_off(&stage, "fills").await;
    assert_eq!(
        error(&job),
        "ended by its limit limits.file_bytes = 1048576"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_work_folder_fails_the_job_and_leaves_the_runner_at_work() {
    let stage = Stage::new("").await;
    let disk = SmallDisk::mounted(&stage.path("disk"));
    let folder = stage.path("disk");
    let folder = folder.to_str().expect("a path");
    let runner = stage.runner(&[("RUNNER_WORK_DIR", folder)]).await;
    let id = stage.submit("overflows").await;
    let job = stage.until(id, Status::Failed).await;
    assert!(
        error(&job).starts_with("no space is left in the work folder of the runner"),
        "{job:?}"
    );
    let next = stage.submit("quick").await;
    stage.until(next, Status::Succeeded).await;
    runner.end().await;
    drop(disk);
}

/// A file system of 4 MiB.
struct SmallDisk(std::path::PathBuf);

#[expect(
    clippy::disallowed_methods,
    reason = "a file system that can be full needs a program that mounts it"
)]
impl SmallDisk {
    /// Fails where it cannot be mounted: a test that is left out proves nothing.
    fn mounted(path: &std::path::Path) -> Self {
        std::fs::create_dir(path).expect("a folder");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs"])
            .arg(path)
            .status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "this test needs to mount a tmpfs: run it as root, or leave it out by its name (--skip a_full_work_folder)"
        );
        Self(path.to_owned())
    }
}

#[expect(clippy::disallowed_methods, reason = "and one that unmounts it")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}
