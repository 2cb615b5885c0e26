//! `/keys`: keys that are kept as digests, with what each opens. No key itself ever comes here but as the caller's own.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use jobs::NewApiKey;
use service::{Caller, Fields, Json, OptionalJson, Parse, Path, Problem, Scope, read};

use super::views::{KeyRequestView, KeyView, KeysView};
use crate::app::{App, ask};

/// Ten years, in seconds.
const LONGEST: i32 = 315_360_000;

/// A key that is to be kept.
#[derive(Debug)]
pub(crate) struct KeyRequest {
    name: String,
    scope: Scope,
    digest: [u8; 32],
    lasts_seconds: Option<i32>,
}

impl Parse for KeyRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.required("name", read::text_as(name));
        let scope = fields.required("scope", read::text_as(|text| text.parse::<Scope>()));
        let digest = fields.required("digest", read::text_as(digest));
        let lasts_seconds = fields.optional("expires_in_seconds", read::integer_within(1, LONGEST));
        Some(Self {
            name: name?,
            scope: scope?,
            digest: digest?,
            lasts_seconds,
        })
    }
}

fn name(text: &str) -> Result<String, String> {
    let fits = (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits {
        Ok(text.to_owned())
    } else {
        Err("must have 1 to 100 characters, none of them a control character".to_owned())
    }
}

fn digest(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "must be the SHA-256 of the key, in 64 lower-case hexadecimal digits".to_owned();
    let is_lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 64 || !text.bytes().all(is_lower) {
        return Err(wrong());
    }
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}

/// List the keys that are kept, the newest first, and how many callers showed none or a wrong one.
///
/// The keys of `OPS_API_KEY` are not among them: they stand in the settings alone, and are `admin`.
#[utoipa::path(
    get,
    path = "/keys",
    tag = "keys",
    responses((status = 200, description = "The keys", body = KeysView)),
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Json<KeysView>, Problem> {
    let keys = ask(app.store.api_keys()).await?;
    Ok(Json(KeysView {
        keys: keys.into_iter().map(KeyView::from).collect(),
        failed_authentications: app.guard.failures().into(),
    }))
}

/// Keep a key, by its digest: whoever bears it may then do what its scope allows.
///
/// The key is made by whoever asks: `opsd_` and 64 lower-case hexadecimal digits from a good source of randomness, as
/// `opsctl keys new` makes it. Only its SHA-256 is sent.
#[utoipa::path(
    post,
    path = "/keys",
    tag = "keys",
    request_body = KeyRequestView,
    responses(
        (status = 201, description = "Kept", body = KeyView),
        (status = 422, description = "A field is wrong, or the key is kept already"),
    ),
)]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(request): Json<KeyRequest>,
) -> Result<(StatusCode, Json<KeyView>), Problem> {
    let new = NewApiKey {
        name: &request.name,
        digest: &request.digest,
        scope: request.scope.as_str(),
        lasts_seconds: request.lasts_seconds,
    };
    let key = ask(app.store.add_api_key(new, &caller.key_id.to_string())).await?;
    tracing::info!(event = "key_made", key = key.id, scope = key.scope, actor = %caller.key_id);
    Ok((StatusCode::CREATED, Json(key.into())))
}

/// Revoke a key for good. Other copies of the control plane may accept it for 5 seconds more.
#[utoipa::path(
    post,
    path = "/keys/{id}/revoke",
    tag = "keys",
    params(("id" = String, Path, description = "What events name it by, for example `key:ba7816bf`")),
    responses(
        (status = 200, description = "Revoked, now or before", body = KeyView),
        (status = 404, description = "No such key is kept"),
    ),
)]
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    OptionalJson(()): OptionalJson<()>,
) -> Result<Json<KeyView>, Problem> {
    let key = ask(app.store.revoke_api_key(&id, &caller.key_id.to_string())).await?;
    let key = key.ok_or_else(|| {
        Problem::not_found(
            "No such key is kept; those of OPS_API_KEY are taken out of the settings.",
        )
    })?;
    app.keys.forget_all();
    tracing::info!(event = "key_revoked", key = key.id, actor = %caller.key_id);
    Ok(Json(key.into()))
}
