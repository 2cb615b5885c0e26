//! Deliveries to endpoints: what was sent, how each attempt went, and what is to be sent again.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use service::{Caller, Json, OptionalJson, Problem, Query};

use super::views::{
    AttemptView, DeliveriesView, DeliveryView, ResendRequestView, ResentView, WholeDeliveryView,
};
use super::webhook_request::{
    DeliveriesRequest, NamedDelivery, NamedWebhook, ResendRequest, no_such_delivery,
    no_such_webhook,
};
use crate::app::{App, ask};

/// List an endpoint's deliveries, newest first, without what was sent.
#[utoipa::path(
    get,
    path = "/webhooks/{name}/deliveries",
    tag = "webhooks",
    params(
        ("name" = String, Path, description = "The endpoint"),
        ("state" = Option<String>, Query, description = "pending, delivered or dead"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "50 unless asked otherwise"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page", body = DeliveriesView), (status = 404, description = "No such webhook")),
)]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    NamedWebhook(name): NamedWebhook,
    Query(request): Query<DeliveriesRequest>,
) -> Result<Json<DeliveriesView>, Problem> {
    let page = app
        .store
        .deliveries(&name, request.state, request.cursor, request.limit);
    let page = ask(page).await?;
    if page.deliveries.is_empty() {
        // No row, or no endpoint: only reading again tells.
        ask(app.store.webhook(&name))
            .await?
            .ok_or_else(no_such_webhook)?;
    }
    Ok(Json(DeliveriesView {
        next_cursor: page.next.map(|id| id.to_string()),
        deliveries: page
            .deliveries
            .into_iter()
            .map(DeliveryView::from)
            .collect(),
    }))
}

/// Read a delivery: what is sent, letter for letter, and each attempt.
#[utoipa::path(
    get,
    path = "/webhooks/{name}/deliveries/{delivery_id}",
    tag = "webhooks",
    params(
        ("name" = String, Path, description = "The endpoint"),
        ("delivery_id" = Uuid, Path, description = "The delivery: the `webhook-id` that the receiver saw"),
    ),
    responses((status = 200, description = "The delivery", body = WholeDeliveryView), (status = 404, description = "No such delivery")),
)]
pub(crate) async fn delivery(
    State(app): State<Arc<App>>,
    NamedDelivery { name, id }: NamedDelivery,
) -> Result<Json<WholeDeliveryView>, Problem> {
    let found = ask(app.store.delivery(&name, id)).await?;
    let (delivery, attempts) = found.ok_or_else(no_such_delivery)?;
    Ok(Json(WholeDeliveryView {
        body: delivery.body.clone(),
        log: attempts.into_iter().map(AttemptView::from).collect(),
        delivery: DeliveryView::from(delivery),
    }))
}

/// Have a delivery sent again at once, under the same `webhook-id`, whatever became of it.
#[utoipa::path(
    post,
    path = "/webhooks/{name}/deliveries/{delivery_id}/resend",
    tag = "webhooks",
    params(
        ("name" = String, Path, description = "The endpoint"),
        ("delivery_id" = Uuid, Path, description = "The delivery"),
    ),
    responses((status = 202, description = "It will be sent", body = DeliveryView), (status = 404, description = "No such delivery")),
)]
pub(crate) async fn resend(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamedDelivery { name, id }: NamedDelivery,
    OptionalJson(()): OptionalJson<()>,
) -> Result<(StatusCode, Json<DeliveryView>), Problem> {
    // Of this endpoint, or of none.
    ask(app.store.delivery(&name, id))
        .await?
        .ok_or_else(no_such_delivery)?;
    ask(app.store.resend_delivery(id, &caller.key_id.to_string()))
        .await?
        .ok_or_else(no_such_delivery)?;
    let found = ask(app.store.delivery(&name, id)).await?;
    let (delivery, _) = found.ok_or_else(no_such_delivery)?;
    Ok((StatusCode::ACCEPTED, Json(delivery.into())))
}

/// Have everything sent again that was given up for an endpoint, of events since an instant.
#[utoipa::path(
    post,
    path = "/webhooks/{name}/resend",
    tag = "webhooks",
    params(("name" = String, Path, description = "The endpoint")),
    request_body = Option<ResendRequestView>,
    responses((status = 202, description = "So many will be sent", body = ResentView), (status = 404, description = "No such webhook")),
)]
pub(crate) async fn resend_dead(
    State(app): State<Arc<App>>,
    caller: Caller,
    NamedWebhook(name): NamedWebhook,
    OptionalJson(ResendRequest { since }): OptionalJson<ResendRequest>,
) -> Result<(StatusCode, Json<ResentView>), Problem> {
    let actor = caller.key_id.to_string();
    let resent = ask(app.store.resend_dead_deliveries(&name, since, &actor)).await?;
    let resent = resent.ok_or_else(no_such_webhook)?;
    Ok((StatusCode::ACCEPTED, Json(ResentView { resent })))
}
