//! I16: what is stored of a claim's output is what its handler printed: from the first line on, without a gap but where a
//! mark says that it was cut, and whole where the handler ended and its runner said so.

use std::collections::HashMap;

use uuid::Uuid;

use super::work::{Run, Runs, became};
use super::{Invariant, Verdict};
use crate::chain::Chain;
use crate::history::{Chunk, History};

/// What is still to be stored waits so long, in nanoseconds, while the database is away; then it is lost.
const STORED: u64 = 10_000_000_000;

pub(super) fn check(history: &History, runs: &Runs, verdict: &mut Verdict) {
    let mut last = HashMap::new();
    for ((job, fence), chunks) in &history.logs {
        match read(Chain::of(*job, *fence), chunks) {
            Ok(lines) => drop(last.insert((*job, *fence), lines)),
            Err(wrong) => {
                verdict.add(Invariant::Log, *job, format!("fence {fence}: {wrong}"));
                last.insert((*job, *fence), Read::WRONG);
            }
        }
    }
    for (job, runs) in runs {
        for run in runs.values() {
            let read = last.get(&(*job, run.fence)).copied().unwrap_or_default();
            let missing = !read.cut && read.lines < run.lines;
            if (missing || read.lines > run.lines && run.end.is_some())
                && read != Read::WRONG
                && must_be_whole(history, *job, run)
            {
                let what = format!(
                    "fence {}: {} lines are stored of {}",
                    run.fence, read.lines, run.lines
                );
                verdict.add(Invariant::Log, *job, what);
            }
        }
    }
}

/// What was read of a claim's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Read {
    lines: u32,
    cut: bool,
}

impl Read {
    const WRONG: Self = Self {
        lines: u32::MAX,
        cut: true,
    };
}

fn read(mut chain: Chain, chunks: &[Chunk]) -> Result<Read, String> {
    let mut read = Read::default();
    let mut jump = false;
    // The number of the last line, those that were left out counted.
    let mut last = 0;
    for (index, chunk) in chunks.iter().enumerate() {
        let number = usize::try_from(chunk.number).unwrap_or(0);
        let lines = i32::try_from(chunk.body.lines().count()).unwrap_or(0);
        if number != index + 1 || chunk.lines != lines || chunk.first_line != last + 1 {
            return Err(format!(
                "chunk {number} has lines {} and {} more, after chunk {index} and line {last}",
                chunk.first_line, chunk.lines
            ));
        }
        last += lines;
        if chunk.stream == "runner"
            && let Some(left_out) = left_out(&chunk.body)
        {
            last += left_out;
            (jump, read.cut) = (true, true);
        }
        if chunk.stream != "stdout" {
            continue;
        }
        for line in chunk.body.lines().map(str::trim_end) {
            let wanted = if jump { number_of(line) } else { None };
            let mut expected = chain.next_line();
            while wanted.is_some_and(|wanted| wanted > chain.number()) {
                expected = chain.next_line();
            }
            if line != expected {
                let line: String = line.chars().take(60).collect();
                return Err(format!("{line:?} stands where {expected:?} should"));
            }
            jump = false;
            read.lines = chain.number();
        }
    }
    Ok(read)
}

/// How many lines a mark says to be missing in its place.
fn left_out(mark: &str) -> Option<i32> {
    let rest = mark.split_once("[output cut here: ")?.1;
    rest.split_once(" lines")?.0.parse().ok()
}

/// Bounded, so that a line that is damaged cannot keep the checker busy for ever.
fn number_of(line: &str) -> Option<u32> {
    let number: u32 = line.split(' ').next()?.parse().ok()?;
    (number < 1_000_000).then_some(number)
}

/// A runner stores the output before it tells the end; only where something kept it from storing may the end be missing.
fn must_be_whole(history: &History, job: Uuid, run: &Run) -> bool {
    let told = became(history, job, run.fence).is_some_and(|event| {
        event.actor.starts_with("runner:")
            && ["succeeded", "retry_scheduled", "failed"].contains(&event.kind.as_str())
    });
    let runner = history.runner_of(job, run.fence);
    let hindered = history
        .faults
        .iter()
        .any(|fault| fault.concerns(runner, run.until.saturating_sub(STORED), run.until + STORED));
    run.end.is_some() && told && !hindered
}
