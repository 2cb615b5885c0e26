//! Files in an object store: what goes up and comes down is the same as from the database, and nothing is left behind.

use serde_json::json;
use tests::{Multipart, S3, System, wait_until};

/// More than two parts of an upload, and not a multiple of one.
const LENGTH: usize = 12 * 1024 * 1024 + 7;

#[tokio::test]
async fn files_are_kept_in_an_s3_compatible_store() {
    let s3 = S3::start().await;
    let script = r#"
sha256sum < "$OPS_INPUT_DIR/big.bin" | cut -d' ' -f1 > "$OPS_ARTIFACTS_DIR/sum.txt"
cp "$OPS_INPUT_DIR/big.bin" "$OPS_ARTIFACTS_DIR/copy.bin"; : > "$OPS_ARTIFACTS_DIR/empty.txt"
echo "the key is $STORE_KEY, is it not""#;
    let mut builder = System::builder().set("SYNC_RUN_ENABLED", "1").shell(
        "copy",
        script,
        &format!("env = {{ STORE_KEY = \"{}\" }}", s3.key()),
    );
    for (name, value) in s3.settings() {
        builder = builder.set(&name, &value);
    }
    let system = builder.start().await;
    let bytes: Vec<u8> = (0..LENGTH)
        .map(|index| u8::try_from(index * 31 % 251).expect("small"))
        .collect();
    let upload = Multipart::new()
        .json("job", &json!({"job_type": "copy"}))
        .file("file", "big.bin", &bytes);
    let id = upload.post(&system.ops, "/jobs").await.expect(201).json()["id"].clone();
    let id = id.as_str().expect("an id");
    system.until(id, "succeeded").await;
    assert_eq!(s3.objects(), [0, 65, LENGTH as u64, LENGTH as u64]);
    let chunks = "select count(*) from ops_file_chunks";
    assert_eq!(
        system.database.count(chunks).await,
        0,
        "no bytes are in the database"
    );
    let list = system
        .ops
        .get(&format!("/jobs/{id}/artifacts"))
        .await
        .expect(200)
        .json();
    let copy = &list["artifacts"][0];
    assert_eq!(
        (&copy["name"], &copy["size"]),
        (&json!("copy.bin"), &json!(LENGTH))
    );
    let sum = system
        .ops
        .get(&format!("/jobs/{id}/artifacts/sum.txt"))
        .await
        .expect(200);
    assert_eq!(
        Some(sum.body.trim()),
        copy["sha256"].as_str(),
        "up and down are the same"
    );
    let empty = system
        .ops
        .get(&format!("/jobs/{id}/artifacts/empty.txt"))
        .await
        .expect(200);
    assert_eq!(empty.body, "");
    // Over the border between two parts.
    let from = 5 * 1024 * 1024 - 2;
    let part = system
        .ops
        .call("GET", &format!("/jobs/{id}/artifacts/copy.bin"))
        .header("range", &format!("bytes={from}-{}", from + 3))
        .send()
        .await
        .expect(206);
    let expected = String::from_utf8_lossy(&bytes[from..from + 4]).into_owned();
    assert_eq!(part.body, expected);
    let zip = system
        .ops
        .get(&format!("/jobs/{id}/artifacts.zip"))
        .await
        .expect(200);
    let length = zip
        .header("content-length")
        .parse::<usize>()
        .expect("a length");
    assert!(length > LENGTH && zip.body.starts_with("PK"), "{length}");
    assert!(
        system
            .log(id)
            .await
            .contains("the key is [masked], is it not")
    );
    let run = Multipart::new()
        .json("task", &json!({"job_type": "copy"}))
        .file("file", "big.bin", b"small")
        .post(&system.runner(0), "/v1/run")
        .await
        .expect(200);
    assert!(
        run.body.contains("copy.bin"),
        "a synchronous run reads them back too"
    );
    sqlx::query("delete from ops_files")
        .execute(&system.database.psql)
        .await
        .expect("forgotten");
    wait_until("the objects are removed too", async || {
        s3.objects().is_empty().then_some(())
    })
    .await;
    system.stop().await;
}
