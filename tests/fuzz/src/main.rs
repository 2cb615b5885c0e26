//! The program: builds the programs, attacks them, prints what came of it, and ends with 1 where something was found.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for a person at a terminal"
)]

use std::process::{Command, ExitCode};

use fuzz::{Plan, System, attack};
use gauntlet::clock;

const USAGE: &str = "usage: fuzz [--requests N] [--seed N] [--only CASE] [--workers N] [--minutes N]

  --requests N  so many requests, 100000 unless said; one in fifty is sent alone, and the database is looked at after it
  --seed N      the cases of an earlier run
  --only CASE   one case of it
  --workers N   so many connections to each program at once, 16 unless said
  --minutes N   stop after so long, whatever is left";

#[tokio::main]
async fn main() -> ExitCode {
    let Some(plan) = asked(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if !built() {
        eprintln!("cargo build failed");
        return ExitCode::from(2);
    }
    println!("seed {}", plan.seed);
    let usual = async {
        let system = System::usual().await;
        let mut tally = attack(&system.target, plan, None).await;
        let told = system.examine(&mut tally).await;
        (tally, told)
    };
    let alone = async {
        let system = System::quiet().await;
        let plan = Plan {
            requests: plan.requests / 50 + 1,
            ..plan
        };
        let mut tally = attack(&system.target, plan, Some(&system.database)).await;
        let told = system.examine(&mut tally).await;
        (tally, told)
    };
    let (usual, alone) = tokio::join!(usual, alone);
    println!("\n== at once");
    println!("{}\n{}", usual.0, usual.1.join("\n"));
    println!("\n== alone, with a look into the database after each refusal");
    println!("{}\n{}", alone.0, alone.1.join("\n"));
    let found = usual.0.found + alone.0.found;
    println!(
        "\n{} requests, {found} findings; again with --seed {}",
        usual.0.requests + alone.0.requests,
        plan.seed
    );
    if found == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn asked(mut arguments: impl Iterator<Item = String>) -> Option<Plan> {
    let mut plan = Plan {
        seed: clock::monotonic() % 1_000_000,
        requests: 100_000,
        only: None,
        within: None,
        workers: 16,
    };
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next()?.parse::<u64>().ok();
        match argument.as_str() {
            "--requests" => plan.requests = number()?,
            "--seed" => plan.seed = number()?,
            "--minutes" => plan.within = Some(std::time::Duration::from_secs(60 * number()?)),
            "--only" => plan.only = Some(number()?),
            "--workers" => plan.workers = usize::try_from(number()?).ok()?,
            _ => return None,
        }
    }
    Some(plan)
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
    command.args([
        "build",
        "--package",
        "control-plane",
        "--package",
        "runner",
        "--package",
        "opsctl",
        "--bins",
    ]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.status().is_ok_and(|status| status.success())
}
