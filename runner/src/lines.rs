//! Cuts a stream of bytes into lines of bounded length. Knows nothing of what the lines mean.

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'bytes> {
    pub(crate) bytes: &'bytes [u8],
    /// How many bytes of it were left out because it was too long.
    pub(crate) left_out: u64,
}

/// The line that has not ended yet.
#[derive(Debug)]
pub(crate) struct LineCutter {
    begun: Vec<u8>,
    left_out: u64,
    longest: usize,
}

impl LineCutter {
    pub(crate) fn new(longest: usize) -> Self {
        Self {
            begun: Vec::new(),
            left_out: 0,
            longest,
        }
    }

    /// Takes the next bytes and gives every line that ends in them.
    pub(crate) fn push(&mut self, bytes: &[u8], mut give: impl FnMut(Line<'_>)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.split_last() {
                Some((b'\n', rest)) => {
                    self.keep(rest);
                    self.end(&mut give);
                }
                _ => self.keep(piece),
            }
        }
    }

    /// Gives the line that was begun, if there is one, at the end of the stream.
    pub(crate) fn finish(&mut self, mut give: impl FnMut(Line<'_>)) {
        if !self.begun.is_empty() || self.left_out > 0 {
            self.end(&mut give);
        }
    }

    /// Takes back the line that was begun: it is not cut any more.
    pub(crate) fn take_begun(&mut self) -> Vec<u8> {
        self.left_out = 0;
        std::mem::take(&mut self.begun)
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = self
            .longest
            .saturating_sub(self.begun.len())
            .min(piece.len());
        let (kept, rest) = piece.split_at(room);
        self.begun.extend_from_slice(kept);
        self.left_out = self.left_out.saturating_add(rest.len() as u64);
    }

    fn end(&mut self, give: &mut impl FnMut(Line<'_>)) {
        let bytes = match self.begun.split_last() {
            Some((b'\r', rest)) if self.left_out == 0 => rest,
            _ => &self.begun,
        };
        give(Line {
            bytes,
            left_out: self.left_out,
        });
        self.begun.clear();
        self.left_out = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(longest: usize, pieces: &[&[u8]]) -> Vec<(String, u64)> {
        let mut cutter = LineCutter::new(longest);
        let mut lines = Vec::new();
        let mut keep = |line: Line<'_>| {
            lines.push((
                String::from_utf8_lossy(line.bytes).into_owned(),
                line.left_out,
            ));
        };
        for piece in pieces {
            cutter.push(piece, &mut keep);
        }
        cutter.finish(&mut keep);
        lines
    }

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        cut(100, pieces).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn lines_are_found_however_the_bytes_come() {
        assert_eq!(lines(&[b"a\nb\n"]), ["a", "b"]);
        assert_eq!(
            lines(&[b"a", b"b\nc", b"", b"\n\n", b"d"]),
            ["ab", "c", "", "d"]
        );
        assert_eq!(lines(&[b"a\r\nb\r", b"\n"]), ["a", "b"]);
        assert_eq!(lines(&[b""]), Vec::<String>::new());
    }

    #[test]
    fn a_long_line_is_cut_and_says_by_how_much() {
        assert_eq!(
            cut(3, &[b"abc\nabcd\nab", b"cdef"]),
            [("abc".into(), 0), ("abc".into(), 1), ("abc".into(), 3)]
        );
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_the_longest() {
        let mut cutter = LineCutter::new(16);
        for _ in 0..1000 {
            cutter.push(&[0; 4096], |_| panic!("no line has ended"));
        }
        assert_eq!(cutter.begun.len(), 16);
    }
}
