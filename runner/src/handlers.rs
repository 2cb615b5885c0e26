//! Handlers: what runs an attempt of a job type. A user's are typed; the built-in and declared ones are made the same way.

pub(crate) mod command;
pub(crate) mod document;
pub(crate) mod http;
pub(crate) mod metrics_refresh;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jobs::{Backoff, OnLost, Outcome};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::context::Context;
use crate::error::JobError;

/// Runs the jobs of one type. Implement it with a plain `async fn run`.
///
/// An attempt may be cut off at any `await` when it overstays: see [`Context::cancelled`]. Work that blocks belongs in
/// `tokio::task::spawn_blocking`, which nobody can stop.
pub trait Handler: Send + Sync + 'static {
    /// What the job's payload is parsed into; a payload that does not fit fails the job for good.
    type Payload: DeserializeOwned + Send;
    /// What is kept as the job's result.
    type Output: Serialize;

    /// Runs one attempt.
    fn run(
        &self,
        context: &Context,
        payload: Self::Payload,
    ) -> impl Future<Output = Result<Self::Output, JobError>> + Send;
}

/// What holds for a job type where the caller of a job left it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub(crate) max_attempts: u16,
    pub(crate) timeout: Option<Duration>,
    pub(crate) concurrency: Option<u16>,
    pub(crate) on_lost: OnLost,
    pub(crate) backoff: Backoff,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            max_attempts: 1,
            timeout: None,
            concurrency: None,
            on_lost: OnLost::default(),
            backoff: Backoff::default(),
        }
    }
}

impl Terms {
    /// After so many attempts a failure is final; 1 to 1000.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u16) -> Self {
        self.max_attempts = attempts.clamp(1, 1000);
        self
    }

    /// An attempt is stopped after so long, in whole seconds, at least one.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit.max(Duration::from_secs(1)));
        self
    }

    /// At most so many run at once over the whole fleet; 1 to 1000.
    #[must_use]
    pub fn concurrency(mut self, jobs: u16) -> Self {
        self.concurrency = Some(jobs.clamp(1, 1000));
        self
    }

    /// A job whose runner was lost waits for a person instead of being run again.
    #[must_use]
    pub fn hold_lost(mut self) -> Self {
        self.on_lost = OnLost::Hold;
        self
    }

    /// A retry waits from nothing up to `base`, doubled after each further attempt, up to `cap`.
    #[must_use]
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        self.backoff = Backoff { base, cap };
        self
    }
}

/// The handlers that a program adds to the built-in and declared ones.
#[derive(Default)]
pub struct Handlers(pub(crate) Vec<Added>);

/// One of them; its name is checked at the start.
pub(crate) struct Added {
    pub(crate) job_type: String,
    pub(crate) terms: Terms,
    pub(crate) work: Arc<dyn Work>,
}

impl Handlers {
    /// Adds a handler for a job type.
    pub fn add(&mut self, job_type: &str, terms: Terms, handler: impl Handler) {
        self.0.push(Added {
            job_type: job_type.to_owned(),
            terms,
            work: Arc::new(handler),
        });
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|added| &added.job_type))
            .finish()
    }
}

/// A handler of any type, as the executor runs it.
pub(crate) trait Work: Send + Sync {
    fn work(
        self: Arc<Self>,
        context: Context,
        payload: Value,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;
}

impl<H: Handler> Work for H {
    fn work(
        self: Arc<Self>,
        context: Context,
        payload: Value,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        Box::pin(async move {
            let payload = match serde_json::from_value(payload) {
                Ok(payload) => payload,
                Err(error) => {
                    return Outcome::Failed(format!("payload does not fit the job type: {error}"));
                }
            };
            match self.run(&context, payload).await.map(serde_json::to_value) {
                Ok(Ok(result)) => Outcome::Succeeded(result),
                Ok(Err(error)) => Outcome::Failed(format!("result is not JSON: {error}")),
                Err(JobError::Retry(why)) => Outcome::Retry(why),
                Err(JobError::Fail(why)) => Outcome::Failed(why),
            }
        })
    }
}
