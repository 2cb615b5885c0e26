//! Files on their way to and from the control plane: streamed, counted, checked. Knows no commands.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream;
use reqwest::{Body, Method};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::ControlPlane;
use crate::error::Error;

/// A transfer takes no longer.
const LONGEST: Duration = Duration::from_secs(3600);
const PIECE: usize = 256 * 1024;

/// A part of a multipart body, in the order in which they are sent.
enum Part {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl ControlPlane {
    /// Records a job with files.
    pub(crate) async fn upload(&self, job: &Value, files: &[PathBuf]) -> Result<Value, Error> {
        let boundary = format!("opsctl-{}", service::ids::random_hex::<16>());
        let (parts, length) = parts(job, files, &boundary)?;
        let request = self
            .request(Method::POST, "/jobs")
            .header(
                "content-type",
                format!("multipart/form-data; boundary={boundary}"),
            )
            .header("content-length", length)
            .timeout(LONGEST)
            .body(Body::wrap_stream(body(parts)));
        self.json(request).await
    }

    /// Downloads a path into a new file; gives its size. Where the answer says what the bytes' digest is, it is compared.
    pub(crate) async fn download(&self, path: &str, to: &Path) -> Result<u64, Error> {
        let mut answer = self
            .answer(self.request(Method::GET, path).timeout(LONGEST))
            .await?;
        let tag = answer
            .headers()
            .get("etag")
            .and_then(|tag| tag.to_str().ok());
        let expected = tag.map(|tag| tag.trim_matches('"').to_owned());
        let draft = to.with_extension("part");
        let mut file = File::create(&draft)
            .await
            .map_err(Error::io("write", &draft))?;
        let (mut size, mut sum) = (0, Sha256::new());
        while let Some(piece) = answer
            .chunk()
            .await
            .map_err(|error| self.unreachable(error))?
        {
            sum.update(&piece);
            size += piece.len() as u64;
            file.write_all(&piece)
                .await
                .map_err(Error::io("write", &draft))?;
        }
        file.sync_all().await.map_err(Error::io("write", &draft))?;
        let sum: String = sum
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if expected.is_some_and(|expected| expected != sum) {
            // What was damaged on its way is of no use to anybody.
            let _ = tokio::fs::remove_file(&draft).await;
            return Err(Error::Failed(
                "the download is damaged: its SHA-256 is another".to_owned(),
            ));
        }
        tokio::fs::rename(&draft, to)
            .await
            .map_err(Error::io("write", to))?;
        Ok(size)
    }
}

fn parts(job: &Value, files: &[PathBuf], boundary: &str) -> Result<(Vec<Part>, u64), Error> {
    let mut parts = vec![Part::Bytes(
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"job\"\r\nContent-Type: application/json\r\n\r\n{job}\r\n"
        )
        .into_bytes(),
    )];
    let mut length = 0;
    for file in files {
        let found = std::fs::metadata(file).map_err(Error::io("read", file))?;
        if !found.is_file() {
            return Err(Error::Usage(format!(
                "{} is no file: name files only",
                file.display()
            )));
        }
        length += found.len();
        let name = file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        parts.push(Part::Bytes(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\r\n",
                quoted(&name)
            )
            .into_bytes(),
        ));
        parts.push(Part::File(file.clone()));
        parts.push(Part::Bytes(b"\r\n".to_vec()));
    }
    parts.push(Part::Bytes(format!("--{boundary}--\r\n").into_bytes()));
    let around: usize = parts
        .iter()
        .map(|part| match part {
            Part::Bytes(bytes) => bytes.len(),
            Part::File(_) => 0,
        })
        .sum();
    Ok((parts, length + around as u64))
}

/// As browsers write names into this header.
fn quoted(name: &str) -> String {
    name.replace('"', "%22")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn body(parts: Vec<Part>) -> impl stream::Stream<Item = std::io::Result<Vec<u8>>> {
    let state = (parts.into_iter(), None::<File>);
    stream::try_unfold(state, |(mut parts, mut open)| async move {
        loop {
            if let Some(file) = &mut open {
                let mut piece = vec![0; PIECE];
                let read = file.read(&mut piece).await?;
                if read > 0 {
                    piece.truncate(read);
                    return Ok(Some((piece, (parts, open))));
                }
            }
            match parts.next() {
                Some(Part::Bytes(bytes)) => return Ok(Some((bytes, (parts, None)))),
                Some(Part::File(path)) => open = Some(File::open(path).await?),
                None => return Ok(None),
            }
        }
    })
}
