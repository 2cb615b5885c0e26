//! The product's runner, as a library in this process, with a handler that does nothing but count.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use runner::{Context, Handler, Handlers, JobError, RunningRunner, Terms};
use serde_json::Value;
use service::{Environment, Sources};
use tokio::sync::{Notify, mpsc};

use crate::Result;
use crate::seed::NOOP;

/// The token between our control plane and our runner.
pub const TOKEN: &str = "bench-runner-token";
/// A job type beside the load, whose latency is taken.
pub const PROBE: &str = "probe";

/// What the handlers have seen.
#[derive(Debug)]
pub struct Seen {
    /// Jobs that were run.
    pub count: AtomicU64,
    target: AtomicU64,
    reached: Notify,
    begun: Option<mpsc::UnboundedSender<Instant>>,
}

impl Seen {
    fn hit(&self) {
        if let Some(begun) = &self.begun {
            let _ = begun.send(Instant::now());
        }
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if count >= self.target.load(Ordering::Relaxed) {
            self.reached.notify_one();
        }
    }

    /// Ends when so many jobs have been run.
    pub async fn reaches(&self, target: u64) {
        self.target.store(target, Ordering::Relaxed);
        while self.count.load(Ordering::Relaxed) < target {
            self.reached.notified().await;
        }
    }
}

struct Noop(Arc<Seen>);

impl Handler for Noop {
    type Payload = Value;
    type Output = Value;

    async fn run(
        &self,
        _context: &Context,
        _payload: Value,
    ) -> std::result::Result<Value, JobError> {
        self.0.hit();
        Ok(Value::Null)
    }
}

/// A runner at work.
#[derive(Debug)]
pub struct NoopRunner {
    running: RunningRunner,
    /// What the handler of [`NOOP`] has seen.
    pub seen: Arc<Seen>,
    /// When each job of [`PROBE`] began.
    pub probes: mpsc::UnboundedReceiver<Instant>,
}

impl NoopRunner {
    /// Starts a runner with these settings beside the usual ones; it works when this returns.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(url: &str, settings: &[(&str, &str)], file: Option<&Path>) -> Result<Self> {
        let (tell, probes) = mpsc::unbounded_channel();
        let seen = |begun| {
            Arc::new(Seen {
                count: AtomicU64::new(0),
                target: AtomicU64::new(u64::MAX),
                reached: Notify::new(),
                begun,
            })
        };
        let (counted, timed) = (seen(None), seen(Some(tell)));
        let mut handlers = Handlers::default();
        handlers.add(NOOP, Terms::default(), Noop(Arc::clone(&counted)));
        handlers.add(PROBE, Terms::default(), Noop(timed));
        let usual = [
            ("APP_ENV", "test"),
            ("DATABASE_URL", url),
            ("RUNNER_TOKEN", TOKEN),
            ("RUNNER_BIND", "127.0.0.1:0"),
            ("RUNNER_ALLOWLIST", "noop,probe,true"),
            ("RUNNER_CONCURRENCY", "2000"),
            ("RUNNER_DRAIN_SECONDS", "0"),
        ];
        let environment = usual.into_iter().chain(settings.iter().copied());
        let config = runner::Config::load(Sources {
            config: file.map(Path::to_path_buf),
            environment: Environment::from_pairs(environment),
        })?;
        Ok(Self {
            running: runner::start(config, handlers).await?,
            seen: counted,
            probes,
        })
    }

    /// Its address for triggers.
    pub fn url(&self) -> &str {
        self.running.url()
    }

    /// Ends it.
    ///
    /// # Errors
    /// When a part of it had failed.
    pub async fn stop(self) -> Result<()> {
        self.running.stop();
        Ok(self.running.join().await?)
    }
}
