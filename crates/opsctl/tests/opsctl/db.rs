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
