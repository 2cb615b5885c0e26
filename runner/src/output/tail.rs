//! The end of an output of which only the beginning and the end are kept. Counts what goes by, and cuts no line before
//! the last.

use std::collections::VecDeque;

use super::{LONGEST_LINE, Stream, text_of};
use crate::lines::LineCutter;

/// At least so many of the last bytes are kept.
const KEPT: usize = 64 * 1024;
/// Small pieces are put together up to this size.
const PIECE: usize = 4 * 1024;

/// What came last.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pieces: VecDeque<(Stream, Vec<u8>)>,
    kept: usize,
    /// How many lines have ended, and how many bytes there were, in all that came.
    ended: i64,
    bytes: u64,
    /// Whether what is kept of a stream begins within a line.
    within: [bool; 2],
}

/// What is kept of it.
#[derive(Debug)]
pub(super) struct End {
    pub(super) lines: Vec<(Stream, String)>,
    pub(super) lines_left_out: i64,
    pub(super) bytes_left_out: u64,
}

impl Tail {
    pub(super) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.ended +=
            i64::try_from(bytes.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(0);
        self.bytes += bytes.len() as u64;
        self.kept += bytes.len();
        match self.pieces.back_mut() {
            Some((last, piece)) if *last == stream && piece.len() < PIECE => {
                piece.extend_from_slice(bytes);
            }
            _ => self.pieces.push_back((stream, bytes.to_vec())),
        }
        while let Some((stream, oldest)) = self.pieces.front()
            && self.kept - oldest.len() >= KEPT
        {
            self.kept -= oldest.len();
            self.within[*stream as usize] = oldest.last() != Some(&b'\n');
            self.pieces.pop_front();
        }
    }

    /// Cuts the lines, without the rest of one whose beginning is gone.
    pub(super) fn end(self) -> End {
        let mut within = self.within;
        let mut cutters = [LineCutter::new(LONGEST_LINE), LineCutter::new(LONGEST_LINE)];
        let mut lines = Vec::new();
        let mut kept = 0;
        let mut take = |stream: Stream, line: &crate::lines::Line<'_>| {
            if !std::mem::take(&mut within[stream as usize]) {
                kept += line.bytes.len() as u64 + 1;
                lines.push((stream, text_of(line)));
            }
        };
        for (stream, piece) in &self.pieces {
            cutters[*stream as usize].push(piece, |line| take(*stream, &line));
        }
        let mut all = self.ended;
        for (stream, cutter) in [Stream::Stdout, Stream::Stderr]
            .into_iter()
            .zip(&mut cutters)
        {
            cutter.finish(|line| {
                all += 1;
                take(stream, &line);
            });
        }
        let lines_kept = i64::try_from(lines.len()).unwrap_or(0);
        End {
            lines_left_out: all - lines_kept,
            bytes_left_out: self.bytes.saturating_sub(kept),
            lines,
        }
    }
}
