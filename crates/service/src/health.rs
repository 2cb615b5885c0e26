//! Whether the process lives and whether it is ready. Looks at nothing itself.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::problem::Problem;

/// Whether a service can do its work, and if not, which part of it cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// This part of it cannot.
    NotReady {
        /// The part, for example `database`.
        part: &'static str,
        /// What is the matter and what to do, fit for a stranger's eyes.
        detail: String,
    },
}

impl IntoResponse for Readiness {
    fn into_response(self) -> Response {
        match self {
            Self::Ready => Json(json!({"status": "ok"})).into_response(),
            Self::NotReady { part, detail } => Problem::unavailable(detail, Duration::from_secs(1))
                .with_code("not-ready", "Not ready")
                .with_member("failed", part)
                .into_response(),
        }
    }
}

/// `GET /healthz` and `GET /livez`, which answer 200 while the process serves.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/healthz", get(alive))
        .route("/livez", get(alive))
}

async fn alive() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn readiness_names_the_part_that_fails() {
        assert_eq!(Readiness::Ready.into_response().status(), StatusCode::OK);
        let failed = Readiness::NotReady {
            part: "database",
            detail: "It does not answer.".to_owned(),
        };
        let response = failed.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let problem = response.extensions().get::<Problem>().expect("a problem");
        assert_eq!(problem.document().members["failed"], "database");
    }
}
