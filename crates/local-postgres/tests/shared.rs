//! The server that test processes share, and the databases on it. Needs PostgreSQL's server programs.

#![expect(
    clippy::expect_used,
    reason = "a helper of a test may fail like the test itself"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use local_postgres::testing::{Settings, TestServer, private_cluster};
use local_postgres::{Error, Mode};
use tempfile::TempDir;

fn settings(workspace: &TempDir) -> Settings {
    Settings {
        workspace: workspace.path().to_path_buf(),
        linger: Duration::from_secs(1),
        given_url: None,
        ..Settings::from_environment()
    }
}

fn home(url: &str) -> PathBuf {
    Path::new(url.split_once("?host=").expect("a socket").1)
        .parent()
        .expect("a home")
        .to_path_buf()
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests look at databases from outside"
)]
fn sql(url: &str, statement: &str) -> Result<String, String> {
    let output = Command::new("psql")
        .args([
            "-X",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
            url,
        ])
        .output()
        .expect("psql runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

fn fill(url: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    sql(url, "create table t (n int); insert into t values (1)")
        .map(drop)
        .map_err(Into::into)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{what} did not come about"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

fn remove_rest(home: &Path) {
    until("the end of the data", || {
        !home.join("data").exists() && !home.join("stopping").exists()
    });
    std::fs::remove_dir_all(home.parent().expect("a folder")).expect("removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_tests_at_once_build_one_template_and_see_only_their_own_rows() {
    static BUILT: AtomicU32 = AtomicU32::new(0);
    let workspace = tempfile::tempdir().expect("a directory");
    let start = Instant::now();
    let mut tests = tokio::task::JoinSet::new();
    for number in 0..20 {
        let settings = settings(&workspace);
        // Each comes with a server of its own, as if it were a process of its own.
        tests.spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let server = TestServer::new(&settings).await.expect("a server");
                let build = async |url: String| {
                    BUILT.fetch_add(1, Ordering::Relaxed);
                    fill(&url)
                };
                let database = server.database("twenty", build).await.expect("a database");
                sql(
                    &database.url,
                    &format!("insert into t values ({number} + 100)"),
                )
                .expect("inserted");
                assert_eq!(
                    sql(&database.url, "select count(*), max(n) from t").as_deref(),
                    Ok(format!("2|{}", number + 100).as_str())
                );
                (database.name.clone(), home(&database.url))
            })
        });
    }
    let mut names: Vec<(String, PathBuf)> = tests.join_all().await;
    println!("20 databases: {:?}", start.elapsed());
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 20);
    assert_eq!(BUILT.load(Ordering::Relaxed), 1);
    remove_rest(&names[0].1);
}

#[tokio::test]
async fn a_database_is_dropped_with_its_value_and_copies_are_quick() {
    let workspace = tempfile::tempdir().expect("a directory");
    let server = TestServer::new(&settings(&workspace))
        .await
        .expect("a server");
    let kept = server
        .database("quick", async |url: String| fill(&url))
        .await
        .expect("a database");
    let start = Instant::now();
    let gone = server
        .database("quick", async |_| Err("it is there already".into()))
        .await
        .expect("a copy");
    println!("one more database: {:?}", start.elapsed());
    let count = format!(
        "select count(*) from pg_database where datname = '{}'",
        gone.name
    );
    drop(gone);
    until("the drop", || sql(&kept.url, &count).as_deref() == Ok("0"));
    let home = home(&kept.url);
    drop((kept, server));
    remove_rest(&home);
}

#[tokio::test]
async fn the_server_stays_while_anybody_uses_it_and_then_stops_by_itself() {
    let workspace = tempfile::tempdir().expect("a directory");
    let one = TestServer::new(&settings(&workspace))
        .await
        .expect("a server");
    let two = TestServer::new(&settings(&workspace))
        .await
        .expect("the same server");
    let database = two
        .database("stays", async |url: String| fill(&url))
        .await
        .expect("a database");
    let (url, home) = (database.url.clone(), home(&database.url));
    drop(one);
    // Longer than it lingers: time is what this test is about.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(sql(&url, "select n from t").as_deref(), Ok("1"));
    drop((database, two));
    println!(
        "stopped {:?} after its last user (lingers 1 s)",
        until("the stop", || !home.join("data").exists())
    );
    remove_rest(&home);
}

#[tokio::test]
async fn a_start_never_meets_a_stop_half_way() {
    let workspace = tempfile::tempdir().expect("a directory");
    let settings = settings(&workspace);
    let mut last = None;
    // The pauses sweep over the moment in which the guard closes its door.
    for step in 0..12 {
        let server = TestServer::new(&settings).await.expect("a server");
        let database = server
            .database("race", async |url: String| fill(&url))
            .await
            .expect("a database");
        assert_eq!(sql(&database.url, "select n from t").as_deref(), Ok("1"));
        last = Some(home(&database.url));
        drop((database, server));
        tokio::time::sleep(Duration::from_millis(950 + 20 * step)).await;
    }
    remove_rest(&last.expect("a home"));
}

#[tokio::test]
async fn a_template_that_could_not_be_filled_is_built_anew() {
    let workspace = tempfile::tempdir().expect("a directory");
    let server = TestServer::new(&settings(&workspace))
        .await
        .expect("a server");
    let failed = server
        .database("anew", async |_| Err("half-way".into()))
        .await;
    assert!(matches!(failed, Err(Error::Template { .. })), "{failed:?}");
    let database = server
        .database("anew", async |url: String| fill(&url))
        .await
        .expect("a database");
    assert_eq!(sql(&database.url, "select n from t").as_deref(), Ok("1"));
    assert!(matches!(
        server.database("a-b", async |_| Ok(())).await,
        Err(Error::BadName { .. })
    ));
    let home = home(&database.url);
    drop((database, server));
    remove_rest(&home);
}

#[tokio::test]
async fn a_given_server_is_used_instead() {
    let cluster = private_cluster(Mode::Test).await.expect("started");
    let workspace = tempfile::tempdir().expect("a directory");
    let mut settings = Settings {
        given_url: Some(cluster.url("postgres")),
        ..settings(&workspace)
    };
    settings.options.temp_dir = workspace.path().to_path_buf();
    let server = TestServer::new(&settings).await.expect("a server");
    let database = server
        .database("given", async |url: String| fill(&url))
        .await
        .expect("a database");
    assert_eq!(home(&database.url), cluster.folder());
    assert_eq!(sql(&database.url, "select n from t").as_deref(), Ok("1"));
}

#[tokio::test]
async fn a_server_whose_folder_was_removed_under_it_goes_away_with_its_users() {
    let workspace = tempfile::tempdir().expect("a directory");
    let server = TestServer::new(&settings(&workspace))
        .await
        .expect("a server");
    let database = server
        .database("removed", async |url: String| fill(&url))
        .await
        .expect("a database");
    let home = home(&database.url);
    let text = std::fs::read_to_string(home.join("data/postmaster.pid")).expect("a pid file");
    let pid = text
        .lines()
        .next()
        .and_then(|line| line.parse().ok())
        .and_then(rustix::process::Pid::from_raw)
        .expect("a pid");
    // The folder is this test's own: its name stands for the temporary workspace.
    std::fs::remove_dir_all(home.parent().expect("a folder")).expect("removed");
    drop((database, server));
    until("the end of the server", || {
        rustix::process::test_kill_process(pid).is_err()
    });
}
