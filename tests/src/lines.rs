//! Measuring what it costs a command that it is a job: the same command with its output read and thrown away, and as a
//! job whose output is kept.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::program::Start;
use crate::system::System;

/// How long a command takes.
#[derive(Clone, Debug)]
pub struct LineFigures {
    /// By itself, into a pipe that is read, in milliseconds, a run each.
    pub bare: Vec<f64>,
    /// As a job, from its claim to its recorded end, in milliseconds, a run each.
    pub as_job: Vec<f64>,
    /// How many lines are stored of the last one, remarks not counted.
    pub stored: usize,
    /// How many lines are said to be left out.
    pub left_out: u64,
}

/// Runs a line of shell so often each way, in turns, at a real runner. Each line that it prints must be the number of
/// that line.
pub async fn lines(script: &str, runs: usize) -> LineFigures {
    let system = System::builder()
        .runners(0)
        .shell("numbers", script, "")
        .start()
        .await;
    let mut runner = Start::of("runner")
        .arguments(&["--config", &system.runner_file().display().to_string()])
        .environment(system.environment())
        .start();
    runner.address().await;
    let mut figures = LineFigures {
        bare: Vec::new(),
        as_job: Vec::new(),
        stored: 0,
        left_out: 0,
    };
    for _ in 0..runs {
        figures.bare.push(bare(script));
        let job = system
            .run_until(&json!({"job_type": "numbers"}), "succeeded")
            .await;
        let id = job["id"].as_str().expect("an id").to_owned();
        let ran: f64 = sqlx::query_scalar(
            "select extract(epoch from finished_at - started_at)::float8 * 1000 from ops_jobs where id = $1::uuid",
        )
        .bind(&id)
        .fetch_one(&system.database.psql)
        .await
        .expect("its times");
        figures.as_job.push(ran);
        (figures.stored, figures.left_out) = check(&system.log(&id).await);
    }
    runner.terminate();
    assert_eq!(runner.exit_code().await, 0);
    system.stop().await;
    figures
}

/// Every line that is there must be in its place.
fn check(log: &str) -> (usize, u64) {
    let (mut next, mut stored, mut left_out) = (1_u64, 0, 0);
    for line in log.lines() {
        if let Some(remark) = line.strip_prefix("[output cut here: ") {
            let number = remark
                .split(' ')
                .next()
                .and_then(|number| number.parse().ok());
            left_out = number.expect("how many lines");
            next += left_out;
        } else {
            assert_eq!(line.parse(), Ok(next), "a line is in its place");
            next += 1;
            stored += 1;
        }
    }
    (stored, left_out)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command by itself, to compare with"
)]
fn bare(script: &str) -> f64 {
    let begun = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut pipe = child.stdout.take().expect("its output");
    std::io::copy(&mut pipe, &mut std::io::sink()).expect("all of it");
    assert!(child.wait().expect("its end").success());
    let took: Duration = begun.elapsed();
    took.as_secs_f64() * 1000.0
}
