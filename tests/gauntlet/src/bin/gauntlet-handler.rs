//! The handler of every job of the suite: tells the ledger what it does, offers its effect to the sink, and ends as its
//! mode says. Knows of the job only what a runner gives it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use gauntlet::ledger::{Ledger, Phase};
use gauntlet::sink;
use uuid::Uuid;

const BEAT: Duration = Duration::from_millis(20);

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

fn run() -> Option<ExitCode> {
    let mode = std::env::args().nth(1)?;
    let folder = PathBuf::from(given("GAUNTLET_DIR")?);
    let job: Uuid = given("OPS_JOB_ID")?.parse().ok()?;
    let fence: i64 = given("OPS_FENCE")?.parse().ok()?;
    let attempt: i32 = given("OPS_ATTEMPT")?.parse().ok()?;
    let mut ledger = Ledger::open(&folder.join("ledger"), job, fence, attempt).ok()?;
    ledger.write(Phase::Start).ok()?;
    let length = match mode.as_str() {
        "noop" => Duration::ZERO,
        "short" | "flaky" => Duration::from_millis(50),
        "long" => Duration::from_secs(2),
        "linger" => Duration::from_secs(6),
        _ => return None,
    };
    let begun = Instant::now();
    while begun.elapsed() < length {
        std::thread::sleep(BEAT);
        ledger.write(Phase::Beat).ok()?;
    }
    let accepted = sink::offer(&folder.join("sink"), job, fence).ok()?;
    let (phase, code) = match (accepted, mode.as_str()) {
        (false, _) => (Phase::Refused, 1),
        (true, "flaky") if fence % 2 == 0 => (Phase::Again, 75),
        (true, _) => (Phase::Done, 0),
    };
    ledger.write(phase).ok()?;
    Some(ExitCode::from(code))
}
