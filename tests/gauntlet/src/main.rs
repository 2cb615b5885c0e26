//! The program: builds the programs, makes one run, prints what came of it, and ends with 1 where something broke.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for a person at a terminal"
)]

use std::process::{Command, ExitCode};

use gauntlet::clock;
use gauntlet::profile::Profile;
use gauntlet::schedule::schedule;

const USAGE: &str = "usage: gauntlet [--full] [--percent N] [--seed N] [--schedule]

  --full       the whole run, about 25 minutes; without it the short one
  --percent N  a part of the full run
  --seed N     the schedule of an earlier run
  --schedule   only print the schedule";

#[tokio::main]
async fn main() -> ExitCode {
    let Some(asked) = asked(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if asked.only_schedule {
        for fault in schedule(asked.seed, &asked.profile) {
            println!("{fault}");
        }
        return ExitCode::SUCCESS;
    }
    if !built() {
        eprintln!("cargo build failed");
        return ExitCode::from(2);
    }
    let begun = std::time::Instant::now();
    let report = gauntlet::run(asked.seed, &asked.profile, |line| {
        println!("{:>6.1} s  {line}", begun.elapsed().as_secs_f64());
    })
    .await;
    print!("{report}");
    println!(
        "took {:.0} s; again with --seed {}",
        begun.elapsed().as_secs_f64(),
        report.seed
    );
    if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

struct Asked {
    profile: Profile,
    seed: u64,
    only_schedule: bool,
}

fn asked(mut arguments: impl Iterator<Item = String>) -> Option<Asked> {
    let mut asked = Asked {
        profile: Profile::short(),
        seed: clock::monotonic() % 1_000_000,
        only_schedule: false,
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--full" => asked.profile = Profile::full(),
            "--percent" => asked.profile = Profile::full().scaled(arguments.next()?.parse().ok()?),
            "--seed" => asked.seed = arguments.next()?.parse().ok()?,
            "--schedule" => asked.only_schedule = true,
            _ => return None,
        }
    }
    Some(asked)
}

/// Under `cargo run`, builds the other programs into the same folder; elsewhere they are there, or the run says so.
#[expect(
    clippy::disallowed_methods,
    reason = "cargo says by its environment that it runs us, and is a process"
)]
fn built() -> bool {
    let Some(cargo) = std::env::var_os("CARGO") else {
        return true;
    };
    let mut command = Command::new(cargo);
    command.args(["build", "--workspace", "--bins"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.status().is_ok_and(|status| status.success())
}
