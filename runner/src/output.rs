//! What one attempt prints: masked, cut into lines, bounded, and stored as it comes. The streams are always drained, and
//! storing may lag behind: neither can hold up a renewal or a finish.

mod tail;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jobs::{LeaseKey, LogChunk, Store, StoreError};
use tokio::sync::Notify;

use crate::lines::{Line, LineCutter};
use crate::mask::{Masker, Masks};
use tail::Tail;

const LONGEST_LINE: usize = 16 * 1024;
/// So much of the beginning of an attempt's output is stored; of the first attempts, and of the many after them.
const MOST: usize = 4 * 1024 * 1024;
const FIRST_ATTEMPTS: i32 = 8;
const MOST_LATER: usize = 256 * 1024;
/// Lines wait so long for others, or until there are so many bytes of them.
const FLUSH_AFTER: Duration = Duration::from_millis(250);
const FLUSH_AT: usize = 64 * 1024;
/// So many bytes are a chunk.
const CHUNK: usize = 32 * 1024;
/// The end of stderr that an error quotes.
const QUOTED: usize = 2 * 1024;
/// More lines than this are not told apart by their numbers.
const MOST_LINES: i64 = 2_000_000_000;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The output of one attempt.
#[derive(Debug)]
pub(crate) struct Output {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    stdout: Source,
    stderr: Source,
    quoted: VecDeque<u8>,
    log: Log,
}

/// One stream, from bytes to lines.
#[derive(Debug)]
struct Source {
    masker: Masker,
    cutter: LineCutter,
}

/// The lines that are kept, as chunks that wait to be stored.
#[derive(Debug)]
struct Log {
    waiting: Vec<LogChunk>,
    waiting_bytes: usize,
    /// How much may still be kept from the beginning.
    room: usize,
    /// What comes after that; `None` while there is room.
    tail: Option<Tail>,
    chunks: i32,
    lines: i64,
    now: Instant,
    closed: bool,
}

impl Output {
    pub(crate) fn new(masks: &Arc<Masks>, attempt: i32) -> Self {
        let source = || Source {
            masker: Masker::new(Arc::clone(masks)),
            cutter: LineCutter::new(LONGEST_LINE),
        };
        let state = State {
            stdout: source(),
            stderr: source(),
            quoted: VecDeque::new(),
            log: Log {
                waiting: Vec::new(),
                waiting_bytes: 0,
                room: if attempt <= FIRST_ATTEMPTS {
                    MOST
                } else {
                    MOST_LATER
                },
                tail: None,
                chunks: 0,
                lines: 0,
                now: Instant::now(),
                closed: false,
            },
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    /// Takes what was read of a stream.
    pub(crate) fn push(&self, stream: Stream, bytes: &[u8]) {
        self.with(|state| state.push(stream, bytes));
        self.changed.notify_one();
    }

    /// Ends both streams, and says how much of them was left out.
    pub(crate) fn close(&self) {
        self.with(State::close);
        self.changed.notify_one();
    }

    /// The last lines of stderr, bounded; nothing is to come any more.
    pub(crate) fn stderr_tail(&self) -> String {
        self.with(|state| {
            state.finish_masking(Stream::Stderr);
            let bytes: Vec<u8> = state.quoted.iter().copied().collect();
            String::from_utf8_lossy(&bytes).trim().to_owned()
        })
    }

    /// Stores what comes until it is closed and everything is stored, or the lease is lost.
    pub(crate) async fn store_as_it_comes(&self, store: &Store, key: LeaseKey) {
        loop {
            self.until(|log| log.closed || !log.waiting.is_empty())
                .await;
            let full = self.until(|log| log.closed || log.waiting_bytes >= FLUSH_AT);
            // Running out of time is what usually ends this.
            let _ = tokio::time::timeout(FLUSH_AFTER, full).await;
            let (chunks, last) = self.with(|state| state.log.take());
            if !chunks.is_empty() {
                // Apart, as most jobs print nothing: each of a thousand at work would have room for it.
                match Box::pin(append(store, key, &chunks)).await {
                    Appended::Stored => {}
                    Appended::NotWanted => return,
                    Appended::Lost => self.with(|state| state.log.lost(&chunks)),
                }
            }
            if last {
                return;
            }
        }
    }

    async fn until(&self, holds: impl Fn(&Log) -> bool) {
        while !self.with(|state| holds(&state.log)) {
            self.changed.notified().await;
        }
    }

    fn with<T>(&self, see: impl FnOnce(&mut State) -> T) -> T {
        see(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What became of some chunks.
enum Appended {
    Stored,
    /// The database refuses them.
    Lost,
    /// The lease is another's.
    NotWanted,
}

/// Stores chunks, again and again while the database is away.
async fn append(store: &Store, key: LeaseKey, chunks: &[LogChunk]) -> Appended {
    loop {
        match store.append_log(key, chunks).await {
            Ok(()) => return Appended::Stored,
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(FLUSH_AFTER).await,
            Err(StoreError::LeaseLost(_)) => return Appended::NotWanted,
            Err(error) => {
                tracing::warn!(event = "log_not_stored", job_id = %key.job_id, %error);
                return Appended::Lost;
            }
        }
    }
}

impl State {
    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        self.log.now = Instant::now();
        let (source, quoted, log) = self.parts(stream);
        let Source { masker, cutter } = source;
        masker.push(bytes, |clean| keep(stream, clean, cutter, quoted, log));
    }

    fn finish_masking(&mut self, stream: Stream) {
        let (source, quoted, log) = self.parts(stream);
        let Source { masker, cutter } = source;
        masker.finish(|clean| keep(stream, clean, cutter, quoted, log));
    }

    fn parts(&mut self, stream: Stream) -> (&mut Source, &mut VecDeque<u8>, &mut Log) {
        let source = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        (source, &mut self.quoted, &mut self.log)
    }

    fn close(&mut self) {
        if self.log.closed {
            return;
        }
        self.log.now = Instant::now();
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.finish_masking(stream);
            let (source, _, log) = self.parts(stream);
            source.cutter.finish(|line| log.add(stream, &line));
        }
        self.log.end();
    }
}

/// Takes bytes that hold no secret any more.
fn keep(
    stream: Stream,
    clean: &[u8],
    cutter: &mut LineCutter,
    quoted: &mut VecDeque<u8>,
    log: &mut Log,
) {
    if stream == Stream::Stderr {
        let newest = &clean[clean.len().saturating_sub(QUOTED)..];
        quoted.extend(newest);
        quoted.drain(..quoted.len().saturating_sub(QUOTED));
    }
    if let Some(tail) = &mut log.tail {
        // Cutting lines that will not be kept would hold up who prints them.
        tail.push(stream, &cutter.take_begun());
        tail.push(stream, clean);
    } else {
        cutter.push(clean, |line| log.add(stream, &line));
    }
}

impl Log {
    fn add(&mut self, stream: Stream, line: &Line<'_>) {
        let length = line.bytes.len() + 1;
        if self.tail.is_none() && length > self.room {
            // From here on only the end is kept, so that what is kept has one gap.
            self.tail = Some(Tail::default());
        }
        let text = text_of(line);
        match &mut self.tail {
            Some(tail) => tail.push(stream, text.as_bytes()),
            None => {
                self.room -= length;
                self.append(stream.word(), &text);
            }
        }
    }

    /// Puts a line into the last waiting chunk where that is of the same stream, not full and not old, else into a new one.
    fn append(&mut self, stream: &'static str, line: &str) {
        self.lines += 1;
        self.waiting_bytes += line.len();
        let now = self.now;
        match self.waiting.last_mut() {
            Some(chunk)
                if chunk.stream == stream
                    && chunk.body.len() + line.len() <= CHUNK
                    && now.saturating_duration_since(chunk.came) < FLUSH_AFTER
                    && i64::from(chunk.first_line) + i64::from(chunk.lines) == self.lines =>
            {
                chunk.lines += 1;
                chunk.body.push_str(line);
            }
            _ => {
                self.chunks += 1;
                self.waiting.push(LogChunk {
                    chunk: self.chunks,
                    stream,
                    first_line: i32::try_from(self.lines.min(MOST_LINES)).unwrap_or(i32::MAX),
                    lines: 1,
                    came: now,
                    body: line.to_owned(),
                });
            }
        }
    }

    /// Says what was left out, and keeps the end.
    fn end(&mut self) {
        if let Some(tail) = self.tail.take() {
            let end = tail.end();
            if end.lines_left_out > 0 {
                let remark = format!(
                    "[output cut here: {} lines, {} bytes left out]\n",
                    end.lines_left_out, end.bytes_left_out
                );
                self.append("runner", &remark);
                self.lines = (self.lines + end.lines_left_out).min(MOST_LINES);
            }
            for (stream, line) in end.lines {
                self.append(stream.word(), &line);
            }
        }
        self.closed = true;
    }

    /// Says that some lines are missing that could not be stored.
    fn lost(&mut self, chunks: &[LogChunk]) {
        let lines: i32 = chunks.iter().map(|chunk| chunk.lines).sum();
        self.append("runner", &format!("[{lines} lines could not be stored]\n"));
    }

    /// The chunks that wait, and whether they are the last.
    fn take(&mut self) -> (Vec<LogChunk>, bool) {
        self.waiting_bytes = 0;
        (std::mem::take(&mut self.waiting), self.closed)
    }
}

/// A line as it is stored: text, with its end, and with a mark where it was too long.
fn text_of(line: &Line<'_>) -> String {
    let mut text = String::from_utf8_lossy(line.bytes).into_owned();
    if line.left_out > 0 {
        text.push_str(&format!(" [line cut here: {} more bytes]", line.left_out));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output() -> Output {
        Output::new(&Arc::new(Masks::new([])), 1)
    }

    fn chunks(output: &Output) -> Vec<LogChunk> {
        output.with(|state| state.log.take().0)
    }

    #[test]
    fn lines_are_numbered_over_both_streams_in_the_order_of_their_ends() {
        let output = output();
        output.push(Stream::Stdout, b"one\nhalf a ");
        output.push(Stream::Stderr, b"two\n");
        output.push(Stream::Stdout, b"line\nthree");
        output.close();
        let found: Vec<_> = chunks(&output)
            .into_iter()
            .map(|c| (c.chunk, c.stream, c.first_line, c.lines, c.body))
            .collect();
        assert_eq!(
            found,
            [
                (1, "stdout", 1, 1, "one\n".to_owned()),
                (2, "stderr", 2, 1, "two\n".to_owned()),
                (3, "stdout", 3, 2, "half a line\nthree\n".to_owned()),
            ]
        );
    }

    #[test]
    fn of_a_flood_the_beginning_and_the_end_are_kept_with_the_right_numbers() {
        let output = output();
        let lines: Vec<String> = (1..=1_000_000)
            .map(|number| format!("{number}\n"))
            .collect();
        for piece in lines.concat().as_bytes().chunks(60_000) {
            output.push(Stream::Stdout, piece);
        }
        output.push(Stream::Stderr, b"the end\n");
        output.close();
        let mut next = 1;
        let mut bytes = 0;
        let mut remarks = Vec::new();
        for chunk in chunks(&output) {
            assert!(chunk.body.len() <= CHUNK);
            if chunk.first_line != next {
                remarks.push((next, chunk.first_line - next));
            }
            for (number, line) in (chunk.first_line..).zip(chunk.body.lines()) {
                match chunk.stream {
                    "stdout" if remarks.is_empty() => assert_eq!(line, number.to_string()),
                    // The remark has a number too.
                    "stdout" => assert_eq!(line, (number - 1).to_string()),
                    "stderr" => assert_eq!((line, number), ("the end", 1_000_002)),
                    _ => assert!(line.starts_with("[output cut here: "), "{line}"),
                }
                bytes += line.len() + 1;
            }
            next = chunk.first_line + chunk.lines;
        }
        assert_eq!(next, 1_000_003);
        assert_eq!(remarks.len(), 1, "one gap: {remarks:?}");
        assert!((MOST..MOST + 200_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn an_end_that_is_small_enough_is_kept_without_a_gap() {
        let output = output();
        output.push(Stream::Stdout, &b"0123456\n".repeat(MOST / 8));
        output.push(Stream::Stdout, b"one more\nand a ");
        output.push(Stream::Stderr, b"word\n");
        output.push(Stream::Stdout, b"half");
        output.close();
        let chunks = chunks(&output);
        assert!(chunks.iter().all(|chunk| chunk.stream != "runner"));
        let end: String = chunks
            .iter()
            .rev()
            .take(3)
            .map(|chunk| chunk.body.as_str())
            .collect();
        assert!(
            end.contains("one more\n") && end.contains("and a half\n") && end.contains("word\n")
        );
    }

    #[test]
    fn a_secret_is_masked_before_a_line_is_cut_and_in_what_an_error_quotes() {
        let masks = Arc::new(Masks::new(["hunter2hunter2"]));
        let output = Output::new(&masks, 1);
        output.push(Stream::Stdout, &vec![b'x'; LONGEST_LINE - 7]);
        output.push(Stream::Stdout, b"hunter2hunter2 and more\n");
        output.push(Stream::Stderr, b"password hunter2hun");
        assert_eq!(output.stderr_tail(), "password [masked]");
        output.close();
        let all: String = chunks(&output)
            .into_iter()
            .map(|chunk| chunk.body)
            .collect();
        assert!(!all.contains("hunter2"), "{}", &all[LONGEST_LINE - 20..]);
        assert!(all.ends_with("password [masked]\n"));
    }

    #[test]
    fn a_long_line_and_bytes_that_are_no_text_are_marked() {
        let output = output();
        output.push(Stream::Stdout, &[b'x'; LONGEST_LINE + 5]);
        output.push(Stream::Stdout, b"\n\xff\0\n");
        let body = chunks(&output).remove(0).body;
        assert!(
            body.ends_with("x [line cut here: 5 more bytes]\n\u{fffd}\0\n"),
            "{}",
            &body[LONGEST_LINE - 1..]
        );
    }

    #[test]
    fn the_end_of_stderr_is_kept_even_when_the_log_is_full() {
        let output = output();
        for _ in 0..100 {
            output.push(Stream::Stderr, &b"noise\n".repeat(16 * 1024));
        }
        output.push(Stream::Stderr, b"the cause\n");
        let tail = output.stderr_tail();
        assert!(
            tail.ends_with("noise\nthe cause") && tail.len() <= QUOTED,
            "{tail}"
        );
    }
}
