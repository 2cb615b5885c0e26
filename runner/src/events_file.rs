//! Follows the file into which a command writes its progress, a JSON object a line. Lines are data, parsed strictly;
//! what is wrong with one is said by its number, never by its content.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use jobs::ProgressKind;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::context::Context;
use crate::lines::{Line, LineCutter};

const LOOK_EVERY: Duration = Duration::from_millis(250);
const LONGEST_LINE: usize = 4 * 1024;
/// So many bytes are read at once at a look …
const PIECE: usize = 64 * 1024;
/// … and so many such pieces; more at the last look, so that the last line is among them.
const MOST_PIECES: usize = 64;
const MOST_LAST_PIECES: usize = 1024;

/// The open file, and how far it was read.
#[derive(Debug)]
pub(crate) struct EventsFile {
    file: File,
    offset: u64,
    cutter: LineCutter,
    lines: usize,
}

impl EventsFile {
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            offset: 0,
            cutter: LineCutter::new(LONGEST_LINE),
            lines: 0,
        }
    }

    /// Reports what is written until `done` is told, then once more.
    pub(crate) async fn follow(mut self, context: &Context, done: &Notify) {
        let mut last = false;
        while !last {
            last = tokio::select! {
                () = done.notified() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            self.look(context, last).await;
        }
    }

    /// Reports the lines that came since the last look.
    async fn look(&mut self, context: &Context, last: bool) {
        let most = if last { MOST_LAST_PIECES } else { MOST_PIECES };
        let mut reports = Vec::new();
        for _ in 0..most {
            let read = self.read_piece(&mut reports).unwrap_or(0);
            // Handed on piece by piece: as values, lines are fifty times as large.
            hand_on(context, &mut reports).await;
            if read == 0 {
                break;
            }
        }
        if last {
            let lines = &mut self.lines;
            self.cutter.finish(|line| note(lines, &line, &mut reports));
            hand_on(context, &mut reports).await;
        }
    }

    fn read_piece(&mut self, reports: &mut Vec<(ProgressKind, Value)>) -> io::Result<usize> {
        let length = self.file.metadata()?.len();
        if length < self.offset {
            // The command began the file anew.
            self.offset = 0;
        }
        if length == self.offset {
            return Ok(0);
        }
        let mut piece = vec![0; PIECE];
        let read = self.file.read_at(&mut piece, self.offset)?;
        self.offset += read as u64;
        let lines = &mut self.lines;
        self.cutter
            .push(&piece[..read], |line| note(lines, &line, reports));
        Ok(read)
    }
}

async fn hand_on(context: &Context, reports: &mut Vec<(ProgressKind, Value)>) {
    for (kind, data) in reports.drain(..) {
        context.report(kind, data).await;
    }
}

/// Turns a line into its report, or into a refusal. How many of them become events is not decided here.
fn note(lines: &mut usize, line: &Line<'_>, reports: &mut Vec<(ProgressKind, Value)>) {
    *lines += 1;
    reports.push(match parse(line) {
        Ok(data) => (ProgressKind::Progress, data),
        Err(reason) => (
            ProgressKind::Refused,
            json!({ "line": *lines, "reason": reason }),
        ),
    });
}

fn parse(line: &Line<'_>) -> Result<Value, &'static str> {
    if line.left_out > 0 {
        return Err("is longer than 4096 bytes");
    }
    let value: Value = serde_json::from_slice(line.bytes).map_err(|_| "is not JSON")?;
    let object = value.as_object().ok_or("is not a JSON object")?;
    if object
        .keys()
        .any(|key| key != "progress" && key != "message")
    {
        return Err("has keys other than progress and message");
    }
    let progress = object.get("progress").ok_or("has no progress")?;
    if !progress
        .as_f64()
        .is_some_and(|fraction| (0.0..=1.0).contains(&fraction))
    {
        return Err("has a progress that is no number from 0 to 1");
    }
    if object
        .get("message")
        .is_some_and(|message| !message.is_string())
    {
        return Err("has a message that is not text");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(ProgressKind, Value)> {
        let mut file = tempfile::tempfile().expect("a file");
        io::Write::write_all(&mut file, text).expect("written");
        let mut events = EventsFile::new(file);
        let mut reports = Vec::new();
        while events.read_piece(&mut reports).expect("read") > 0 {}
        reports
    }

    #[test]
    fn a_line_is_progress_or_refused_by_its_number() {
        let text = br#"{"progress": 0.4, "message": "half"}
{"progress": 2}
canary
{"progress": "canary"}
[1]
{"progress": 1, "canary": 1}
{"message": "canary"}
{"progress": 0, "message": 7}
{"progress": 1}
"#;
        let reports = read(text);
        assert_eq!(
            reports[0],
            (
                ProgressKind::Progress,
                json!({ "progress": 0.4, "message": "half" })
            )
        );
        assert_eq!(reports[8].0, ProgressKind::Progress);
        for (index, (kind, data)) in reports[1..8].iter().enumerate() {
            assert_eq!(*kind, ProgressKind::Refused, "{data}");
            assert_eq!(data["line"], index + 2);
            assert!(!data.to_string().contains("canary"), "{data}");
        }
    }

    #[test]
    fn a_long_line_is_refused_and_the_next_one_read() {
        let text = format!(
            "{{\"message\": \"{}\"}}\n{{\"progress\": 1}}\n",
            "x".repeat(LONGEST_LINE)
        );
        let kinds: Vec<_> = read(text.as_bytes())
            .into_iter()
            .map(|(kind, _)| kind)
            .collect();
        assert_eq!(kinds, [ProgressKind::Refused, ProgressKind::Progress]);
    }
}
