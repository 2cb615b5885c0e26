//! What the roles may do: exactly what is committed, by the catalogue and by trying; and functions that act for others.

use jobs::{EXPECTED_RIGHTS, ROLES, RightsApart};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use crate::database::Database;

#[tokio::test]
async fn the_roles_have_exactly_the_rights_that_are_committed() {
    let database = Database::new().await;
    database.store.bootstrap_roles().await.expect("made");
    let apart = database.store.rights_apart().await.expect("an answer");
    assert_eq!(
        apart,
        RightsApart::default(),
        "if it is meant: .ci/generate"
    );
    assert!(EXPECTED_RIGHTS.lines().count() > 100);
    // A right too many, and one too few, are found.
    for sql in [
        "grant delete on ops_jobs to ops_readonly",
        "revoke select on ops_jobs from ops_runner",
    ] {
        sqlx::raw_sql(sql).execute(&database.psql).await.expect(sql);
    }
    let apart = database.store.rights_apart().await.expect("an answer");
    assert_eq!(apart.surplus, ["ops_readonly | table | ops_jobs | DELETE"]);
    assert_eq!(apart.missing, ["ops_runner | table | ops_jobs | SELECT"]);
    database.store.bootstrap_roles().await.expect("made again");
    let apart = database.store.rights_apart().await.expect("an answer");
    assert_eq!(apart, RightsApart::default(), "bootstrap mends it");
}

/// Whether a role may do something, found by trying; what is done is taken back.
async fn may(connection: &mut sqlx::PgConnection, role: &str, sql: &str) -> bool {
    let mut transaction = connection.begin().await.expect("begun");
    let sql = format!("set local role {role}; {sql}");
    let tried = sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut *transaction)
        .await;
    transaction.rollback().await.expect("taken back");
    match tried {
        Ok(_) => true,
        Err(sqlx::Error::Database(refused)) => refused.code().as_deref() != Some("42501"),
        Err(error) => panic!("{role}: {error}"),
    }
}

#[tokio::test]
async fn each_right_on_each_table_and_column_is_there_or_not_when_it_is_tried() {
    let database = Database::new().await;
    database.store.bootstrap_roles().await.expect("made");
    let columns = sqlx::query(
        "select c.relname::text, c.relkind = 'v', a.attname::text from pg_class c
         join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attidentity = ''
         where c.relname like 'ops\\_%' and c.relkind in ('r', 'v') order by 1, a.attnum",
    )
    .fetch_all(&database.psql)
    .await
    .expect("the catalogue");
    let mut connection = database.psql.acquire().await.expect("a connection");
    let has = |line: String| EXPECTED_RIGHTS.lines().any(|right| right == line);
    let mut tries = 0;
    for role in ROLES {
        let mut before = String::new();
        for row in &columns {
            let (table, is_view, column): (String, bool, String) =
                (row.get(0), row.get(1), row.get(2));
            let kind = if is_view { "view" } else { "table" };
            let whole = |right: &str| has(format!("{role} | {kind} | {table} | {right}"));
            let part = |right: &str| has(format!("{role} | column | {table}.{column} | {right}"));
            // Rights are looked at when a plan is made ready, so nothing needs to be done.
            let mut tried = vec![(
                format!("explain select {column} from {table}"),
                whole("SELECT") || part("SELECT"),
            )];
            if !is_view && (whole("SELECT") || part("SELECT")) {
                tried.push((
                    format!("explain update {table} set {column} = {column}"),
                    whole("UPDATE") || part("UPDATE"),
                ));
            }
            if table != before && !is_view {
                tried.push((format!("explain delete from {table}"), whole("DELETE")));
                tried.push((format!("truncate {table}"), whole("TRUNCATE")));
                tried.push((format!("drop table {table}"), false));
                let some_insert = EXPECTED_RIGHTS.lines().any(|right| {
                    right == format!("{role} | table | {table} | INSERT")
                        || right.starts_with(&format!("{role} | column | {table}."))
                            && right.ends_with("| INSERT")
                });
                tried.push((
                    format!("explain insert into {table} default values"),
                    some_insert,
                ));
            }
            for (sql, expected) in tried {
                assert_eq!(
                    may(&mut connection, role, &sql).await,
                    expected,
                    "{role}: {sql}"
                );
                tries += 1;
            }
            before = table;
        }
    }
    assert!(tries > 300, "{tries}");
}

#[tokio::test]
async fn functions_that_act_with_the_owners_rights_look_for_nothing_in_places_of_the_callers() {
    let database = Database::new().await;
    let functions: Vec<(String, Option<Vec<String>>)> = sqlx::query_as(
        "select proname::text, proconfig from pg_proc where prosecdef and proname like 'ops\\_%'",
    )
    .fetch_all(&database.psql)
    .await
    .expect("the catalogue");
    assert!(functions.len() > 20, "{}", functions.len());
    for (name, settings) in functions {
        let paths: Vec<String> = settings
            .unwrap_or_default()
            .into_iter()
            .filter(|setting| setting.starts_with("search_path="))
            .collect();
        assert!(
            paths == ["search_path=public, pg_temp"]
                || paths == ["search_path=pg_catalog, public, pg_temp"],
            "{name}: {paths:?}"
        );
    }
}
