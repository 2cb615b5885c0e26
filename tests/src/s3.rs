//! An S3-compatible server in this process: signatures, ranges and uploads in parts as the cloud's own has them, the
//! objects in a folder.

use std::path::PathBuf;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const KEY_ID: &str = "test-key-id";
const KEY: &str = "test-secret-key-of-the-bucket";

/// A server with one bucket; it ends when this is dropped.
#[derive(Debug)]
pub struct S3 {
    address: String,
    folder: TempDir,
    _serving: JoinSet<()>,
}

impl S3 {
    /// Starts it.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("bucket")).expect("a bucket");
        let files = s3s_fs::FileSystem::new(folder.path()).expect("a file system");
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(KEY_ID, KEY));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, builder.build()));
        Self {
            address,
            folder,
            _serving: serving,
        }
    }

    /// What the services have to be told: the bucket, below a prefix, and its keys.
    pub fn settings(&self) -> Vec<(String, String)> {
        [
            ("ARTIFACT_STORE", "s3://bucket/ops/files"),
            ("AWS_ENDPOINT_URL", &format!("http://{}", self.address)),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", KEY),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// The secret key.
    pub fn key(&self) -> &'static str {
        KEY
    }

    /// The objects that are there, by size.
    pub fn objects(&self) -> Vec<u64> {
        let folder: PathBuf = self.folder.path().join("bucket/ops/files");
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut sizes: Vec<u64> = entries
            .filter_map(|entry| Some(entry.metadata().ok()?.len()))
            .collect();
        sizes.sort_unstable();
        sizes
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            return;
        };
        let service = service.clone();
        connections.spawn(async move {
            // A caller that hangs up is its own business.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}
