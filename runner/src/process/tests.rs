//! Commands in a process group. What a shim does is shown on the real program, in `tests/tree`.

use super::*;
use crate::interruption::Interruption;

async fn run_script(script: &str, stdin: &[u8], bell: &Bell, output: &Arc<Output>) -> Ended {
    let argv = ["sh", "-c", script].map(str::to_owned);
    let folder = tempfile::tempdir().expect("a folder");
    let environment = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    let program = Program {
        argv: &argv,
        environment,
        folder: folder.path(),
        stdin: stdin.to_vec(),
        timeout: None,
        limits: Limits::default(),
    };
    run(&Watch::Group, program, output, bell)
        .await
        .expect("started")
}

/// How it ended, and what it wrote on stderr.
async fn ended(script: &str, stdin: &[u8]) -> (Ended, String) {
    let output = Arc::new(Output::new());
    let ended = run_script(script, stdin, &Bell::new(), &output).await;
    (ended, output.stderr_tail())
}

/// Rings once the script says that it is ready.
async fn interrupted(script: &str, why: Interruption) -> Ended {
    let (output, bell) = (Arc::new(Output::new()), Bell::new());
    let ring = async {
        while output.stderr_tail() != "ready" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bell.ring(why);
    };
    let (ended, ()) = tokio::join!(run_script(script, b"", &bell, &output), ring);
    ended
}

/// Gone, or dead and only not yet collected by its parent.
fn is_dead(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ")
}

async fn until_dead(pid: &str) {
    assert!(!pid.is_empty());
    let dead = async {
        while !is_dead(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), dead)
        .await
        .expect("dead");
}

#[tokio::test]
async fn a_process_ends_by_its_code_or_its_signal() {
    assert_eq!(ended("exit 75", b"").await.0, Ended::Exited(75));
    assert_eq!(ended("kill -9 $$", b"").await.0, Ended::Killed(9));
}

#[tokio::test]
async fn nothing_is_inherited_but_what_is_given() {
    let (ended, environment) =
        ended("env | grep -v -e '^PWD=' -e '^_=' -e '^SHLVL=' >&2", b"").await;
    assert_eq!(ended, Ended::Exited(0));
    assert_eq!(environment, "PATH=/usr/bin:/bin");
}

#[tokio::test]
async fn a_child_that_never_reads_its_payload_is_not_waited_for() {
    assert_eq!(
        ended("exit 0", &vec![b'x'; 1024 * 1024]).await.0,
        Ended::Exited(0)
    );
}

#[tokio::test]
async fn what_a_process_leaves_running_in_its_group_dies_with_it() {
    let (ended, left) = ended("sleep 600 & echo $! >&2", b"").await;
    assert_eq!(ended, Ended::Exited(0));
    until_dead(&left).await;
}

#[tokio::test]
async fn a_process_without_a_lease_is_killed_even_if_it_ignores_termination() {
    let script = "trap '' TERM; echo ready >&2; while :; do sleep 0.01; done";
    assert_eq!(
        interrupted(script, Interruption::LeaseLost).await,
        Ended::Killed(9)
    );
}

#[tokio::test]
async fn an_aborted_process_may_clean_up() {
    let script = "trap 'exit 7' TERM; echo ready >&2; while :; do sleep 0.01; done";
    assert_eq!(
        interrupted(script, Interruption::Aborted).await,
        Ended::Exited(7)
    );
}

#[tokio::test]
async fn an_aborted_process_that_ignores_it_is_killed() {
    let script = "trap '' TERM; echo ready >&2; while :; do sleep 0.01; done";
    assert_eq!(
        interrupted(script, Interruption::Aborted).await,
        Ended::Killed(9)
    );
}
