//! Webhooks: endpoints made, changed, switched, tried and removed. Their secrets never pass here: who has the key derives them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jobs::{Webhook, WebhookChanged, WebhookTerms};
use service::{Caller, FieldError, Json, OptionalJson, Problem, Query};

use super::BASE;
use super::job::Reason;
use super::schedule_request::if_match;
use super::views::{
    PingView, ReasonView, RotateRequestView, WebhookRequestView, WebhookView, WebhooksView,
};
use super::webhook_request::{
    NamedWebhook, RotateRequest, WebhookRequest, WebhooksRequest, no_such_webhook,
};
use crate::app::{App, ask};

/// The endpoint with its revision as its `ETag`.
fn answer(status: StatusCode, webhook: Webhook) -> Response {
    let tag = HeaderValue::from_str(&format!("\"{}\"", webhook.revision));
    let mut response = (status, Json(WebhookView::from(webhook))).into_response();
    if let Ok(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// What is written in an address is checked at once; what its name leads to, whenever it is called.
fn check_address(app: &App, terms: &WebhookTerms) -> Result<(), Problem> {
    match app.webhooks.egress().check(&terms.url) {
        Ok(_) => Ok(()),
        Err(why) => Err(Problem::invalid_fields(vec![FieldError::new(
            "/url",
            why.to_string(),
        )])),
    }
}

/// List endpoints by name.
#[utoipa::path(
    get,
    path = "/webhooks",
    tag = "webhooks",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "50 unless asked otherwise"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page", body = WebhooksView)),
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Query(WebhooksRequest { limit, cursor }): Query<WebhooksRequest>,
) -> Result<Json<WebhooksView>, Problem> {
    let after = cursor.map(String::from).unwrap_or_default();
    let page = ask(app.store.webhooks(&after, limit)).await?;
    Ok(Json(WebhooksView {
        next_cursor: page.next.map(String::from),
        webhooks: page.webhooks.into_iter().map(WebhookView::from).collect(),
    }))
}

/// Make an endpoint, which is told of events of jobs from now on. `opsctl webhooks secret` tells what to verify its
/// deliveries with.
#[utoipa::path(
    post,
    path = "/webhooks",
    tag = "webhooks",
    request_body = WebhookRequestView,
    responses(
        (status = 201, description = "Made", body = WebhookView, headers(("Location" = String, description = "Where it is"), ("ETag" = String, description = "Its revision"))),
        (status = 409, description = "There is one of this name"),
    ),
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(request): Json<WebhookRequest>,
) -> Result<Response, Problem> {
    let Some(name) = request.name else {
        return Err(Problem::invalid_fields(vec![FieldError::new(
            "/name",
            "is required",
        )]));
    };
    if request.revision.is_some() {
        let why = "is for changes: a new endpoint has none yet";
        return Err(Problem::invalid_fields(vec![FieldError::new(
            "/revision",
            why,
        )]));
    }
    check_address(&app, &request.terms)?;
    let enabled = request.enabled.unwrap_or(true);
    let actor = caller.key_id.to_string();
    let made = ask(app
        .store
        .create_webhook(&name, &request.terms, enabled, &actor))
    .await?;
    let made = made.ok_or_else(|| {
        Problem::conflict(format!(
            "There is a webhook of this name: change it with PUT {BASE}/webhooks/{name}, or choose another name."
        ))
    })?;
    let mut response = answer(StatusCode::CREATED, made);
    if let Ok(location) = HeaderValue::from_str(&format!("{BASE}/webhooks/{name}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Read an endpoint.
#[utoipa::path(
    get,
    path = "/webhooks/{name}",
    tag = "webhooks",
    params(("name" = String, Path, description = "The endpoint")),
    responses(
        (status = 200, description = "The endpoint", body = WebhookView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "No such webhook"),
    ),
)]
pub(crate) async fn webhook(
    State(app): State<Arc<App>>,
    NamedWebhook(name): NamedWebhook,
) -> Result<Response, Problem> {
    let webhook = ask(app.store.webhook(&name)).await?;
    Ok(answer(StatusCode::OK, webhook.ok_or_else(no_such_webhook)?))
}

/// Change an endpoint: all of it, what is left out gets its default; but `enabled` stays as it is unless it is sent.
///
/// With `If-Match` (the ETag) or `revision`, only where nobody has changed it since. What waits goes to the new address.
#[utoipa::path(
    put,
    path = "/webhooks/{name}",
    tag = "webhooks",
    params(
        ("name" = String, Path, description = "The endpoint"),
        ("If-Match" = Option<String>, Header, description = "The ETag that it came with"),
    ),
    request_body = WebhookRequestView,
    responses(
        (status = 200, description = "Changed", body = WebhookView, headers(("ETag" = String, description = "Its new revision"))),
        (status = 404, description = "No such webhook"),
        (status = 409, description = "It has changed since the revision in the body"),
        (status = 412, description = "It has changed since the ETag in If-Match"),
    ),
)]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamedWebhook(name): NamedWebhook,
    headers: HeaderMap,
    Json(request): Json<WebhookRequest>,
) -> Result<Response, Problem> {
    let tag = if_match(&headers)?;
    if request.name.as_ref().is_some_and(|other| *other != name) {
        let why = "must be the name in the path: a webhook keeps its name";
        return Err(Problem::invalid_fields(vec![FieldError::new("/name", why)]));
    }
    check_address(&app, &request.terms)?;
    let actor = caller.key_id.to_string();
    let revision = tag.or(request.revision);
    let changed =
        app.store
            .change_webhook(&name, &request.terms, request.enabled, revision, &actor);
    match ask(changed).await?.ok_or_else(no_such_webhook)? {
        WebhookChanged::Yes(webhook) => Ok(answer(StatusCode::OK, *webhook)),
        WebhookChanged::Outdated(revision) => {
            let detail =
                "The webhook has changed meanwhile: read it again, and change what is there now.";
            let problem = match tag {
                Some(_) => Problem::precondition_failed(detail),
                None => Problem::conflict(detail),
            };
            Err(problem.with_member("revision", revision))
        }
    }
}

/// Remove an endpoint with its deliveries: what waits is not sent.
#[utoipa::path(
    delete,
    path = "/webhooks/{name}",
    tag = "webhooks",
    params(("name" = String, Path, description = "The endpoint")),
    responses((status = 204, description = "Removed"), (status = 404, description = "No such webhook")),
)]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    NamedWebhook(name): NamedWebhook,
) -> Result<StatusCode, Problem> {
    let deleted = ask(app.store.delete_webhook(&name)).await?;
    deleted
        .then_some(StatusCode::NO_CONTENT)
        .ok_or_else(no_such_webhook)
}

/// Switch an endpoint on; what still waits for it is sent.
#[utoipa::path(
    post,
    path = "/webhooks/{name}/enable",
    tag = "webhooks",
    params(("name" = String, Path, description = "The endpoint")),
    responses((status = 200, description = "It is on", body = WebhookView), (status = 404, description = "No such webhook")),
)]
pub(crate) async fn enable(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamedWebhook(name): NamedWebhook,
    OptionalJson(()): OptionalJson<()>,
) -> Result<Response, Problem> {
    let actor = caller.key_id.to_string();
    let enabled = ask(app.store.enable_webhook(&name, &actor)).await?;
    Ok(answer(StatusCode::OK, enabled.ok_or_else(no_such_webhook)?))
}

/// Switch an endpoint off, with who and why: it is told of nothing that happens meanwhile, and what waits is not sent.
#[utoipa::path(
    post,
    path = "/webhooks/{name}/disable",
    tag = "webhooks",
    params(("name" = String, Path, description = "The endpoint")),
    request_body = Option<ReasonView>,
    responses((status = 200, description = "It is off", body = WebhookView), (status = 404, description = "No such webhook")),
)]
pub(crate) async fn disable(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamedWebhook(name): NamedWebhook,
    OptionalJson(Reason(reason)): OptionalJson<Reason>,
) -> Result<Response, Problem> {
    let actor = caller.key_id.to_string();
    let disabled = ask(app.store.disable_webhook(&name, &actor, reason.as_deref())).await?;
    Ok(answer(
        StatusCode::OK,
        disabled.ok_or_else(no_such_webhook)?,
    ))
}

/// Give an endpoint another secret. For `overlap_seconds` deliveries are signed with the old one too, so that receivers can
/// change when they like.
#[utoipa::path(
    post,
    path = "/webhooks/{name}/rotate",
    tag = "webhooks",
    params(("name" = String, Path, description = "The endpoint")),
    request_body = Option<RotateRequestView>,
    responses((status = 200, description = "Rotated", body = WebhookView), (status = 404, description = "No such webhook")),
)]
pub(crate) async fn rotate(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamedWebhook(name): NamedWebhook,
    OptionalJson(RotateRequest { overlap_seconds }): OptionalJson<RotateRequest>,
) -> Result<Response, Problem> {
    let actor = caller.key_id.to_string();
    let rotated = ask(app.store.rotate_webhook(&name, overlap_seconds, &actor)).await?;
    Ok(answer(StatusCode::OK, rotated.ok_or_else(no_such_webhook)?))
}

/// Have a trial sent to an endpoint, of the type `webhook.ping`.
#[utoipa::path(
    post,
    path = "/webhooks/{name}/ping",
    tag = "webhooks",
    params(("name" = String, Path, description = "The endpoint")),
    responses((status = 202, description = "It will be sent", body = PingView), (status = 404, description = "No such webhook")),
)]
pub(crate) async fn ping(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamedWebhook(name): NamedWebhook,
    OptionalJson(()): OptionalJson<()>,
) -> Result<(StatusCode, Json<PingView>), Problem> {
    let actor = caller.key_id.to_string();
    let pinged = ask(app.store.ping_webhook(&name, &actor)).await?;
    let delivery_id = pinged.ok_or_else(no_such_webhook)?;
    Ok((StatusCode::ACCEPTED, Json(PingView { delivery_id })))
}
