//! `opsctl dev` as a newcomer starts it, and as a power cut ends it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use local_postgres::testing::Settings;
use tempfile::TempDir;
use tests::{Client, Program, Start, processes_in, wait_until};

/// A folder that the user of a private PostgreSQL can enter.
fn open_folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("ops-dev-").tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    folder
}

fn dev(folder: &Path, arguments: &[&str]) -> Start {
    let path = Settings::from_environment().options.path.unwrap_or_default().to_string_lossy().into_owned();
    let folder = folder.display().to_string();
    let start = Start::of("opsctl").arguments(&["dev", "--control-plane-port", "0", "--runner-port", "0"]);
    start.arguments(arguments).set("PATH", &path).set("HOME", &folder).set("TMPDIR", &folder)
}

#[tokio::test]
async fn the_first_job_succeeds_on_the_screen_and_nothing_stays() {
    let folder = open_folder();
    let (code, stdout, stderr) = dev(folder.path(), &["--exit", "--ephemeral"]).run().await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    for text in ["trigger_runner", "queued", "running", "progress", "succeeded", "hello from job"] {
        assert!(stdout.contains(text), "{text}: {stdout}{stderr}");
    }
    wait_until("PostgreSQL is gone", async || processes_in(folder.path()).is_empty().then_some(())).await;
    let left: Vec<_> = fs::read_dir(folder.path()).expect("the folder").flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The client for a `dev` that serves.
async fn served(program: &mut Program, state: &Path) -> Client {
    program.says("serving after").await;
    let screen = program.stdout();
    let address = screen.lines().find_map(|line| line.strip_prefix("control plane")).expect("an address");
    assert_eq!(screen.lines().filter(|line| line.starts_with("curl ")).count(), 3, "{screen}");
    let header = fs::read_to_string(state.join("ops-key.header")).expect("the key's file");
    let key = header.trim().split_once(": ").expect("a header").1.to_owned();
    for file in ["ops-key.header", "dev.env"] {
        let mode = fs::metadata(state.join(file)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    Client::new(address.trim()).at("/api/v1/ops").with("x-ops-key", &key)
}

async fn jobs(client: &Client) -> Vec<String> {
    let answer = client.get("/jobs?status=succeeded").await.expect(200).json();
    let jobs = answer["jobs"].as_array().cloned().expect("jobs");
    jobs.iter().map(|job| job["id"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_killed_dev_leaves_no_postgresql_and_the_next_one_goes_on() {
    let folder = open_folder();
    let state = folder.path().join("state");
    let arguments = ["--state", state.to_str().expect("text")];
    let mut first = dev(folder.path(), &arguments).start();
    let client = served(&mut first, &state).await;
    let before = jobs(&client).await;
    assert_eq!(before.len(), 1);
    assert!(!processes_in(&state).is_empty(), "a PostgreSQL that works in {}", state.display());
    let (code, _, stderr) = dev(folder.path(), &arguments).run().await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("another opsctl dev"), "{stderr}");
    first.kill9().await;
    wait_until("PostgreSQL is gone", async || processes_in(&state).is_empty().then_some(())).await;
    let mut second = dev(folder.path(), &arguments).start();
    let client = served(&mut second, &state).await;
    let after = jobs(&client).await;
    assert_eq!((after.len(), after.last()), (2, before.last()));
    second.terminate();
    assert_eq!(second.exit_code().await, 0, "{}", second.stderr());
    wait_until("PostgreSQL is gone", async || processes_in(&state).is_empty().then_some(())).await;
    let reset = ["dev", "reset", "--yes", "--state", arguments[1]];
    let (code, stdout, stderr) = Start::of("opsctl").arguments(&reset).set("HOME", "/").run().await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(!state.join("pg").exists() && !state.join("dev.env").exists());
}
