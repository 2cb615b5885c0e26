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
        term: Term::new(BootTime::now()),
    };
    run(&Watch::Group, program, output, bell)
        .await
        .expect("started")
}

/// How it ended, and what it wrote on stderr.
async fn ended(script: &str, stdin: &[u8]) -> (Ended, String) {
    let output = Arc::new(Output::new(&Arc::new(crate::mask::Masks::new([])), 1));
    let ended = run_script(script, stdin, &Bell::new(), &output).await;
    (ended, output.stderr_tail())
}

/// Rings once the script says that it is ready.
async fn interrupted(script: &str, why: Interruption) -> Ended {
    let (output, bell) = (
        Arc::new(Output::new(&Arc::new(crate::mask::Masks::new([])), 1)),
        Bell::new(),
    );
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

/// How a command named without a path ends below a shim.
fn code_of(name: &str, script: &str) -> io::Result<Option<i32>> {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("script");
    std::fs::write(&path, script).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let (_stdout, of_command) = io::pipe()?;
    let outlets = Outlets {
        stderr: of_command.try_clone()?.into(),
        stdout: of_command.into(),
    };
    let argv = [name.to_owned()];
    let environment = [("PATH".to_owned(), path)];
    let mut child = loop {
        match start_command(&argv, &environment, folder.path(), &outlets) {
            // A test beside this one was starting a process while the script was written, and has not let go of it yet.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
            started => break started?,
        }
    };
    Ok(child.wait()?.code())
}

#[test]
fn a_command_is_found_by_its_name_whoever_reads_it() {
    let with_reader = code_of("script", "#!/bin/sh\ntest ${0##*/} = script && exit 7\n");
    assert_eq!(with_reader.expect("started"), Some(7));
    assert_eq!(code_of("script", "exit 8\n").expect("started"), Some(8));
    let missing = code_of("no-such-program", "").expect_err("not there");
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}
