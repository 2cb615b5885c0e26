//! A private cluster, from outside: started, adopted, hurt and left alone. Needs PostgreSQL's server programs.

#![expect(
    clippy::expect_used,
    reason = "a helper of a test may fail like the test itself"
)]

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use local_postgres::testing::{Settings, private_cluster};
use local_postgres::{Cluster, Error, Mode, Options, Place, reset};
use tempfile::TempDir;

const BIN: &str = env!("CARGO_BIN_EXE_local-postgres");

/// A folder that the server's user can get to.
fn folder() -> TempDir {
    let temp = tempfile::tempdir().expect("a directory");
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    temp
}

fn at(folder: &Path, mode: Mode) -> Options {
    Options {
        mode,
        place: Place::At(folder.to_path_buf()),
        ..Settings::from_environment().options
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn socket_of(url: &str) -> PathBuf {
    Path::new(url.split_once("?host=").expect("a socket").1).join(".s.PGSQL.5432")
}

fn answers(url: &str) -> bool {
    UnixStream::connect(socket_of(url)).is_ok()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{what} did not come about"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests look at processes from outside"
)]
fn command(program: &str) -> Command {
    Command::new(program)
}

fn sql(url: &str, statement: &str) -> String {
    let output = command("psql")
        .args(["-X", "-A", "-t", "-c", statement, url])
        .output()
        .expect("psql runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn server_pid(folder: &Path) -> i32 {
    let file = fs::read_to_string(folder.join("data/postmaster.pid")).expect("a pid file");
    file.lines()
        .next()
        .and_then(|line| line.parse().ok())
        .expect("a pid")
}

fn lives(pid: i32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
}

#[tokio::test]
async fn a_cluster_keeps_its_data_from_start_to_start() {
    let folder = folder();
    let mut times = Vec::new();
    for round in 0..3 {
        let start = Instant::now();
        let cluster = Cluster::start(at(folder.path(), Mode::Durable))
            .await
            .expect("started");
        times.push(("start", start.elapsed()));
        assert!(cluster.is_ours());
        cluster.create_database("ops_jobs").await.expect("made");
        let url = cluster.url("ops_jobs");
        if round == 0 {
            sql(
                &url,
                "create table kept (n int); insert into kept values (7)",
            );
        }
        assert_eq!(sql(&url, "select n from kept"), "7");
        assert_eq!(sql(&url, "show fsync"), "on");
        let start = Instant::now();
        cluster.stop().await.expect("stopped");
        times.push(("stop", start.elapsed()));
        assert!(!answers(&url));
    }
    println!("durable: {times:?}");
}

#[tokio::test]
async fn an_ephemeral_cluster_leaves_nothing_behind() {
    let start = Instant::now();
    let cluster = Cluster::start(Settings::from_environment().options)
        .await
        .expect("started");
    println!("ephemeral: {:?}", start.elapsed());
    let (url, home) = (cluster.url("postgres"), cluster.folder().to_path_buf());
    assert_eq!(sql(&url, "show fsync"), "off");
    cluster.create_database("a").await.expect("made");
    cluster.drop_database("a").await.expect("dropped");
    assert_eq!(
        sql(&url, "select count(*) from pg_database where datname = 'a'"),
        "0"
    );
    drop(cluster);
    assert!(!answers(&url));
    assert!(!home.exists() && !home.parent().expect("a parent").exists());
}

#[tokio::test]
async fn only_its_user_can_reach_a_cluster() {
    let cluster = private_cluster(Mode::Test).await.expect("started");
    for directory in [
        cluster.folder().to_path_buf(),
        socket_of(&cluster.url("postgres"))
            .parent()
            .expect("a directory")
            .to_path_buf(),
    ] {
        assert_eq!(
            fs::metadata(&directory).expect("there").mode() & 0o777,
            0o700,
            "{}",
            directory.display()
        );
    }
    assert_eq!(sql(&cluster.url("postgres"), "show listen_addresses"), "");
    let owner = fs::metadata(cluster.folder()).expect("there").uid();
    assert_ne!(owner, 0);
}

#[tokio::test]
async fn two_starters_at_once_share_one_server_and_the_adopter_does_not_stop_it() {
    let folder = folder();
    let options = at(folder.path(), Mode::Test);
    let (one, two) = tokio::join!(
        Cluster::start(options.clone()),
        Cluster::start(options.clone())
    );
    let (one, two) = (one.expect("started"), two.expect("started"));
    assert_ne!(one.is_ours(), two.is_ours());
    let (owner, adopter) = if one.is_ours() {
        (one, two)
    } else {
        (two, one)
    };
    let url = owner.url("postgres");
    assert_eq!(url, adopter.url("postgres"));
    adopter.stop().await.expect("left");
    assert!(answers(&url));
    assert!(matches!(
        reset(options.clone()).await,
        Err(Error::InUse { .. })
    ));
    owner.stop().await.expect("stopped");
    assert!(!answers(&url));
    reset(options).await.expect("removed");
    assert!(!folder.path().join("pg/data").exists());
}

#[tokio::test]
async fn a_server_that_was_killed_recovers_what_was_committed() {
    let cluster = private_cluster(Mode::Durable).await.expect("started");
    let url = cluster.url("postgres");
    sql(
        &url,
        "create table kept (n int); insert into kept values (7)",
    );
    let cluster = cluster.kill9().await.expect("killed");
    assert!(!answers(&url));
    let start = Instant::now();
    let cluster = cluster.restart().await.expect("restarted");
    println!("recovery: {:?}", start.elapsed());
    assert_eq!(sql(&url, "select n from kept"), "7");
    let cluster = cluster.restart().await.expect("restarted");
    assert_eq!(sql(&url, "select n from kept"), "7");
    let home = cluster.folder().to_path_buf();
    cluster.stop().await.expect("stopped");
    assert!(!home.exists());
}

#[tokio::test]
async fn a_server_killed_from_outside_can_be_started_by_another_while_its_owner_lives() {
    let folder = folder();
    let first = Cluster::start(at(folder.path(), Mode::Test))
        .await
        .expect("started");
    kill(server_pid(first.folder()));
    let second = Cluster::start(at(folder.path(), Mode::Test))
        .await
        .expect("started");
    assert!(second.is_ours());
    drop(first);
    assert_eq!(sql(&second.url("postgres"), "select 1"), "1");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_whose_guard_was_killed_is_stopped_all_the_same() {
    let cluster = private_cluster(Mode::Test).await.expect("started");
    let server = server_pid(cluster.folder());
    kill(parent_of(server));
    assert!(lives(server));
    let home = cluster.folder().to_path_buf();
    cluster.stop().await.expect("stopped");
    until("the end of the server", || !lives(server));
    assert!(!home.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_of_a_killed_owner_and_its_killed_guard_stays() {
    let (mut child, url) = victim(None);
    let home = socket_of(&url)
        .ancestors()
        .nth(2)
        .expect("a home")
        .to_path_buf();
    let server = server_pid(&home);
    kill(parent_of(server));
    child.kill().expect("killed");
    child.wait().expect("reaped");
    until("the end of the server", || !lives(server));
    until("the end of the watcher", || {
        !processes_with(home.to_str().expect("a path"))
    });
    fs::remove_dir_all(home.parent().expect("a parent")).expect("removed");
}

#[cfg(target_os = "linux")]
fn parent_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .and_then(|pid| pid.trim().parse().ok())
        .expect("a parent")
}

#[cfg(target_os = "linux")]
fn processes_with(words: &str) -> bool {
    let lines = fs::read_dir("/proc")
        .expect("listed")
        .filter_map(Result::ok)
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .any(|line| line.contains(words))
}

#[tokio::test]
async fn what_a_crash_in_the_middle_of_the_first_start_left_is_done_again() {
    let folder = folder();
    let options = at(folder.path(), Mode::Test);
    reset(options.clone()).await.expect("the folder is made");
    fs::create_dir_all(folder.path().join("pg/data.new/base")).expect("a half directory");
    fs::write(folder.path().join("pg/data.new/PG_VERSION"), "15\n").expect("written");
    let cluster = Cluster::start(options).await.expect("started");
    assert_eq!(sql(&cluster.url("postgres"), "select 1"), "1");
}

#[tokio::test]
async fn a_pid_file_with_the_number_of_another_living_program_does_not_stop_a_start() {
    let folder = folder();
    let options = at(folder.path(), Mode::Test);
    let cluster = Cluster::start(options.clone()).await.expect("started");
    let pid_file = cluster.folder().join("data/postmaster.pid");
    let text = fs::read_to_string(&pid_file).expect("a pid file");
    let owner = fs::metadata(cluster.folder()).expect("there");
    cluster.stop().await.expect("stopped");
    let mut foreign = command("cat");
    if is_root() {
        // The server believes in a living process only if it could signal it.
        foreign.uid(owner.uid()).gid(owner.gid());
    }
    let mut foreign = foreign.stdin(Stdio::piped()).spawn().expect("runs");
    let (_, rest) = text.split_once('\n').expect("lines");
    fs::write(&pid_file, format!("{}\n{rest}", foreign.id())).expect("written");
    let socket = folder.path().join("pg/socket/.s.PGSQL.5432.lock");
    fs::write(&socket, format!("{}\n{rest}", foreign.id())).expect("written");
    for left in [&pid_file, &socket] {
        std::os::unix::fs::chown(left, Some(owner.uid()), Some(owner.gid())).expect("handed over");
    }
    let again = Cluster::start(options).await;
    foreign.kill().expect("killed");
    foreign.wait().expect("reaped");
    assert_eq!(
        sql(&again.expect("started").url("postgres"), "select 1"),
        "1"
    );
}

#[tokio::test]
async fn a_server_started_by_hand_on_the_same_data_is_named_and_left_alone() {
    let folder = folder();
    let options = at(folder.path(), Mode::Test);
    let cluster = Cluster::start(options.clone()).await.expect("started");
    let (home, postgres) = (
        cluster.folder().to_path_buf(),
        cluster.programs().directory().join("postgres"),
    );
    cluster.stop().await.expect("stopped");
    let owner = fs::metadata(&home).expect("there");
    let mut by_hand = command(postgres.to_str().expect("a path"));
    by_hand
        .arg("-D")
        .arg(home.join("data"))
        .args(["-c", "listen_addresses=", "-c"]);
    by_hand
        .arg(format!(
            "unix_socket_directories={}",
            home.join("socket").display()
        ))
        .current_dir("/")
        .stderr(Stdio::null());
    if is_root() {
        by_hand.uid(owner.uid()).gid(owner.gid());
    }
    let mut by_hand = by_hand.spawn().expect("runs");
    until("the server", || {
        home.join("data/postmaster.pid").exists() && home.join("socket/.s.PGSQL.5432").exists()
    });
    let refused = Cluster::start(options).await;
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&by_hand),
        rustix::process::Signal::QUIT,
    )
    .expect("signalled");
    by_hand.wait().expect("reaped");
    assert!(
        matches!(refused, Err(Error::ForeignServer { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn data_of_another_major_version_are_named_and_not_touched() {
    let folder = folder();
    let options = at(folder.path(), Mode::Test);
    Cluster::start(options.clone())
        .await
        .expect("started")
        .stop()
        .await
        .expect("stopped");
    fs::write(folder.path().join("pg/data/PG_VERSION"), "12\n").expect("written");
    let error = Cluster::start(options).await.expect_err("no such programs");
    assert!(
        error.to_string().contains("made by PostgreSQL 12, found 1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_folder_that_the_servers_user_cannot_enter_is_named() {
    let folder = folder();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).expect("made");
    fs::set_permissions(
        &closed,
        fs::Permissions::from_mode(if is_root() { 0o700 } else { 0 }),
    )
    .expect("closed");
    let error = Cluster::start(at(&closed.join("state"), Mode::Test))
        .await
        .expect_err("it is closed");
    assert!(
        error.to_string().contains(closed.to_str().expect("a path")),
        "{error}"
    );
    assert_eq!(
        matches!(error, Error::CannotEnter { .. }),
        is_root(),
        "{error}"
    );
}

#[tokio::test]
async fn a_folder_too_deep_for_a_socket_works() {
    let folder = folder();
    let deep = folder.path().join("x".repeat(60)).join("y".repeat(60));
    let cluster = Cluster::start(at(&deep, Mode::Test))
        .await
        .expect("started");
    let url = cluster.url("postgres");
    assert!(socket_of(&url).as_os_str().len() <= 103);
    assert_eq!(sql(&url, "select 1"), "1");
    cluster.stop().await.expect("stopped");
    fs::remove_dir_all(socket_of(&url).parent().expect("a directory")).expect("removed");
}

/// The program with a command that says where its database is and waits for its input to end.
fn victim(user: Option<u32>) -> (Child, String) {
    let mut program = command(BIN);
    program
        .args([
            "run",
            "--",
            "sh",
            "-c",
            "echo $DATABASE_URL; exec cat >/dev/null",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if let Some(user) = user {
        program.uid(user).gid(user).current_dir("/");
    }
    let mut child = program.spawn().expect("runs");
    let mut url = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut url)
        .expect("an address");
    (child, url.trim().to_owned())
}

#[test]
fn the_server_and_its_folder_go_away_when_its_owner_is_killed() {
    let (mut child, url) = victim(None);
    let home = socket_of(&url)
        .ancestors()
        .nth(2)
        .expect("a home")
        .to_path_buf();
    let server = server_pid(&home);
    assert!(answers(&url) && lives(server));
    child.kill().expect("killed");
    child.wait().expect("reaped");
    println!(
        "gone after its owner: {:?}",
        until("the end of the server", || !lives(server))
    );
    until("the end of the folder", || {
        !home.parent().expect("a parent").exists()
    });
}

#[test]
fn a_user_without_privileges_can_run_it() {
    // Where we are root we become nobody; else we are such a user.
    let (mut child, url) = victim(is_root().then_some(65534));
    let home = socket_of(&url)
        .ancestors()
        .nth(2)
        .expect("a home")
        .to_path_buf();
    assert_eq!(
        fs::metadata(&home).expect("there").uid(),
        fs::metadata(home.join("data")).expect("there").uid()
    );
    assert_eq!(sql(&url, "select current_database()"), "ops_jobs");
    drop(child.stdin.take());
    assert!(child.wait().expect("ended").success());
    assert!(!home.exists());
}

#[test]
fn root_without_a_postgres_user_runs_it_as_another() {
    let asked = if is_root() {
        "nobody".to_owned()
    } else {
        String::new()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let options = Options {
            run_as: Some(asked.clone()).filter(|name| !name.is_empty()),
            ..Settings::from_environment().options
        };
        let cluster = Cluster::start(options).await.expect("started");
        assert_eq!(sql(&cluster.url("postgres"), "select 1"), "1");
        let owner = fs::metadata(cluster.folder()).expect("there").uid();
        let expected = if is_root() {
            65534
        } else {
            rustix::process::geteuid().as_raw()
        };
        assert_eq!(owner, expected);
    });
}

#[test]
fn the_program_migrates_runs_and_passes_the_exit_code_on() {
    let folder = folder();
    let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    file("2_b.up.sql", "insert into t values (1);");
    file("1_a.up.sql", "create table t (n int);");
    file("1_a.down.sql", "drop table t;");
    let run = |words: &[&str]| {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        command(BIN)
            .arg("run")
            .arg("--migrations")
            .arg(folder.path())
            .arg("--")
            .args(words)
            .output()
            .expect("runs")
    };
    let output = run(&[
        "sh",
        "-c",
        "psql -X -A -t -c 'select count(*) from t' $DATABASE_URL; exit 7",
    ]);
    assert_eq!(
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).trim()
        ),
        (Some(7), "1")
    );
    file("3_c.up.sql", "select nonsense;");
    let output = run(&["true"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("3_c.up.sql") && said.contains("nonsense"),
        "{said}"
    );
    let _ = std::io::stdout().flush();
}
