//! A runner with a handler of its own: `cargo run -p runner --example typed_handler`, with the runner's usual settings
//! and `RUNNER_ALLOWLIST=warm_cache`. A job to try it: `{"job_type": "warm_cache", "payload": {"pages": ["a", "b"]}}`.

use std::process::ExitCode;
use std::time::Duration;

use runner::{Context, Handler, JobError, Runner, Terms};
use serde::{Deserialize, Serialize};

/// Warms the pages of a cache, one after the other.
struct WarmCache;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pages {
    pages: Vec<String>,
}

#[derive(Serialize)]
struct Warmed {
    warmed: usize,
}

impl Handler for WarmCache {
    type Payload = Pages;
    type Output = Warmed;

    async fn run(&self, context: &Context, Pages { pages }: Pages) -> Result<Warmed, JobError> {
        if pages.is_empty() {
            return Err(JobError::fail("there is no page to warm"));
        }
        for (done, page) in (0_u32..).zip(&pages) {
            context.log(&format!("warming {page}"));
            context
                .progress(f64::from(done) / pages.len() as f64, page)
                .await?;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
                () = context.cancelled() => return Err(JobError::retry("cancelled")),
            }
        }
        Ok(Warmed {
            warmed: pages.len(),
        })
    }
}

fn main() -> ExitCode {
    let terms = Terms::default()
        .max_attempts(3)
        .timeout(Duration::from_secs(60));
    Runner::builder()
        .handler_with("warm_cache", terms, WarmCache)
        .run()
}
