//! The API's description, made from the handlers themselves. Describes; serves nothing.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::Value;
use service::problem::ProblemDocument;
use service::{FieldError, Scope};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Content, OpenApi as Document, Ref, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::needs::Needs;
use super::{BASE, GATES, LINK, closed_paths, is_there, routes};
use crate::config::Config;

/// What lies below the base.
#[derive(OpenApi)]
#[openapi(
    paths(
        super::submit::submit,
        super::list::list,
        super::batch::submit_batch,
        super::job::job,
        super::why::why,
        super::job::events,
        super::log::log,
        super::stream::events,
        super::stream::log,
        super::artifacts::list,
        super::artifacts::download,
        super::artifacts::zip,
        super::job::abort,
        super::job::retry,
        super::job::resume,
        super::gates::open,
        super::gates::gates,
        super::gates::approve,
        super::gates::reject,
        super::links::make,
        super::replay::replay,
        super::trigger::trigger_runner,
        super::tick::tick,
        super::fleet::fleet,
        super::fleet::pause,
        super::fleet::resume,
        super::fleet::runners,
        super::fleet::drain,
        super::fleet::undrain,
        super::fleet::forget,
        super::keys::list,
        super::keys::create,
        super::keys::revoke,
        super::schedules::list,
        super::schedules::create,
        super::schedules::preview,
        super::schedules::schedule,
        super::schedules::change,
        super::schedules::delete,
        super::schedules::fire,
        super::schedules::pause,
        super::schedules::resume,
        super::schedules::fires,
        super::schedules::next,
        super::health_metrics::health_metrics,
        super::metrics::metrics,
        super::webhooks::list,
        super::webhooks::create,
        super::webhooks::webhook,
        super::webhooks::change,
        super::webhooks::delete,
        super::webhooks::enable,
        super::webhooks::disable,
        super::webhooks::rotate,
        super::webhooks::ping,
        super::deliveries::resend_dead,
        super::deliveries::list,
        super::deliveries::delivery,
        super::deliveries::resend,
        super::notion::health,
        super::notion::retry,
        super::meta::meta,
        super::debug_env::debug_env,
        super::docs::openapi_json,
        super::docs::docs,
    ),
    components(schemas(ProblemDocument, FieldError)),
    modifiers(&EveryOpsRoute),
)]
struct Ops;

/// What lies beside it.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ops-jobs control plane",
        description = "Records jobs, answers questions about them, and nudges the runner. \
            Every path below `/api/v1/ops` is also there below `/api/ops`. Times are RFC 3339 UTC, ids UUIDv7. \
            Which paths are there depends on the feature flags. The role that stands with a path's security is the scope that a \
            key needs for it: `read`, `enqueue`, `operate` or `admin`, each of which opens also what those before it do; the \
            keys of `OPS_API_KEY` are `admin`.",
    ),
    paths(
        super::health::healthz,
        super::health::livez,
        super::health::readyz,
        super::links::show,
        super::links::decide,
    )
)]
struct Root;

/// The description of every route there is, whatever the flags say: for the documentation.
pub fn openapi() -> Value {
    json_of(&document())
}

/// The description that is served: without the routes that are not there.
pub(crate) fn served(config: &Config) -> Value {
    let mut document = document();
    for path in closed_paths(config) {
        document
            .paths
            .paths
            .remove(&format!("{BASE}{}", path.replace("{*", "{")));
    }
    if !is_there(GATES, config) {
        document.paths.paths.remove(LINK);
    }
    json_of(&document)
}

fn document() -> Document {
    Root::openapi().nest(BASE, Ops::openapi())
}

fn json_of(document: &Document) -> Value {
    // Text, numbers and maps with text keys always serialise.
    serde_json::to_value(document).unwrap_or_default()
}

/// What every route below the base has: a key before anything else, and problems as errors.
struct EveryOpsRoute;

impl Modify for EveryOpsRoute {
    fn modify(&self, document: &mut Document) {
        if let Some(components) = &mut document.components {
            let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-Ops-Key")));
            components.add_security_scheme("ops_key", key);
            components.add_security_scheme(
                "bearer",
                SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
            );
        }
        let needs: BTreeMap<String, Needs> = routes()
            .into_iter()
            .map(|(path, _, needs, _)| (path.replace("{*", "{"), needs))
            .collect();
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in [
                (Method::GET, &mut item.get),
                (Method::POST, &mut item.post),
                (Method::PUT, &mut item.put),
                (Method::DELETE, &mut item.delete),
            ] {
                // A path that is not in the table is not served; a test finds it.
                if let (Some(operation), Some(needs)) = (operation, needs.get(path)) {
                    complete(operation, needs.of(&method));
                }
            }
        }
    }
}

fn complete(operation: &mut Operation, needed: Scope) {
    let role = [needed.as_str()];
    operation.security = Some(vec![
        SecurityRequirement::new("ops_key", role),
        SecurityRequirement::new("bearer", role),
    ]);
    let responses = &mut operation.responses.responses;
    responses.insert(
        "401".to_owned(),
        problem("Invalid or missing X-Ops-Key").into(),
    );
    if needed != Scope::Read && !responses.contains_key("403") {
        let text = format!("The key has not the scope `{needed}`");
        responses.insert("403".to_owned(), problem(&text).into());
    }
    responses.insert("default".to_owned(), problem("Any other error").into());
    for (status, response) in responses.iter_mut() {
        let is_error = status.starts_with(['4', '5']);
        if let (true, utoipa::openapi::RefOr::T(response)) = (is_error, response)
            && response.content.is_empty()
        {
            *response = problem(&response.description);
        }
    }
}

/// An error, described by the schema that all errors have.
fn problem(description: &str) -> Response {
    let schema = Ref::from_schema_name("ProblemDocument");
    ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", Content::new(Some(schema)))
        .build()
}
