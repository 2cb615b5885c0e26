//! What is done to a right request: one change, at any level of it.

use gauntlet::seed::Numbers;

use crate::hostile;
use crate::json::{Json, quoted};
use crate::request::{Caller, Due, Framing, Request};

/// Changes something about a document, or the text of it.
pub(crate) fn body(json: &mut Json, numbers: &mut Numbers) {
    let number = numbers.index(json.places());
    let Some(place) = json.place(number) else {
        return;
    };
    match (numbers.index(6), &mut *place) {
        (0, Json::Object(members)) if !members.is_empty() => {
            let twice = members[numbers.index(members.len())].clone();
            members.push(twice);
        }
        (1, Json::Object(members)) => {
            let name = hostile::text(numbers);
            members.push((quoted(&name), Json::text(hostile::json(numbers))));
        }
        (2, Json::Object(members)) if !members.is_empty() => {
            members.remove(numbers.index(members.len()));
        }
        (3, Json::List(items)) if !items.is_empty() => {
            let item = items[numbers.index(items.len())].clone();
            let count = [1, 10, 300, 1001][numbers.index(4).min(numbers.index(4))];
            items.extend(std::iter::repeat_n(item, count));
        }
        (4, _) => *place = Json::List(vec![place.clone()]),
        _ => *place = Json::text(hostile::json(numbers)),
    }
}

/// Changes the text of a body.
pub(crate) fn text(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    let place = numbers.index(bytes.len() + 1);
    match numbers.index(8) {
        0 => bytes.truncate(place),
        1 => bytes.extend_from_slice(b"}"),
        2 => {
            bytes.splice(0..0, *b"\xef\xbb\xbf");
        }
        3 => *bytes = bytes.iter().flat_map(|byte| [*byte, 0]).collect(),
        4 => bytes.clear(),
        5 => {
            bytes.splice(place..place, hostile::noise(numbers, 8));
        }
        6 => *bytes = hostile::noise(numbers, 400),
        _ => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << numbers.index(8);
            }
        }
    }
}

/// Changes a request at one of its levels.
pub(crate) fn request(request: &mut Request, numbers: &mut Numbers) {
    match numbers.index(20) {
        0 | 1 => {
            request.method = hostile::METHODS[numbers.index(hostile::METHODS.len())].into();
            request.path_intact = false;
        }
        2..=5 => target(request, numbers),
        6..=8 => query(request, numbers),
        9 | 10 => key(request, numbers),
        11..=14 => header(request, numbers),
        15 => {
            let count = [10, 90, 99, 120, 300][numbers.index(5)];
            for number in 0..count {
                request.header(&format!("x-{number}"), "1");
            }
        }
        16 => request.framing = Framing::Chunked,
        17 => untrue(request, numbers),
        18 => raw(request, numbers),
        _ => text(&mut request.body, numbers),
    }
}

/// Changes a segment of the path.
fn target(request: &mut Request, numbers: &mut Numbers) {
    request.path_intact = false;
    let mut segments: Vec<Vec<u8>> = request
        .target
        .split(|byte| *byte == b'/')
        .map(<[u8]>::to_vec)
        .collect();
    let place = numbers.index(segments.len());
    match numbers.index(5) {
        0 => segments.insert(place, hostile::piece(numbers)),
        1 => {
            segments.remove(place);
        }
        2 => segments[place].extend(hostile::piece(numbers)),
        3 => {
            segments[place] = segments[place]
                .iter()
                .flat_map(|byte| format!("%{byte:02x}").into_bytes())
                .collect();
        }
        _ => segments[place] = hostile::piece(numbers),
    }
    request.target = segments.join(&b'/');
    if request.target.is_empty() {
        // Without any target the line is no request line.
        request.due = Due::End;
    }
}

fn query(request: &mut Request, numbers: &mut Numbers) {
    let join = if request.target.contains(&b'?') {
        b'&'
    } else {
        b'?'
    };
    request.target.push(join);
    let names = [
        "limit",
        "after",
        "cursor",
        "label",
        "status",
        "stalled",
        "created_after",
        "queue",
    ];
    let name = if numbers.index(3) == 0 {
        hostile::piece(numbers)
    } else {
        names[numbers.index(names.len())].into()
    };
    request.target.extend(name);
    request.target.push(b'=');
    request.target.extend(hostile::piece(numbers));
}

/// Takes the key away, spoils it, doubles it, or shows it elsewhere.
fn key(request: &mut Request, numbers: &mut Numbers) {
    let names = ["x-ops-key", "x-runner-token"];
    let Some(at) = request.headers.iter().position(|(name, _)| {
        names
            .iter()
            .any(|key| name.eq_ignore_ascii_case(key.as_bytes()))
    }) else {
        return;
    };
    match numbers.index(5) {
        0 => {
            request.headers.remove(at);
        }
        1 => request.headers[at].1 = b"wrong".to_vec(),
        2 => {
            let twice = request.headers[at].clone();
            request.headers.push(twice);
        }
        3 => request.headers[at].1 = vec![0xff, 0xfe],
        _ => request.headers[at].0 = b"cookie".to_vec(),
    }
    // Where anyone may ask, nobody is a stranger.
    request.caller = match request.caller {
        Caller::Known => Caller::Stranger,
        // Two changes may undo each other.
        Caller::Stranger | Caller::Unclear => Caller::Unclear,
    };
}

fn header(request: &mut Request, numbers: &mut Numbers) {
    let name = hostile::HEADERS[numbers.index(hostile::HEADERS.len())];
    if ["x-ops-key", "x-runner-token", "authorization"].contains(&name) {
        request.caller = Caller::Unclear;
    }
    if numbers.index(3) > 0 {
        request.remove(name);
    }
    let value = hostile::value(numbers);
    if [
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "expect",
        "te",
        "trailer",
    ]
    .contains(&name)
    {
        // Who knows now where the body ends, or what was agreed.
        request.due = Due::End;
    }
    request.header(name, value);
}

/// Announces another body than is sent.
fn untrue(request: &mut Request, numbers: &mut Numbers) {
    request.framing = Framing::Untrue;
    request.due = Due::End;
    let length = request.body.len();
    match numbers.index(6) {
        0 => request.header(
            "Content-Length",
            (length + 1 + numbers.index(100)).to_string(),
        ),
        1 => request.header("Content-Length", (length / 2).to_string()),
        2 => {
            request.header("Content-Length", length.to_string());
            request.header("Content-Length", (length + 1).to_string());
        }
        3 => {
            request.header("Content-Length", length.to_string());
            request.header("Transfer-Encoding", "chunked");
        }
        4 => request.header("Transfer-Encoding", "chunked"),
        _ => request.header("Content-Length", "18446744073709551616"),
    }
}

/// Noise on the socket: bytes without a meaning, or a right request that was cut, spoilt or sent twice.
fn raw(request: &mut Request, numbers: &mut Numbers) {
    let mut bytes = request.bytes();
    match numbers.index(5) {
        0 => bytes = hostile::noise(numbers, 2000),
        1 => bytes.truncate(numbers.index(bytes.len() + 1)),
        2 => {
            for _ in 0..=numbers.index(20) {
                let place = numbers.index(bytes.len());
                bytes[place] = numbers.draw().to_le_bytes()[0];
            }
        }
        3 => {
            let place = numbers.index(bytes.len());
            bytes.splice(place..place, hostile::noise(numbers, 40));
        }
        // What is pipelined behind it may be noise as well.
        _ => bytes.extend(hostile::noise(numbers, 200)),
    }
    request.raw = Some(bytes);
    request.due = Due::End;
    request.caller = Caller::Unclear;
    request.path_intact = false;
}
