//! The built-in job type `metrics_refresh`: rolls the events up into `ops_metrics`. The SQL is the store's.

use jobs::{Rollup, Store, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Handler;
use crate::context::Context;
use crate::error::JobError;

pub(crate) const NAME: &str = "metrics_refresh";

/// Rolls up the last hours.
#[derive(Debug)]
pub(crate) struct MetricsRefresh {
    pub(crate) store: Store,
}

/// Its payload, which [`schema`] describes.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Payload {
    hours: i32,
}

impl Default for Payload {
    fn default() -> Self {
        Self { hours: 2 }
    }
}

/// What a payload must look like.
pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "hours": { "type": "integer", "minimum": 1, "maximum": 744, "default": 2 },
        },
        "additionalProperties": false,
    })
}

impl Handler for MetricsRefresh {
    type Payload = Payload;
    type Output = Rollup;

    async fn run(&self, _context: &Context, payload: Payload) -> Result<Rollup, JobError> {
        match self.store.refresh_metrics(payload.hours).await {
            Ok(rollup) => Ok(rollup),
            Err(error @ StoreError::Unavailable(_)) => Err(JobError::retry(error)),
            Err(error) => Err(JobError::fail(error)),
        }
    }
}
