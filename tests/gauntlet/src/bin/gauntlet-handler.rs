//! The handler of every job of the suite: tells the ledger what it does, prints the lines of its chain, offers its effect
//! to the sink, and ends as its mode says. Knows of the job only what a runner gives it.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use gauntlet::chain::Chain;
use gauntlet::ledger::{Ledger, Phase};
use gauntlet::sink;
use gauntlet::terms::CANARY;
use uuid::Uuid;

const BEAT: Duration = Duration::from_millis(20);
/// More than a runner keeps of one attempt's output: so many lines, each made so long.
const FLOOD: (usize, usize) = (9000, 1000);

/// Ends with this where it was started wrongly.
const MISUSED: u8 = 64;

#[expect(
    clippy::disallowed_methods,
    reason = "a handler is told its job by its environment"
)]
fn given(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn main() -> ExitCode {
    run().unwrap_or(ExitCode::from(MISUSED))
}

struct Handler {
    ledger: Ledger,
    chain: Chain,
}

impl Handler {
    fn print(&mut self, width: usize) -> io::Result<()> {
        let line = self.chain.next_line();
        writeln!(io::stdout(), "{line:<width$}")?;
        self.ledger.printed();
        Ok(())
    }
}

fn run() -> Option<ExitCode> {
    let mode = std::env::args().nth(1)?;
    let folder = PathBuf::from(given("GAUNTLET_DIR")?);
    let job: Uuid = given("OPS_JOB_ID")?.parse().ok()?;
    let fence: i64 = given("OPS_FENCE")?.parse().ok()?;
    let attempt: i32 = given("OPS_ATTEMPT")?.parse().ok()?;
    let mut handler = Handler {
        ledger: Ledger::open(&folder.join("ledger"), job, fence, attempt).ok()?,
        chain: Chain::of(job, fence),
    };
    // Started by a handler, not by a runner: it only lives, silently, for as long as it is let.
    if mode == "shadow" {
        loop {
            std::thread::sleep(BEAT);
            handler.ledger.write(Phase::Beat).ok()?;
        }
    }
    handler.ledger.write(Phase::Start).ok()?;
    look_for_secrets(&folder, job).ok()?;
    let length = match mode.as_str() {
        "noop" | "loud" => Duration::ZERO,
        "short" | "flaky" => Duration::from_millis(50),
        "paired" => Duration::from_millis(200),
        "long" => Duration::from_secs(2),
        "linger" => Duration::from_secs(6),
        "endless" => Duration::MAX,
        _ => return None,
    };
    handler.print(0).ok()?;
    let begun = Instant::now();
    while begun.elapsed() < length {
        std::thread::sleep(BEAT);
        handler.ledger.write(Phase::Beat).ok()?;
        handler.print(0).ok()?;
    }
    if mode == "loud" {
        for _ in 0..FLOOD.0 {
            handler.print(FLOOD.1).ok()?;
        }
    }
    let accepted = sink::offer(&folder.join("sink"), job, fence).ok()?;
    let (phase, code) = match (accepted, mode.as_str()) {
        (false, _) => (Phase::Refused, 1),
        (true, "flaky") if fence % 2 == 0 => (Phase::Again, 75),
        (true, _) => (Phase::Done, 0),
    };
    handler.ledger.write(phase).ok()?;
    Some(ExitCode::from(code))
}

/// Nothing of the runner's secrets may reach a handler; where one does, a file says so.
fn look_for_secrets(folder: &Path, job: Uuid) -> io::Result<()> {
    for place in ["environ", "cmdline"] {
        let bytes = std::fs::read(Path::new("/proc/self").join(place))?;
        if String::from_utf8_lossy(&bytes).contains(CANARY) {
            let mut file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(folder.join("secrets-seen"))?;
            writeln!(file, "the {place} of a handler of job {job}")?;
        }
    }
    Ok(())
}
