//! Keys that are kept by their digests.

use jobs::{NewApiKey, StoreError};

use crate::database::Database;

fn key<'a>(digest: &'a [u8; 32], scope: &'a str) -> NewApiKey<'a> {
    NewApiKey {
        name: "ci",
        digest,
        scope,
        lasts_seconds: None,
    }
}

#[tokio::test]
async fn a_key_opens_until_it_is_revoked_or_has_expired() {
    let database = Database::new().await;
    let store = &database.store;
    let digest = [7; 32];
    let made = store.add_api_key(key(&digest, "enqueue"), "key:test").await;
    let made = made.expect("kept");
    assert_eq!(
        (made.id.as_str(), made.created_by.as_str()),
        ("key:07070707", "key:test")
    );
    assert!(made.is_good && made.last_used_at.is_none());
    let scope = store.api_key_scope(&digest).await.expect("an answer");
    assert_eq!(scope.as_deref(), Some("enqueue"));
    assert_eq!(
        store.api_key_scope(&[8; 32]).await.expect("an answer"),
        None
    );
    let listed = store.api_keys().await.expect("a list");
    assert!(listed.len() == 1 && listed[0].last_used_at.is_some());
    let again = store.add_api_key(key(&digest, "admin"), "key:test").await;
    assert!(matches!(again, Err(StoreError::Refused(_))), "{again:?}");
    let revoked = store.revoke_api_key(&made.id, "key:boss").await;
    let revoked = revoked.expect("an answer").expect("known");
    assert_eq!(revoked.revoked_by.as_deref(), Some("key:boss"));
    let once_more = store.revoke_api_key(&made.id, "key:other").await;
    let once_more = once_more.expect("an answer").expect("known");
    assert_eq!(once_more.revoked_by.as_deref(), Some("key:boss"));
    assert_eq!(store.api_key_scope(&digest).await.expect("an answer"), None);
    assert!(
        store
            .revoke_api_key("key:none", "x")
            .await
            .expect("an answer")
            .is_none()
    );
    let brief = NewApiKey {
        lasts_seconds: Some(3600),
        ..key(&[9; 32], "read")
    };
    store.add_api_key(brief, "key:test").await.expect("kept");
    assert!(
        store
            .api_key_scope(&[9; 32])
            .await
            .expect("an answer")
            .is_some()
    );
    sqlx::raw_sql("update ops_api_keys set expires_at = now() where scope = 'read'")
        .execute(&database.psql)
        .await
        .expect("an expiry may be moved");
    assert_eq!(
        store.api_key_scope(&[9; 32]).await.expect("an answer"),
        None
    );
}

#[tokio::test]
async fn a_key_cannot_be_widened_or_taken_back_from_its_revocation_by_hand() {
    let database = Database::new().await;
    let made = database.store.add_api_key(key(&[1; 32], "read"), "x").await;
    let id = made.expect("kept").id;
    database
        .store
        .revoke_api_key(&id, "x")
        .await
        .expect("revoked");
    for sql in [
        "update ops_api_keys set scope = 'admin'",
        "update ops_api_keys set digest = sha256('other')",
        "update ops_api_keys set created_by = 'somebody'",
        "update ops_api_keys set revoked_at = null, revoked_by = null",
        "insert into ops_api_keys (name, digest, scope) values ('a', sha256('a'), 'all')",
        "insert into ops_api_keys (name, digest, scope) values ('', sha256('a'), 'read')",
        "insert into ops_api_keys (name, digest, scope) values ('a', 'short', 'read')",
    ] {
        let done = sqlx::raw_sql(sql).execute(&database.psql).await;
        assert!(done.is_err(), "{sql}");
    }
}
