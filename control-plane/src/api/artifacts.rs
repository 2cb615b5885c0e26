//! What a job left: the list, one file, all of them in an archive. Names are only compared with the list, never joined to
//! a path; bytes are streamed from where they are kept.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use files::Archive;
use jobs::File;
use service::{Json, Path, Problem, Query};
use uuid::Uuid;

use super::params::JobId;
use super::views::{ArtifactView, ArtifactsView, hex};
use crate::app::{App, ask};
use crate::error::no_such_job;

/// Which bytes of a file are asked for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Some(Range<u64>),
    Impossible,
}

/// List what the newest attempt of a job left, once it has ended.
#[utoipa::path(
    get,
    path = "/jobs/{id}/artifacts",
    tag = "artifacts",
    params(("id" = uuid::Uuid, Path, description = "The job")),
    responses((status = 200, description = "Its artifacts, by name", body = ArtifactsView), (status = 404, description = "No such job")),
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    JobId(id): JobId,
    Query(()): Query<()>,
) -> Result<Json<ArtifactsView>, Problem> {
    let artifacts = artifacts_of(&app, id).await?;
    let artifacts = artifacts.into_iter().map(ArtifactView::from).collect();
    Ok(Json(ArtifactsView { artifacts }))
}

/// Download an artifact, or some of its bytes.
#[utoipa::path(
    get,
    path = "/jobs/{id}/artifacts/{name}",
    tag = "artifacts",
    params(
        ("id" = uuid::Uuid, Path, description = "The job"),
        ("name" = String, Path, description = "Its name in the list, slashes and all"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-None-Match" = Option<String>, Header, description = "ETags that the caller has"),
    ),
    responses(
        (status = 200, description = "Its bytes; the ETag is their SHA-256", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The bytes asked for", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The caller has it"),
        (status = 404, description = "No such job, or no artifact of this name"),
        (status = 416, description = "It has no such bytes"),
    ),
)]
pub(crate) async fn download(
    State(app): State<Arc<App>>,
    Path((id, name)): Path<(Uuid, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let nothing = || Problem::not_found("The job has no artifact of this name.");
    if !files::is_artifact_name(&name) {
        return Err(nothing());
    }
    let file = ask(app.store.artifact(id, &name))
        .await?
        .ok_or_else(nothing)?;
    let tag = format!("\"{}\"", hex(&file.sum.sha256));
    if has_already(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let size = file.sum.size;
    let (status, range) = match wanted(&headers, &tag, size) {
        Wanted::All => (StatusCode::OK, 0..size),
        Wanted::Some(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Impossible => return Err(Problem::range_not_satisfiable(size)),
    };
    let mut response = status.into_response();
    let out = response.headers_mut();
    if status == StatusCode::PARTIAL_CONTENT {
        let content_range = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        put(out, header::CONTENT_RANGE, &content_range);
    }
    put(out, header::ETAG, &tag);
    put(out, header::ACCEPT_RANGES, "bytes");
    put(out, header::CONTENT_TYPE, &file.content_type);
    out.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    let last = name.rsplit('/').next().unwrap_or_default();
    wear_download(out, last);
    *response.body_mut() = Body::from_stream(app.depot.read(&file, range));
    Ok(response)
}

/// Download everything that a job left as a ZIP archive.
#[utoipa::path(
    get,
    path = "/jobs/{id}/artifacts.zip",
    tag = "artifacts",
    params(("id" = uuid::Uuid, Path, description = "The job")),
    responses(
        (status = 200, description = "The archive, which may be empty", body = Vec<u8>, content_type = "application/zip"),
        (status = 404, description = "No such job"),
    ),
)]
pub(crate) async fn zip(
    State(app): State<Arc<App>>,
    JobId(id): JobId,
    Query(()): Query<()>,
) -> Result<Response, Problem> {
    let archive = Archive::of(artifacts_of(&app, id).await?);
    let mut response = StatusCode::OK.into_response();
    let out = response.headers_mut();
    out.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/zip"),
    );
    out.insert(header::CONTENT_LENGTH, archive.length().into());
    wear_download(out, &format!("{id}.zip"));
    *response.body_mut() = Body::from_stream(archive.stream(&app.depot));
    Ok(response)
}

async fn artifacts_of(app: &App, id: Uuid) -> Result<Vec<File>, Problem> {
    ask(app.store.artifacts(id)).await?.ok_or_else(no_such_job)
}

/// What keeps a browser from doing anything with the bytes but saving them.
fn wear_download(headers: &mut HeaderMap, name: &str) {
    let disposition = format!("attachment; filename*=UTF-8''{}", encoded(name));
    put(headers, header::CONTENT_DISPOSITION, &disposition);
    put(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(
        headers,
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; sandbox",
    );
    put(headers, header::CACHE_CONTROL, "private, no-cache");
}

/// As RFC 8187 has it.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte);
    let encode = |byte: u8| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    name.bytes().map(encode).collect()
}

fn put(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    // Everything that is put here is visible ASCII by now.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn has_already(headers: &HeaderMap, tag: &str) -> bool {
    text(headers, &header::IF_NONE_MATCH).is_some_and(|tags| {
        tags.split(',')
            .map(str::trim)
            .any(|known| known == "*" || known.trim_start_matches("W/") == tag)
    })
}

/// One range is given, of several all; a range of another version of the file means all, too.
fn wanted(headers: &HeaderMap, tag: &str, size: u64) -> Wanted {
    let is_of_this = text(headers, &header::IF_RANGE).is_none_or(|known| known == tag);
    let range = text(headers, &header::RANGE).filter(|_| is_of_this);
    let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
        return Wanted::All;
    };
    let Some((from, to)) = range.split_once('-').filter(|_| !range.contains(',')) else {
        return Wanted::All;
    };
    let number = |text: &str| text.trim().parse::<u64>();
    let range = match (
        number(from),
        number(to),
        from.trim().is_empty(),
        to.trim().is_empty(),
    ) {
        (Ok(from), Ok(to), ..) if from <= to => from..size.min(to.saturating_add(1)),
        (Ok(from), _, _, true) => from..size,
        (_, Ok(last), true, _) => size.saturating_sub(last)..size,
        _ => return Wanted::All,
    };
    if range.is_empty() {
        Wanted::Impossible
    } else {
        Wanted::Some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a header value"))])
    }

    #[test]
    fn one_range_of_bytes_is_given() {
        for (range, expected) in [
            ("bytes=0-0", Wanted::Some(0..1)),
            ("bytes=2-", Wanted::Some(2..10)),
            ("bytes=-3", Wanted::Some(7..10)),
            ("bytes=-30", Wanted::Some(0..10)),
            ("bytes=8-99", Wanted::Some(8..10)),
            ("bytes=0-18446744073709551615", Wanted::Some(0..10)),
            ("bytes=10-", Wanted::Impossible),
            ("bytes=10-12", Wanted::Impossible),
            ("bytes=-0", Wanted::Impossible),
            ("bytes=5-2", Wanted::All),
            ("bytes=0-1,4-5", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("bytes=-", Wanted::All),
            ("lines=0-1", Wanted::All),
        ] {
            assert_eq!(
                wanted(&asked(header::RANGE, range), "\"x\"", 10),
                expected,
                "{range}"
            );
        }
        let mut headers = asked(header::RANGE, "bytes=0-0");
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"old\""));
        assert_eq!(wanted(&headers, "\"x\"", 10), Wanted::All);
    }

    #[test]
    fn a_caller_who_has_the_file_is_told_so() {
        for (tags, has) in [
            ("\"x\"", true),
            ("W/\"x\"", true),
            ("\"a\", \"x\"", true),
            ("*", true),
            ("\"a\"", false),
            ("x", false),
        ] {
            assert_eq!(
                has_already(&asked(header::IF_NONE_MATCH, tags), "\"x\""),
                has,
                "{tags}"
            );
        }
    }

    #[test]
    fn a_name_goes_into_a_header_harmlessly() {
        assert_eq!(encoded("ü \"x\";\r\n.txt"), "%C3%BC%20%22x%22%3B%0D%0A.txt");
    }
}
