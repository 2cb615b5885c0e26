//! What a command starts ends with it: real commands that try to get away, below the real program.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails where it stands"
)]

mod bombs;
mod cgroup;
mod stage;

use std::time::{Duration, Instant};

use jobs::Status;
use rustix::process::Signal;
use stage::{Stage, family_of, is_shim, kill, shim_of, wait_until};

/// What killing may take beside the grace.
const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn what_left_its_session_is_dead_when_its_command_has_succeeded() {
    let stage = Stage::new("").await;
    let runner = stage.runner(&[]).await;
    let id = stage.submit("leaves").await;
    stage.until(id, Status::Succeeded).await;
    assert_eq!(family_of(id), [0; 0], "dead before the job has ended");
    assert!(stage.escaped(id), "it had got away");
    runner.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_kills_what_left_its_session_and_ignores_termination() {
    let stage = Stage::new("timeout_seconds = 1").await;
    let runner = stage.runner(&[]).await;
    let id = stage.submit("stays").await;
    stage.until_escaped(id).await;
    let begun = Instant::now();
    let job = stage.until(id, Status::Failed).await;
    assert!(begun.elapsed() < SECOND + GRACE + SECOND);
    assert_eq!(job.error.as_deref(), Some("timed out after 1 s"));
    assert_eq!(family_of(id), [0; 0]);
    runner.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_kills_what_left_its_session_and_ignores_termination() {
    let stage = Stage::new("").await;
    let runner = stage.runner(&[]).await;
    let id = stage.submit("stays").await;
    stage.until_escaped(id).await;
    let answer = stage.store.abort(id, "key:test", None).await;
    answer.expect("an abort");
    stage.until(id, Status::Aborted).await;
    assert_eq!(family_of(id), [0; 0]);
    runner.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_drains_leaves_nobody_behind() {
    let stage = Stage::new("").await;
    let runner = stage.runner(&[]).await;
    let id = stage.submit("stays").await;
    stage.until_escaped(id).await;
    runner.end().await;
    assert_eq!(family_of(id), [0; 0]);
    assert_eq!(stage.until(id, Status::Queued).await.attempt, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_killed_takes_the_whole_tree_with_it() {
    let stage = Stage::new("").await;
    let runner = stage.runner(&[]).await;
    let id = stage.submit("stays").await;
    stage.until_escaped(id).await;
    let shim = shim_of(id).expect("a shim");
    let killed = Instant::now();
    runner.kill();
    wait_until("the tree is dead", async || {
        (family_of(id).is_empty() && !is_shim(shim)).then_some(())
    })
    .await;
    assert!(killed.elapsed() < GRACE + SECOND, "{:?}", killed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_runner_keeps_no_command_alive_beyond_its_timeout() {
    let stage = Stage::new("timeout_seconds = 1").await;
    let runner = stage.runner(&[]).await;
    let id = stage.submit("stays").await;
    stage.until_escaped(id).await;
    kill(runner.id(), Signal::STOP);
    let frozen = Instant::now();
    wait_until("the tree is dead", async || {
        family_of(id).is_empty().then_some(())
    })
    .await;
    assert!(frozen.elapsed() < SECOND + GRACE + SECOND);
    kill(runner.id(), Signal::CONT);
    let job = stage.until(id, Status::Failed).await;
    assert_eq!(job.error.as_deref(), Some("timed out after 1 s"));
    runner.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_runner_keeps_no_command_alive_beyond_its_lease_and_its_late_result_is_refused() {
    let stage = Stage::new("").await;
    let runner = stage.runner(&[("RUNNER_LEASE_SECONDS", "8")]).await;
    let id = stage.submit("stays").await;
    stage.until_escaped(id).await;
    let first = stage.until(id, Status::Running).await.lease_expires_at;
    wait_until("the lease was renewed", async || {
        let job = stage.until(id, Status::Running).await;
        (job.lease_expires_at > first).then_some(())
    })
    .await;
    assert_ne!(family_of(id), [0; 0], "a renewal keeps it alive");
    kill(runner.id(), Signal::STOP);
    wait_until("the tree is dead", async || {
        family_of(id).is_empty().then_some(())
    })
    .await;
    // By the database's clock, which alone says when a lease is over.
    assert_eq!(stage.sweep().await, 0, "dead before its lease had ended");
    assert_eq!(stage.until(id, Status::Running).await.attempt, 1);
    wait_until("the lease is over", async || {
        (stage.sweep().await == 1).then_some(())
    })
    .await;
    stage.until(id, Status::Failed).await;
    kill(runner.id(), Signal::CONT);
    wait_until("the late result is refused", async || {
        let kinds = stage.kinds(id).await;
        kinds
            .iter()
            .any(|kind| kind == "stale_result_refused")
            .then_some(())
    })
    .await;
    runner.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_shim_watched_is_killed_by_the_runner() {
    let stage = Stage::new("").await;
    let runner = stage.runner(&[]).await;
    let id = stage.submit("stays").await;
    stage.until_escaped(id).await;
    kill(shim_of(id).expect("a shim"), Signal::KILL);
    let job = stage.until(id, Status::Failed).await;
    assert_eq!(family_of(id), [0; 0]);
    let error = job.error.unwrap_or_default();
    assert!(error.contains("that watched it was killed"), "{error}");
    runner.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_boot_left_running_is_killed_by_the_next() {
    let stage = Stage::new("").await;
    let first = stage.runner(&[]).await;
    let id = stage.submit("stays").await;
    stage.until_escaped(id).await;
    // So that the runner cannot clean up behind the shim.
    kill(first.id(), Signal::STOP);
    kill(shim_of(id).expect("a shim"), Signal::KILL);
    first.kill();
    assert_ne!(family_of(id), [0; 0], "nobody is left to kill them");
    let next = stage.runner(&[]).await;
    assert_eq!(family_of(id), [0; 0]);
    assert_eq!(stage.boots(), 1, "the dead boot's folder is gone");
    next.end().await;
    assert_eq!(stage.boots(), 0);
}

/// What the runner holds open for one shim: its line, and a handle on the process.
const FILES_OF_SHIM: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn quick_jobs_in_a_crowd_all_succeed_and_leak_nothing() {
    let stage = Stage::new("").await;
    let runner = stage.runner(&[("RUNNER_CONCURRENCY", "16")]).await;
    let warm = stage.submit("quick").await;
    stage.until(warm, Status::Succeeded).await;
    let (files, shims) = (runner.open_files(), runner.shims().len());
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(stage.submit("quick").await);
    }
    for id in crowd {
        stage.until(id, Status::Succeeded).await;
        assert_eq!(family_of(id), [0; 0]);
    }
    let now = runner.shims().len();
    assert!(now <= 16, "no more shims than slots: {now}");
    wait_until("no dead child is left uncollected", async || {
        (runner.children().len() == now).then_some(())
    })
    .await;
    let most = files + 5 + FILES_OF_SHIM * now.saturating_sub(shims);
    let after = runner.open_files();
    assert!(after <= most, "{files} files before, {after} after");
    let shims = runner.shims();
    runner.end().await;
    assert!(!shims.into_iter().any(is_shim), "they end with the runner");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_serves_one_run_after_another_and_is_replaced_when_it_was_killed_at_rest() {
    let stage = Stage::new("").await;
    let runner = stage.runner(&[("RUNNER_CONCURRENCY", "1")]).await;
    let first = stage.submit("leaves").await;
    stage.until(first, Status::Succeeded).await;
    let shims = runner.shims();
    assert_eq!(shims.len(), 1);
    let second = stage.submit("stays").await;
    stage.until_escaped(second).await;
    assert_eq!(shim_of(second), Some(shims[0]), "the same one");
    let answer = stage.store.abort(second, "key:test", None).await;
    answer.expect("an abort");
    stage.until(second, Status::Aborted).await;
    assert_eq!(family_of(second), [0; 0]);
    wait_until("it rests", async || (runner.shims() == shims).then_some(())).await;
    kill(shims[0], Signal::KILL);
    wait_until("it is dead", async || (!is_shim(shims[0])).then_some(())).await;
    let third = stage.submit("leaves").await;
    let third = stage.until(third, Status::Succeeded).await;
    assert_eq!(third.attempt, 1, "its death harmed nobody");
    assert_ne!(runner.shims(), shims);
    runner.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_held_to_its_limits() {
    let limits = "limits = { memory_bytes = 67108864, open_files = 40, file_bytes = 102400 }";
    let stage = Stage::new(limits).await;
    let runner = stage.runner(&[]).await;
    let id = stage.submit("limited").await;
    let job = stage.until(id, Status::Succeeded).await;
    let expected = serde_json::json!({
        "data": "65536", "files": "40", "file": "100", "core": "0", "mask": "0077", "oom": "500", "locked": "1", "open": "0 1 2"
    });
    assert_eq!(job.result, Some(expected));
    runner.end().await;
}
