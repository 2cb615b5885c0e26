//! `opsctl logs summarize`: what the log lines of both services come to, by the law of docs/logging.md. Shows no content of a
//! line: one that breaks the law may hold anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::error::Error;
use crate::exit::Exit;
use crate::figures::Percentiles;
use crate::screen::{Output, Screen};
use crate::table::table;

/// A longer line is bad; the services write none.
const LONGEST: u64 = 1 << 20;
/// So many bad lines are named by their place.
const NAMED: usize = 5;

/// What the lines come to.
#[derive(Debug, Default)]
struct Tally {
    lines: u64,
    bad: u64,
    /// Where the first bad lines are, and what is wrong with them.
    named: Vec<String>,
    levels: Counts,
    events: Counts,
    outcomes: Counts,
    statuses: Counts,
    requests: Vec<f64>,
    attempts: Counts,
    waits: Vec<f64>,
    totals: Vec<f64>,
}

type Counts = BTreeMap<String, u64>;

pub(super) fn run(files: &[PathBuf], screen: &Screen) -> Result<Exit, Error> {
    let mut tally = Tally::default();
    for file in files {
        let read = if file.as_os_str() == "-" {
            tally.read("-", io::stdin().lock())
        } else {
            File::open(file)
                .and_then(|open| tally.read(&file.display().to_string(), BufReader::new(open)))
        };
        read.map_err(Error::io("read", file))?;
    }
    match screen.output() {
        Output::Json => screen.json(&tally.summary()),
        Output::Text => tally.show(screen),
    }
    Ok(Exit::Ok)
}

impl Tally {
    /// Counts every line; one that breaks the law is counted as bad and no more.
    fn read(&mut self, name: &str, mut lines: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            if lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let is_cut = !line.ends_with(b"\n") && line.len() as u64 == LONGEST;
            if is_cut {
                lines.skip_until(b'\n')?;
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            self.lines += 1;
            let counted = if is_cut {
                Err("too long")
            } else {
                self.count(&line)
            };
            if let Err(why) = counted {
                self.bad += 1;
                if self.named.len() < NAMED {
                    self.named.push(format!("{name}:{number}: {why}"));
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let line: Value = serde_json::from_slice(line).map_err(|_| "no JSON")?;
        let line = line.as_object().ok_or("no JSON object")?;
        let word = |name: &str| line.get(name).and_then(Value::as_str);
        let number = |name: &str| line.get(name).and_then(Value::as_f64);
        let at = word("timestamp").and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
        let at = at.ok_or("no timestamp")?;
        let level = word("level").ok_or("no level")?;
        word("target").ok_or("no target")?;
        let event = word("event");
        match event {
            Some("request") => {
                let outcome = word("outcome").ok_or("a request without outcome")?;
                let status = line.get("status").and_then(Value::as_u64);
                let status = status.ok_or("a request without status")?;
                let took = number("duration_ms").ok_or("a request without duration")?;
                add(&mut self.outcomes, outcome);
                add(&mut self.statuses, &status.to_string());
                self.requests.push(took);
            }
            Some("job_started") => {
                let id = word("job_id").and_then(|id| Uuid::parse_str(id).ok());
                let id = id.ok_or("an attempt without job")?;
                let attempt = number("attempt").ok_or("an attempt without its number")?;
                if let Some(waited) = number("wait_ms") {
                    self.waits.push(waited);
                } else if attempt <= 1.0 {
                    // A line of an older release. Later attempts wait for their backoff.
                    self.waits
                        .extend(recorded(id).map(|recorded| milliseconds(at - recorded)));
                }
            }
            Some("job_finished" | "job_not_finished") => {
                let outcome = word("outcome").ok_or("an attempt without outcome")?;
                let took = number("duration_ms").ok_or("an attempt without duration")?;
                add(&mut self.attempts, outcome);
                self.totals.push(took);
            }
            Some(_) | None => {}
        }
        add(&mut self.levels, level);
        add(&mut self.events, event.unwrap_or("none"));
        Ok(())
    }

    fn summary(&self) -> impl Serialize {
        serde_json::json!({
            "lines": self.lines,
            "bad_lines": self.bad,
            "first_bad_lines": self.named,
            "levels": self.levels,
            "events": self.events,
            "requests": {
                "outcomes": self.outcomes,
                "statuses": self.statuses,
                "total_ms": Percentiles::of(&self.requests),
            },
            "attempts": {
                "outcomes": self.attempts,
                "wait_ms": Percentiles::of(&self.waits),
                "total_ms": Percentiles::of(&self.totals),
            },
        })
    }

    fn show(&self, screen: &Screen) {
        screen.line(&format!("{} lines, {} of them bad", self.lines, self.bad));
        for place in &self.named {
            screen.line(&format!("  {place}"));
        }
        let all = [
            ("level", &self.levels),
            ("event", &self.events),
            ("request", &self.outcomes),
            ("status", &self.statuses),
            ("attempt", &self.attempts),
        ];
        let row = |what: &str, (word, count): (&String, &u64)| {
            vec![what.to_owned(), word.clone(), count.to_string()]
        };
        let rows: Vec<_> = all
            .iter()
            .flat_map(|(what, counts)| counts.iter().map(|pair| row(what, pair)))
            .collect();
        table(screen, &["WHAT", "WORD", "COUNT"], &rows);
        let all = [
            ("request total", &self.requests),
            ("attempt wait", &self.waits),
            ("attempt total", &self.totals),
        ];
        let row = |(what, values): &(&str, &Vec<f64>)| {
            let of = Percentiles::of(values)?;
            let (p50, p95) = (format!("{:.1} ms", of.p50), format!("{:.1} ms", of.p95));
            Some(vec![(*what).to_owned(), of.count.to_string(), p50, p95])
        };
        let rows: Vec<_> = all.iter().filter_map(row).collect();
        table(screen, &["DURATION", "COUNT", "P50", "P95"], &rows);
    }
}

fn add(counts: &mut Counts, word: &str) {
    *counts.entry(word.to_owned()).or_default() += 1;
}

/// A job's id says when it was recorded.
fn recorded(id: Uuid) -> Option<OffsetDateTime> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()
}

/// Never below nothing: it is between two clocks.
fn milliseconds(span: time::Duration) -> f64 {
    (span.as_seconds_f64() * 1000.0).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &[u8]) -> Value {
        let mut tally = Tally::default();
        tally.read("f", lines).expect("read");
        serde_json::to_value(tally.summary()).expect("JSON")
    }

    const HEAD: &str = r#""timestamp":"2026-01-02T03:04:05.500Z","level":"INFO","target":"t""#;

    #[test]
    fn outcomes_statuses_and_durations_are_counted() {
        let request = |outcome: &str, status: u16, took: f64| {
            format!(
                r#"{{{HEAD},"event":"request","outcome":"{outcome}","status":{status},"duration_ms":{took}}}"#
            )
        };
        let mut lines: Vec<_> = (1..=20_u8)
            .map(|took| request("ok", 200, took.into()))
            .collect();
        lines.push(request("rate_limited", 429, 100.0));
        // 2026-01-02T03:04:05Z, in milliseconds.
        let id = format!(
            "{:08x}-{:04x}-7000-8000-000000000000",
            1_767_323_045_000_u64 >> 16,
            1_767_323_045_000_u64 & 0xffff
        );
        for attempt in [1, 2] {
            lines.push(format!(
                r#"{{{HEAD},"event":"job_started","job_id":"{id}","attempt":{attempt}}}"#
            ));
        }
        lines.push(format!(
            r#"{{{HEAD},"event":"job_started","job_id":"{id}","attempt":2,"wait_ms":700}}"#
        ));
        lines.push(format!(r#"{{{HEAD},"event":"job_finished","outcome":"retry","status":"queued","duration_ms":7}}"#));
        let summary = tally(lines.join("\n").as_bytes());
        assert_eq!(
            (&summary["lines"], &summary["bad_lines"]),
            (&25.into(), &0.into())
        );
        let requests = &summary["requests"];
        assert_eq!(
            requests["outcomes"],
            serde_json::json!({"ok": 20, "rate_limited": 1})
        );
        assert_eq!(
            requests["statuses"],
            serde_json::json!({"200": 20, "429": 1})
        );
        assert_eq!(
            requests["total_ms"],
            serde_json::json!({"count": 21, "p50": 11.0, "p95": 20.0})
        );
        let attempts = &summary["attempts"];
        assert_eq!(attempts["outcomes"], serde_json::json!({"retry": 1}));
        assert_eq!(
            attempts["wait_ms"],
            serde_json::json!({"count": 2, "p50": 500.0, "p95": 700.0})
        );
    }

    #[test]
    fn a_line_that_breaks_the_law_is_counted_and_named_and_never_quoted() {
        let mut lines = b"canary\n\n[]\n\xff\xfe\n{\"level\":\"INFO\"}\n".to_vec();
        lines.extend(format!("{{{HEAD},\"event\":\"request\",\"canary\":1}}\n").bytes());
        lines.extend(vec![b'x'; LONGEST as usize + 5]);
        lines.extend(format!("\n{{{HEAD}}}").bytes());
        let summary = tally(&lines);
        assert_eq!(
            (&summary["lines"], &summary["bad_lines"]),
            (&7.into(), &6.into())
        );
        assert_eq!(summary["events"], serde_json::json!({"none": 1}));
        assert_eq!(summary["first_bad_lines"][0], "f:1: no JSON");
        assert_eq!(
            summary["first_bad_lines"][4],
            "f:6: a request without outcome"
        );
        assert!(!summary.to_string().contains("canary"), "{summary}");
    }

    #[test]
    fn no_lines_are_no_figures() {
        assert_eq!(tally(b"")["requests"]["total_ms"], Value::Null);
    }
}
