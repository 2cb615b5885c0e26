//! Every place for bytes, by the same tale: what goes in comes out, whole and in part, and what is gone is cleared away.
#![expect(
    clippy::expect_used,
    reason = "a test that cannot go on fails, and says why"
)]

use std::sync::Arc;

use files::{Archive, Depot, FileError, Owner, Place};
use futures_util::TryStreamExt as _;
use jobs::{
    ClaimRequest, File, LeasedJob, NewJob, Outcome, RunnerIdentity, Store, StoreOptions, TypeTerms,
};
use local_postgres::testing::{TestDatabase, database};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use uuid::Uuid;

/// Over two chunks, and not a multiple of one.
const LENGTH: usize = 700_001;

async fn store() -> (Store, TestDatabase) {
    let name = format!("jobs_{}", jobs::schema_fingerprint());
    let migrate = async |url: String| {
        let store = Store::new(&StoreOptions::new(url, 1, "file tests")).expect("a store");
        store.migrate().await.expect("the migrations apply");
        store.close().await;
        Ok(())
    };
    let database = database(&name, migrate).await.expect("a database");
    let store =
        Store::new(&StoreOptions::new(database.url.clone(), 4, "file tests")).expect("a store");
    (store, database)
}

/// The library makes no ids; here they only have to differ.
fn id(number: u128) -> Uuid {
    Uuid::from_u128((7 << 76) | (2 << 62) | number)
}

fn bytes() -> Vec<u8> {
    (0..LENGTH)
        .map(|index| u8::try_from(index * 31 % 251).expect("small"))
        .collect()
}

async fn claimed(store: &Store) -> LeasedJob {
    let new = NewJob::new("keep".parse().expect("a name"), serde_json::json!({}));
    let job = store
        .submit(new, "a test")
        .await
        .expect("recorded")
        .into_job();
    let runner = RunnerIdentity {
        id: "runner-1".to_owned(),
        boot_id: id(1),
    };
    let types = [TypeTerms::new("keep".parse().expect("a name"))];
    let request = ClaimRequest {
        runner: &runner,
        types: &types,
        lease: std::time::Duration::from_secs(30),
        at_work: 0,
        stages: false,
    };
    store.claim_by_id(request, job.id).await.expect("claimed")
}

async fn kept(
    depot: &Depot,
    leased: &LeasedJob,
    number: u128,
    name: &str,
    bytes: &[u8],
) -> Result<(), FileError> {
    let owner = Owner::Attempt(leased.lease.key());
    let mut writer = depot.begin(owner, id(number), name, "text/plain").await?;
    for piece in bytes.chunks(100_000) {
        writer.push(piece).await?;
    }
    writer.finish(0).await.map(drop)
}

async fn read(depot: &Depot, file: &File, from: u64, to: u64) -> Vec<u8> {
    let pieces: Vec<_> = depot
        .read(file, from..to)
        .try_collect()
        .await
        .expect("read");
    pieces.concat()
}

/// What every place must do.
async fn tale(depot: &Depot) {
    let store = depot.store().clone();
    let leased = claimed(&store).await;
    let job = leased.lease.job_id();
    kept(depot, &leased, 10, "deep/a.bin", &bytes())
        .await
        .expect("kept");
    kept(depot, &leased, 11, "empty", b"").await.expect("kept");
    assert_eq!(
        store.artifacts(job).await.expect("asked"),
        Some(Vec::new()),
        "nothing shows while it runs"
    );
    store
        .finish(leased.lease, Outcome::Failed("a reason".to_owned()))
        .await
        .expect("finished");
    let shown = store.artifacts(job).await.expect("asked").expect("a job");
    let names: Vec<_> = shown
        .iter()
        .map(|file| (file.name.as_str(), file.sum.size))
        .collect();
    assert_eq!(names, [("deep/a.bin", LENGTH as u64), ("empty", 0)]);
    let whole = bytes();
    for (from, to) in [
        (0, LENGTH),
        (0, 1),
        (262_143, 262_145),
        (262_144, 524_288),
        (LENGTH - 1, LENGTH),
        (5, 5),
    ] {
        let part = read(depot, &shown[0], from as u64, to as u64).await;
        assert!(part == whole[from..to], "{from} to {to}");
    }
    let archive = Archive::of(shown.clone());
    let length = archive.length();
    let zipped: Vec<_> = archive.stream(depot).try_collect().await.expect("read");
    let zipped = zipped.concat();
    assert_eq!(zipped.len() as u64, length);
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(zipped)).expect("an archive");
    let mut out = Vec::new();
    std::io::copy(&mut zip.by_name("deep/a.bin").expect("an entry"), &mut out)
        .expect("its CRC fits");
    assert!(out == whole);
    let ids: Vec<Uuid> = shown.iter().map(|file| file.id).collect();
    store.discard_files(&ids).await.expect("forgotten");
    depot.sweep().await.expect("swept");
    let gone: Result<Vec<_>, _> = depot.read_all(&shown[0]).try_collect().await;
    assert!(
        gone.is_err(),
        "a file that is gone is never read as a shorter one"
    );
    assert!(store.garbage().await.expect("asked").is_empty());
}

#[tokio::test]
async fn files_are_kept_in_postgresql() {
    let (store, _database) = store().await;
    tale(&Depot::open(store, &Place::Postgres).expect("a place")).await;
}

#[tokio::test]
async fn files_are_kept_in_a_folder() {
    let (store, _database) = store().await;
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::Folder(folder.path().join("made/here"));
    tale(&Depot::open(store, &place).expect("a place")).await;
    let left = std::fs::read_dir(folder.path().join("made/here"))
        .expect("a folder")
        .count();
    assert_eq!(left, 0, "what is gone is removed");
}

#[tokio::test]
async fn files_are_kept_in_any_object_store() {
    let (store, _database) = store().await;
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    tale(&Depot::with_objects(store, objects)).await;
}
