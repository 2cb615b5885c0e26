//! What is sent of events and of log lines: server-sent events, JSON, text. Knows neither where they come from nor who
//! is sent to.

use std::sync::Arc;

use axum::body::Bytes;
use jobs::{Event, LogPiece};

use super::views::{EventView, LineView};

/// The first words of a stream: how soon to come back once it ends.
pub(super) const GREETING: &[u8] = b"retry: 1000\n\n";
/// A comment, which only shows that somebody is there.
pub(super) const COMMENT: &[u8] = b":\n\n";

/// In which form lines are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As they were printed.
    Text,
    /// A JSON object a line.
    Ndjson,
    /// Server-sent events.
    Frames,
}

/// An event as a server-sent one.
pub(crate) fn event_frame(event: Event) -> Bytes {
    let seq = event.seq;
    // A word of ours; whoever writes another into the database by hand cannot end the field with it.
    let kind = event.kind.replace(['\n', '\r'], " ");
    let data = serde_json::to_string(&EventView::from(event)).unwrap_or_default();
    Bytes::from(format!("id: {seq}\nevent: {kind}\ndata: {data}\n\n"))
}

/// The lines of a piece that are still to be sent.
#[derive(Debug)]
pub(super) struct Unsent {
    piece: Arc<LogPiece>,
    /// Where the next line begins.
    offset: usize,
    /// The number of the next line.
    seq: i64,
}

impl Unsent {
    /// Those that come after a number.
    pub(super) fn after(piece: Arc<LogPiece>, after: i64) -> Self {
        let mut unsent = Self {
            seq: piece.first_seq,
            offset: 0,
            piece,
        };
        while unsent.seq <= after && unsent.next().is_some() {}
        unsent
    }

    fn next(&mut self) -> Option<(i64, usize, usize)> {
        let rest = self.piece.body.get(self.offset..)?;
        let length = rest.find('\n')?;
        let (seq, from) = (self.seq, self.offset);
        self.offset += length + 1;
        self.seq += 1;
        Some((seq, from, from + length))
    }

    /// The next line.
    pub(super) fn line(&mut self) -> Option<LineView> {
        let (seq, from, to) = self.next()?;
        Some(LineView {
            seq,
            at: self.piece.at,
            attempt: self.piece.attempt,
            stream: self.piece.stream.clone(),
            line: self.piece.body[from..to].to_owned(),
        })
    }

    /// Writes at most so many lines, until there are so many bytes; gives the number of the last one and how many there
    /// were, or `None` where none was left.
    pub(super) fn write(
        &mut self,
        form: Form,
        most_bytes: usize,
        most_lines: usize,
        into: &mut Vec<u8>,
    ) -> Option<(i64, usize)> {
        let mut written = None;
        while into.len() < most_bytes {
            let count = written.map_or(0, |(_, count)| count);
            if count == most_lines {
                break;
            }
            let Some(seq) = self.write_one(form, into) else {
                break;
            };
            written = Some((seq, count + 1));
        }
        written
    }

    fn write_one(&mut self, form: Form, into: &mut Vec<u8>) -> Option<i64> {
        if form == Form::Text {
            let (seq, from, to) = self.next()?;
            into.extend_from_slice(&self.piece.body.as_bytes()[from..=to]);
            return Some(seq);
        }
        let line = self.line()?;
        if form == Form::Frames {
            into.extend_from_slice(format!("id: {}\nevent: line\ndata: ", line.seq).as_bytes());
        }
        // Numbers and text always serialise.
        let _ = serde_json::to_writer(&mut *into, &line);
        into.extend_from_slice(if form == Form::Frames { b"\n\n" } else { b"\n" });
        Some(line.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece() -> Arc<LogPiece> {
        Arc::new(LogPiece {
            first_seq: 7,
            lines: 3,
            at: time::macros::datetime!(2026-01-02 03:04:05.25 UTC),
            attempt: 2,
            stream: "stdout".to_owned(),
            body: "one\n\n\"three\"\r\n".to_owned(),
        })
    }

    fn written(after: i64, form: Form) -> String {
        let mut into = Vec::new();
        Unsent::after(piece(), after).write(form, usize::MAX, usize::MAX, &mut into);
        String::from_utf8(into).expect("text")
    }

    #[test]
    fn lines_are_the_same_in_every_form() {
        assert_eq!(written(0, Form::Text), "one\n\n\"three\"\r\n");
        assert_eq!(written(8, Form::Text), "\"three\"\r\n");
        assert_eq!(written(9, Form::Text), "");
        assert_eq!(
            written(8, Form::Ndjson),
            "{\"seq\":9,\"at\":\"2026-01-02T03:04:05.25Z\",\"attempt\":2,\"stream\":\"stdout\",\"line\":\"\\\"three\\\"\\r\"}\n"
        );
        assert!(written(6, Form::Frames).starts_with("id: 7\nevent: line\ndata: {\"seq\":7,"));
        assert_eq!(written(0, Form::Frames).matches("\n\n").count(), 3);
    }

    #[test]
    fn what_does_not_fit_is_sent_with_the_next() {
        let mut unsent = Unsent::after(piece(), 0);
        let mut into = Vec::new();
        assert_eq!(unsent.write(Form::Text, 1, 9, &mut into), Some((7, 1)));
        assert_eq!(into, b"one\n");
        assert_eq!(unsent.write(Form::Text, 100, 1, &mut into), Some((8, 1)));
        assert_eq!(unsent.write(Form::Text, 100, 9, &mut into), Some((9, 1)));
        assert_eq!(unsent.write(Form::Text, 100, 9, &mut into), None);
    }
}
