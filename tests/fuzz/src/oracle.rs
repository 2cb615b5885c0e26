//! What no answer may be. Knows what was sent and what came; asks nobody.

use serde_json::Value;

use crate::request::{Caller, Due, Request, Side};
use crate::wire::{Answer, Came};

/// Everything that is wrong with what came of a request.
pub(crate) fn faults(request: &Request, came: &Came) -> Vec<String> {
    match came {
        Came::Answer(answer) => wrong_with(request, answer),
        Came::End(bytes) if request.due == Due::End && is_cut_off(bytes) => Vec::new(),
        Came::End(bytes) => vec![format!(
            "the connection ended within an answer, or without one: {}",
            shown(bytes)
        )],
        Came::Silence => vec!["no answer and no end came".to_owned()],
        Came::Nonsense(bytes) => vec![format!("what came is no HTTP: {}", shown(bytes))],
        Came::NoConnection => vec!["nobody listens".to_owned()],
    }
}

/// Nothing, or the beginning of an answer that nobody waits for: whoever sends no more has gone, as far as HTTP servers know,
/// and what is long is then not sent to its end.
fn is_cut_off(bytes: &[u8]) -> bool {
    bytes.is_empty()
        || bytes
            .strip_prefix(b"HTTP/1.1 ")
            .and_then(<[u8]>::first)
            .is_some_and(|class| (b'2'..=b'4').contains(class))
}

/// What the HTTP parser says by itself to what is no request, before there is anybody to give it an id.
fn is_of_the_parser(request: &Request, answer: &Answer) -> bool {
    request.is_changed
        && [400, 414, 431].contains(&answer.status)
        && answer.body.is_empty()
        && answer.header("connection") == Some("close")
        && answer.header("x-request-id").is_none()
}

fn wrong_with(request: &Request, answer: &Answer) -> Vec<String> {
    if is_of_the_parser(request, answer) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let mut say = |fault: String| {
        faults.push(format!(
            "{} {fault}: {}",
            answer.status,
            shown(&answer.body)
        ));
    };
    if !is_expected(request, answer) {
        say("is no status for this".to_owned());
    }
    if answer.header("x-request-id").is_none_or(str::is_empty) {
        say("has no X-Request-Id".to_owned());
    }
    if [429, 503].contains(&answer.status) && retry_after(answer).is_none_or(|seconds| seconds == 0)
    {
        say("has no Retry-After".to_owned());
    }
    if request.caller == Caller::Stranger
        && request.path_intact
        && ![401, 408, 431, 400].contains(&answer.status)
    {
        say("was given to a stranger".to_owned());
    }
    if answer.status == 201
        && answer.header("location").is_none()
        && !request.route.ends_with("/batch")
    {
        say("has no Location".to_owned());
    }
    if request.is_head() {
        return faults;
    }
    let kind = answer.header("content-type").unwrap_or_default();
    if answer.status >= 400 {
        if kind != "application/problem+json" {
            say(format!("is {kind:?}, no problem document"));
        } else if let Err(fault) = problem(answer) {
            say(fault);
        }
    } else if kind == "application/json" && serde_json::from_slice::<Value>(&answer.body).is_err() {
        say("is no JSON, though it says so".to_owned());
    }
    faults
}

/// Whether such a request may be answered so, with the database there and the runner at its place.
fn is_expected(request: &Request, answer: &Answer) -> bool {
    match answer.status {
        200..=202 | 400 | 401 | 403..=405 | 408 | 409 | 413 | 415 | 422 | 429 | 431 => true,
        // Nothing new in a stream or a download, a part of one, and no such part.
        204 | 206 | 304 | 416 => request.side == Side::ControlPlane,
        // The runner refused the job, or was too slow: the trigger says so, and no other route.
        502 | 504 => {
            request.side == Side::ControlPlane && answer.body.windows(6).any(|six| six == b"job_id")
        }
        _ => false,
    }
}

fn retry_after(answer: &Answer) -> Option<u32> {
    answer.header("retry-after")?.parse().ok()
}

fn problem(answer: &Answer) -> Result<(), String> {
    let problem: Value =
        serde_json::from_slice(&answer.body).map_err(|error| format!("is no JSON ({error})"))?;
    if problem["status"] != answer.status {
        return Err("says another status in its body".to_owned());
    }
    if problem["request_id"].as_str() != answer.header("x-request-id") {
        return Err("has another request_id than its header".to_owned());
    }
    for member in ["type", "title", "detail"] {
        if problem[member].as_str().is_none_or(str::is_empty) {
            return Err(format!("has no {member}"));
        }
    }
    Ok(())
}

fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(400)].escape_ascii().to_string()
}
