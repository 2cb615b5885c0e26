//! Following a job live: over its stream, and by asking again and again where the stream is cut or not to be had. Shows
//! nothing: whoever follows is handed one thing after the other, each once.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::jobs::has_ended;

/// A stream has a comment every five seconds; one that is silent for longer is cut, or kept back by a proxy.
const SILENCE: Duration = Duration::from_secs(12);
/// After so many streams that brought nothing, it is asked instead.
const IN_VAIN: u32 = 2;
/// How often is asked.
const PAUSE: Duration = Duration::from_secs(1);
/// A control plane that does not answer for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What of a job is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Events,
    Log,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Log => "log",
        }
    }
}

/// Hands on what comes after a number until the job has ended and nothing is missing.
pub(crate) async fn follow(
    control_plane: &ControlPlane,
    what: What,
    id: Uuid,
    after: i64,
    mut take: impl FnMut(&Value),
) -> Result<(), Error> {
    let mut place = Place {
        control_plane,
        what,
        id,
        after,
    };
    let mut in_vain = 0;
    while in_vain < IN_VAIN {
        let before = place.after;
        match place.stream(&mut take).await {
            Streamed::Ended => return Ok(()),
            Streamed::Cut if place.after > before => in_vain = 0,
            Streamed::Cut => in_vain += 1,
            // Why, the answers will tell.
            Streamed::Refused => break,
        }
    }
    place.poll(&mut take).await
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streamed {
    /// As it should: there is nothing more.
    Ended,
    Cut,
    Refused,
}

struct Place<'a> {
    control_plane: &'a ControlPlane,
    what: What,
    id: Uuid,
    after: i64,
}

impl Place<'_> {
    async fn stream(&mut self, take: &mut impl FnMut(&Value)) -> Streamed {
        let path = format!("/jobs/{}/{}/stream", self.id, self.what.word());
        let opened = self.control_plane.stream(&path, self.after);
        let mut answer = match timeout(SILENCE, opened).await {
            Ok(Ok(Some(answer))) => answer,
            Ok(Ok(None)) => return Streamed::Ended,
            Ok(Err(_)) => return Streamed::Refused,
            Err(_) => return Streamed::Cut,
        };
        let mut frames = Frames::default();
        while let Ok(Ok(Some(piece))) = timeout(SILENCE, answer.chunk()).await {
            for data in frames.push(&piece) {
                self.hand_on(&data, take);
            }
        }
        // Whether that was the end is told to whoever comes back.
        Streamed::Cut
    }

    fn hand_on(&mut self, data: &Value, take: &mut impl FnMut(&Value)) {
        let seq = data.get("seq").and_then(Value::as_i64).unwrap_or_default();
        if seq > self.after {
            self.after = seq;
            take(data);
        }
    }

    async fn poll(&mut self, take: &mut impl FnMut(&Value)) -> Result<(), Error> {
        let mut answered = Instant::now();
        loop {
            match self.ask(take).await {
                Ok(Asked::Ended) => return Ok(()),
                Ok(Asked::More) => answered = Instant::now(),
                Ok(Asked::NotYet) => {
                    answered = Instant::now();
                    sleep(PAUSE).await;
                }
                Err(error)
                    if error.exit() == Exit::Unavailable && answered.elapsed() < PATIENCE =>
                {
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn ask(&mut self, take: &mut impl FnMut(&Value)) -> Result<Asked, Error> {
        let path = format!("/jobs/{}", self.id);
        // Asked before what is new, so that nothing can come between the two.
        let ended = match self.what {
            What::Events => has_ended(&self.control_plane.get(&path, &[]).await?),
            What::Log => false,
        };
        let path = format!("{path}/{}", self.what.word());
        let after = [("after", self.after.to_string())];
        let answer = self.control_plane.get(&path, &after).await?;
        let list = match self.what {
            What::Events => "events",
            What::Log => "lines",
        };
        let found = answer.get(list).and_then(Value::as_array);
        let found = found.map(Vec::as_slice).unwrap_or_default();
        for data in found {
            self.hand_on(data, take);
        }
        let complete = answer.get("complete") == Some(&Value::Bool(true));
        Ok(
            match (complete || (ended && found.is_empty()), found.is_empty()) {
                (true, _) => Asked::Ended,
                (false, false) => Asked::More,
                (false, true) => Asked::NotYet,
            },
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Ended,
    More,
    NotYet,
}

/// Server-sent events, as they come: only their data is of interest, since it has the number in it.
#[derive(Debug, Default)]
struct Frames {
    begun: Vec<u8>,
}

impl Frames {
    fn push(&mut self, piece: &[u8]) -> Vec<Value> {
        self.begun.extend_from_slice(piece);
        let mut whole = Vec::new();
        while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.begun.drain(..=end).collect();
            if let Some(data) = line.strip_prefix(b"data: ") {
                whole.extend(serde_json::from_slice::<Value>(data).ok());
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let text = b"retry: 1000\n\n:\n\nid: 1\nevent: queued\ndata: {\"seq\":1}\n\nid: 2\ndata: {\"seq\":2}\n\nda";
        for size in 1..text.len() {
            let mut frames = Frames::default();
            let found: Vec<Value> = text
                .chunks(size)
                .flat_map(|piece| frames.push(piece))
                .collect();
            let numbers: Vec<_> = found.iter().map(|data| data["seq"].as_i64()).collect();
            assert_eq!(numbers, [Some(1), Some(2)], "{size}");
        }
    }
}
