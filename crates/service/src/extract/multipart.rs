//! Multipart bodies, part by part as they come: one part of JSON, and files. Counted while they are read; nothing that a
//! part says of itself is ever taken for a path.

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, try_unfold};

use super::body::{is_too_long, parse_body};
use super::fields::Parse;
use crate::limits::UploadLimit;
use crate::problem::{FieldError, Problem};

/// Nobody uploads more files with one job.
const MOST_FILES: usize = 100;
/// Where no limit was laid around the route.
const NO_LIMIT: UploadLimit = UploadLimit {
    json: 1024 * 1024,
    files: 0,
};

/// Whether a request says that its body is multipart.
pub fn is_multipart(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    kind.and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("multipart/form-data"))
}

/// A multipart body that is being read.
#[derive(Debug)]
pub struct Multipart {
    parts: multer::Multipart<'static>,
    limit: UploadLimit,
    files: usize,
    bytes: u64,
}

/// A part of it.
#[derive(Debug)]
pub enum Part {
    /// The JSON, whole.
    Json(Bytes),
    /// A file, to be read to its end before the next part.
    File(Box<FilePart>),
}

/// A file on its way in.
#[derive(Debug)]
pub struct FilePart {
    field: multer::Field<'static>,
}

impl FilePart {
    /// Its name in its sender's words.
    pub fn file_name(&self) -> Option<&str> {
        self.field.file_name()
    }

    /// What it is, by its sender's word.
    pub fn content_type(&self) -> Option<&str> {
        self.field.content_type().map(AsRef::as_ref)
    }
}

impl<S: Send + Sync> FromRequest<S> for Multipart {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let limit = request
            .extensions()
            .get::<UploadLimit>()
            .copied()
            .unwrap_or(NO_LIMIT);
        let mut kinds = request.headers().get_all(header::CONTENT_TYPE).iter();
        let kind = kinds
            .next()
            .filter(|_| kinds.next().is_none() && is_multipart(request.headers()));
        let kind = kind
            .and_then(|kind| kind.to_str().ok())
            .ok_or_else(|| Problem::unsupported_media_type("Send it as multipart/form-data."))?;
        let once = kind.to_ascii_lowercase().matches("boundary=").count() == 1;
        let boundary = multer::parse_boundary(kind)
            .ok()
            .filter(|_| once)
            .ok_or_else(|| {
                Problem::bad_request("The Content-Type names no boundary, or more than one.")
            })?;
        let parts = multer::Multipart::new(request.into_body().into_data_stream(), boundary);
        Ok(Self {
            parts,
            limit,
            files: 0,
            bytes: 0,
        })
    }
}

impl Multipart {
    /// The next part; `json` is the name of the one that is no file.
    ///
    /// # Errors
    /// 400 where it cannot be read, 413 where it is too large, 422 where there are too many files or a part without name.
    pub async fn next_part(&mut self, json: &str) -> Result<Option<Part>, Problem> {
        let Some(mut field) = self
            .parts
            .next_field()
            .await
            .map_err(|error| self.problem(&error))?
        else {
            return Ok(None);
        };
        if field.name() == Some(json) {
            let mut whole = BytesMut::new();
            while let Some(bytes) = field.chunk().await.map_err(|error| self.problem(&error))? {
                whole.extend_from_slice(&bytes);
                if whole.len() as u64 > self.limit.json {
                    return Err(Problem::payload_too_large(self.limit.json));
                }
            }
            return Ok(Some(Part::Json(whole.freeze())));
        }
        if field.file_name().is_none() {
            let name = field.name().unwrap_or_default();
            let what = format!("is neither {json} nor a file: send files with a filename");
            return Err(Problem::invalid_fields(vec![FieldError::new(name, what)]));
        }
        self.files += 1;
        if self.files > MOST_FILES {
            return Err(Problem::unprocessable(format!(
                "A job takes at most {MOST_FILES} files."
            )));
        }
        Ok(Some(Part::File(Box::new(FilePart { field }))))
    }

    /// The next bytes of a file; none at its end.
    ///
    /// # Errors
    /// As [`Multipart::next_part`].
    pub async fn bytes_of(&mut self, file: &mut FilePart) -> Result<Option<Bytes>, Problem> {
        let bytes = file
            .field
            .chunk()
            .await
            .map_err(|error| self.problem(&error))?;
        self.bytes += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if self.bytes > self.limit.files {
            return Err(Problem::payload_too_large(self.limit.files));
        }
        Ok(bytes)
    }

    /// All bytes of a file as they come.
    pub fn pieces(&mut self, file: FilePart) -> BoxStream<'_, Result<Bytes, Problem>> {
        let pieces = try_unfold((self, file), |(multipart, mut file)| async move {
            let bytes = multipart.bytes_of(&mut file).await?;
            Ok(bytes.map(|bytes| (bytes, (multipart, file))))
        });
        Box::pin(pieces)
    }

    fn problem(&self, error: &multer::Error) -> Problem {
        if is_too_long(error) {
            Problem::payload_too_large(self.limit.files)
        } else {
            Problem::bad_request(
                "The multipart body is malformed, or ended before it was complete.",
            )
        }
    }
}

impl Part {
    /// Parses the part of JSON as strictly as any JSON body.
    ///
    /// # Errors
    /// 400 where it is no JSON, 422 where fields are wrong.
    pub fn parse_json<T: Parse>(text: &Bytes) -> Result<T, Problem> {
        parse_body(text)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(kind: &str, body: String) -> Request {
        let mut request = Request::new(Body::from(body));
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, kind.parse().expect("a header value"));
        request
            .extensions_mut()
            .insert(UploadLimit { json: 16, files: 8 });
        request
    }

    async fn read(kind: &str, body: &str) -> Result<Vec<String>, u16> {
        let status = |problem: Problem| problem.status().as_u16();
        let body = body.replace('\n', "\r\n");
        let mut multipart = Multipart::from_request(request(kind, body), &())
            .await
            .map_err(status)?;
        let mut seen = Vec::new();
        while let Some(part) = multipart.next_part("job").await.map_err(status)? {
            seen.push(match part {
                Part::Json(text) => String::from_utf8_lossy(&text).into_owned(),
                Part::File(mut file) => {
                    let mut size = 0;
                    while let Some(bytes) = multipart.bytes_of(&mut file).await.map_err(status)? {
                        size += bytes.len();
                    }
                    format!("{}:{size}", file.file_name().unwrap_or_default())
                }
            });
        }
        Ok(seen)
    }

    const KIND: &str = "multipart/form-data; boundary=b";
    const JOB: &str = "--b\nContent-Disposition: form-data; name=\"job\"\n\n{}\n";

    #[tokio::test]
    async fn parts_come_one_by_one_in_any_order() {
        let file = "--b\nContent-Disposition: form-data; name=\"file\"; filename=\"../a b.txt\"\n\n12345678\n";
        let expected = Ok(vec!["{}".to_owned(), "../a b.txt:8".to_owned()]);
        assert_eq!(read(KIND, &format!("{JOB}{file}--b--\n")).await, expected);
        let turned = read(KIND, &format!("{file}{JOB}--b--\n"))
            .await
            .expect("read");
        assert_eq!(turned, ["../a b.txt:8", "{}"]);
    }

    #[tokio::test]
    async fn what_is_wrong_with_an_upload_has_its_status() {
        let file = |bytes: &str| {
            format!(
                "--b\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\n\n{bytes}\n--b--\n"
            )
        };
        let plain = "--b\nContent-Disposition: form-data; name=\"other\"\n\nx\n--b--\n";
        let long_job = format!(
            "--b\nContent-Disposition: form-data; name=\"job\"\n\n{:17}\n--b--\n",
            ""
        );
        for (kind, body, status) in [
            ("application/json", "{}", 415),
            ("application/x-www-form-urlencoded", "a=b", 415),
            ("multipart/mixed; boundary=b", "--b--", 415),
            ("multipart/form-data", "--b--", 400),
            ("multipart/form-data; boundary=b; boundary=c", "--b--", 400),
            (KIND, "", 400),
            (
                KIND,
                "--b\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\n\n1",
                400,
            ),
            (KIND, &file("123456789"), 413),
            (KIND, &long_job, 413),
            (KIND, plain, 422),
        ] {
            assert_eq!(read(kind, body).await, Err(status), "{kind} {body}");
        }
    }
}
