//! `GET /healthz`, `/livez`, `/readyz`, for anyone: whether the process serves, and whether its database is fit to work on.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use jobs::{SchemaStatus, StoreError};
use service::{AppEnv, Readiness};

use crate::app::App;
use crate::error::chain;

/// Whoever asks whether the service is ready wants to hear it soon.
const DEADLINE: Duration = Duration::from_millis(2500);

/// Hear whether the process serves.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "It does")))]
pub(crate) async fn healthz() -> Readiness {
    Readiness::Ready
}

/// Hear whether the process serves.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "It does")))]
pub(crate) async fn livez() -> Readiness {
    Readiness::Ready
}

/// Hear whether the service can work: its database answers and has the expected schema.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses(
        (status = 200, description = "It can"),
        (status = 503, description = "It cannot; `failed` says which part"),
    ),
)]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Readiness {
    if app.leaving.is_requested() {
        return Readiness::NotReady {
            part: "draining",
            detail: "The program is stopping; another copy has the requests.".to_owned(),
        };
    }
    match tokio::time::timeout(DEADLINE, fitness(&app)).await {
        Ok(Ok(readiness)) => readiness,
        Ok(Err(error)) => {
            tracing::warn!(event = "not_ready", error = %chain(&error));
            no_database()
        }
        Err(_) => {
            tracing::warn!(
                event = "not_ready",
                cause = "the database did not answer in time"
            );
            no_database()
        }
    }
}

/// In production, also whether what the database acknowledges stays.
async fn fitness(app: &App) -> Result<Readiness, StoreError> {
    let readiness = readiness(&app.store.schema_status().await?);
    if readiness != Readiness::Ready || app.config.shared.app_env != AppEnv::Prod {
        return Ok(readiness);
    }
    let dangers = app.store.dangers().await?;
    if dangers.is_empty() {
        return Ok(readiness);
    }
    Ok(Readiness::NotReady {
        part: "durability",
        detail: format!(
            "The database may lose what it acknowledged: {}.",
            dangers.join("; ")
        ),
    })
}

fn readiness(schema: &SchemaStatus) -> Readiness {
    if schema.is_expected() {
        return Readiness::Ready;
    }
    Readiness::NotReady {
        part: "schema",
        detail: format!(
            "The database's schema is at version {}, this program needs version {}: run `opsctl db migrate`, or the release that fits.",
            schema.current, schema.expected
        ),
    }
}

fn no_database() -> Readiness {
    Readiness::NotReady {
        part: "database",
        detail: "The database does not answer.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_schema_is_ready() {
        let schema = |current| SchemaStatus {
            current,
            expected: 3,
            migrations: Vec::new(),
        };
        assert_eq!(readiness(&schema(3)), Readiness::Ready);
        for other in [0, 2, 4] {
            assert!(
                matches!(
                    readiness(&schema(other)),
                    Readiness::NotReady { part: "schema", .. }
                ),
                "{other}"
            );
        }
    }
}
