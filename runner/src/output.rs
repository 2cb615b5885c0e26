//! What one attempt prints, cut into lines, bounded, and stored as it comes. The streams are always drained, and
//! storing may lag behind: neither can hold up a renewal or a finish.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jobs::{LeaseKey, LogChunk, Store, StoreError};
use tokio::sync::Notify;

use crate::lines::{Line, LineCutter};

const LONGEST_LINE: usize = 16 * 1024;
/// So much of an attempt's output is stored.
const MOST: usize = 4 * 1024 * 1024;
/// Lines wait so long for others, or until there are so many bytes of them.
const FLUSH_AFTER: Duration = Duration::from_millis(250);
const FLUSH_AT: usize = 64 * 1024;
/// The end of stderr that an error quotes.
const TAIL: usize = 2 * 1024;

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
    stdout: LineCutter,
    stderr: LineCutter,
    tail: VecDeque<u8>,
    log: Log,
}

/// The lines that are kept, as chunks that wait to be stored.
#[derive(Debug, Default)]
struct Log {
    waiting: Vec<LogChunk>,
    waiting_bytes: usize,
    kept: usize,
    discarded: u64,
    chunks: i32,
    lines: i32,
    closed: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        let state = State {
            stdout: LineCutter::new(LONGEST_LINE),
            stderr: LineCutter::new(LONGEST_LINE),
            tail: VecDeque::new(),
            log: Log::default(),
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

    /// The last lines of stderr, bounded.
    pub(crate) fn stderr_tail(&self) -> String {
        self.with(|state| {
            let bytes: Vec<u8> = state.tail.iter().copied().collect();
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
            if !chunks.is_empty() && !append(store, key, &chunks).await {
                return;
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

/// Stores chunks, again and again while the database is away; `false` when there is no point in going on.
async fn append(store: &Store, key: LeaseKey, chunks: &[LogChunk]) -> bool {
    loop {
        match store.append_log(key, chunks).await {
            Ok(()) => return true,
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(FLUSH_AFTER).await,
            Err(StoreError::LeaseLost(_)) => return false,
            Err(error) => {
                tracing::warn!(event = "log_not_stored", job_id = %key.job_id, %error);
                return true;
            }
        }
    }
}

impl State {
    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Stderr {
            let newest = &bytes[bytes.len().saturating_sub(TAIL)..];
            self.tail.extend(newest);
            self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        }
        let cutter = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if self.log.kept >= MOST {
            self.log.discarded = self.log.discarded.saturating_add(bytes.len() as u64);
        } else {
            cutter.push(bytes, |line| self.log.add(stream, &line));
        }
    }

    fn close(&mut self) {
        if self.log.closed {
            return;
        }
        for (stream, cutter) in [
            (Stream::Stdout, &mut self.stdout),
            (Stream::Stderr, &mut self.stderr),
        ] {
            cutter.finish(|line| self.log.add(stream, &line));
        }
        if self.log.discarded > 0 {
            let remark = format!(
                "[output cut here: {} more bytes were discarded]\n",
                self.log.discarded
            );
            self.log.append("runner", &remark);
        }
        self.log.closed = true;
    }
}

impl Log {
    fn add(&mut self, stream: Stream, line: &Line<'_>) {
        let length = line.bytes.len() + 1;
        if self.kept + length > MOST {
            // From here on nothing is kept, so that what is kept has no gaps.
            self.kept = MOST;
            self.discarded = self
                .discarded
                .saturating_add(length as u64)
                .saturating_add(line.left_out);
            return;
        }
        self.kept += length;
        let mut text = String::from_utf8_lossy(line.bytes).into_owned();
        if line.left_out > 0 {
            text.push_str(&format!(" [line cut here: {} more bytes]", line.left_out));
        }
        text.push('\n');
        self.append(stream.word(), &text);
    }

    /// Puts a line into the last waiting chunk where that is of the same stream and not full, else into a new one.
    fn append(&mut self, stream: &'static str, line: &str) {
        self.lines += 1;
        self.waiting_bytes += line.len();
        match self.waiting.last_mut() {
            Some(chunk) if chunk.stream == stream && chunk.body.len() < FLUSH_AT => {
                chunk.lines += 1;
                chunk.body.push_str(line);
            }
            _ => {
                self.chunks += 1;
                let (chunk, first_line) = (self.chunks, self.lines);
                self.waiting.push(LogChunk {
                    chunk,
                    stream,
                    first_line,
                    lines: 1,
                    body: line.to_owned(),
                });
            }
        }
    }

    /// The chunks that wait, and whether they are the last.
    fn take(&mut self) -> (Vec<LogChunk>, bool) {
        self.waiting_bytes = 0;
        (std::mem::take(&mut self.waiting), self.closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(output: &Output) -> Vec<LogChunk> {
        output.with(|state| state.log.take().0)
    }

    #[test]
    fn lines_are_numbered_over_both_streams_in_the_order_of_their_ends() {
        let output = Output::new();
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
    fn a_flood_is_kept_up_to_its_limit_and_says_how_much_more_there_was() {
        let output = Output::new();
        let flood = b"y\n".repeat(32 * 1024);
        for _ in 0..200 {
            output.push(Stream::Stdout, &flood);
        }
        output.close();
        let chunks = chunks(&output);
        let kept: usize = chunks
            .iter()
            .filter(|chunk| chunk.stream == "stdout")
            .map(|chunk| chunk.body.len())
            .sum();
        assert_eq!(kept, MOST);
        let remark = chunks.last().expect("a remark");
        assert_eq!(remark.stream, "runner");
        let more = 200 * flood.len() - MOST;
        assert_eq!(
            remark.body,
            format!("[output cut here: {more} more bytes were discarded]\n")
        );
        assert!(
            chunks
                .iter()
                .all(|chunk| chunk.body.len() <= FLUSH_AT + LONGEST_LINE)
        );
    }

    #[test]
    fn a_long_line_and_bytes_that_are_no_text_are_marked() {
        let output = Output::new();
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
        let output = Output::new();
        for _ in 0..100 {
            output.push(Stream::Stderr, &b"noise\n".repeat(16 * 1024));
        }
        output.push(Stream::Stderr, b"the cause\n");
        let tail = output.stderr_tail();
        assert!(
            tail.ends_with("noise\nthe cause") && tail.len() <= TAIL,
            "{tail}"
        );
    }
}
