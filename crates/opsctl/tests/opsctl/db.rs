//! `opsctl db`: up, down and errors, on a database of its own.

use local_postgres::testing;
use serde_json::Value;

use crate::program::{opsctl, outcome};

fn applied(status: &str) -> Vec<bool> {
    let status: Value = serde_json::from_str(status).expect("JSON");
    let migrations = status["migrations"].as_array().expect("a list");
    migrations
        .iter()
        .map(|migration| migration["applied"].as_bool().expect("a bool"))
        .collect()
}

#[tokio::test]
async fn the_schema_goes_up_and_down_and_jobs_are_not_dropped_unasked() {
    let database = testing::database("opsctl_empty", async |_| Ok(()))
        .await
        .expect("a database");
    let db = |arguments: &[&str]| {
        let all: Vec<&str> = ["--output", "json", "db"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        outcome(opsctl(&all).env("DATABASE_URL", &database.url))
    };
    assert!(applied(&db(&["status"]).1).iter().all(|applied| !applied));
    assert!(applied(&db(&["migrate"]).1).iter().all(|applied| *applied));
    assert!(db(&["migrate"]).2.contains("nothing to apply"));
    let one_less = applied(&db(&["rollback"]).1);
    assert_eq!(one_less.iter().filter(|applied| !**applied).count(), 1);
    assert_eq!(one_less.last(), Some(&false));
    assert_eq!(db(&["rollback", "--to", "999"]).0, 2);
    assert_eq!(db(&["migrate"]).0, 0);

    let options = jobs::StoreOptions::new(database.url.clone(), 1, "opsctl-tests");
    let store = jobs::Store::new(&options).expect("an address");
    let job = jobs::NewJob::new("hello".parse().expect("a name"), Value::Null);
    store.submit(job, "test").await.expect("recorded");
    store.close().await;
    let (code, _, err) = db(&["rollback", "--all"]);
    assert_eq!(code, 2);
    assert!(err.contains("--yes"), "{err}");
    assert!(
        applied(&db(&["rollback", "--all", "--yes"]).1)
            .iter()
            .all(|applied| !applied)
    );
}

#[test]
fn a_database_that_is_away_or_no_postgresql_is_told_in_one_line_without_its_address() {
    let status = |url: &str| outcome(opsctl(&["db", "status"]).env("DATABASE_URL", url));
    let (code, _, err) = status("postgres://u:canary@127.0.0.1:1/x");
    assert_eq!((code, err.lines().count()), (69, 1), "{err}");
    assert!(!err.contains("canary"), "{err}");
    let (code, _, err) = status("sqlite:canary");
    assert_eq!(code, 2);
    assert!(
        err.contains("PostgreSQL") && !err.contains("canary"),
        "{err}"
    );
    assert_eq!(outcome(&mut opsctl(&["db", "status"])).0, 2);
}

#[tokio::test]
async fn a_row_that_its_events_do_not_explain_is_a_finding_and_exit_code_1() {
    // A private cluster, because it runs a file of SQL as a person does.
    let cluster = testing::private_cluster(local_postgres::Mode::Test)
        .await
        .expect("a cluster");
    cluster
        .create_database("verified")
        .await
        .expect("a database");
    let url = cluster.url("verified");
    assert_eq!(
        outcome(opsctl(&["db", "migrate"]).env("DATABASE_URL", &url)).0,
        0
    );
    let verify = |arguments: &[&str]| outcome(opsctl(arguments).env("DATABASE_URL", &url));
    let (code, out, err) = verify(&["verify"]);
    assert_eq!((code, out.as_str()), (0, ""));
    assert!(err.contains("0 jobs"), "{err}");

    let options = jobs::StoreOptions::new(url.clone(), 1, "opsctl-tests");
    let store = jobs::Store::new(&options).expect("an address");
    let job = jobs::NewJob::new("hello".parse().expect("a name"), Value::Null);
    let id = store
        .submit(job, "test")
        .await
        .expect("recorded")
        .into_job()
        .id;
    store.close().await;
    assert_eq!(verify(&["verify"]).0, 0);
    // The guard refuses this of anybody; only who switches it off leaves such a row.
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(
        file.path(),
        format!(
            "set session_replication_role = replica; update ops_jobs set attempt = 3 where id = '{id}';"
        ),
    )
    .expect("written");
    cluster
        .run_file("verified", file.path())
        .await
        .expect("by hand");
    let (code, out, err) = verify(&["verify"]);
    assert_eq!((code, out.lines().count()), (1, 1), "{out}");
    assert!(
        out.starts_with(&id.to_string()) && out.contains(" attempt: "),
        "{out}"
    );
    assert!(
        err.contains("1 jobs, 1 events, 0 seals: 1 finding"),
        "{err}"
    );
    let (code, out, _) = verify(&["--output", "json", "verify"]);
    let document: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, 1);
    assert_eq!(document["findings"][0]["job_id"], id.to_string());
    assert_eq!(document["findings"][0]["subject"], "attempt");
    cluster.stop().await.expect("stopped");
}
