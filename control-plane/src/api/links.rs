//! Signed links for mail and chat: made with a key, opened without one. Opening one only shows it; its button decides,
//! because programs that look at mail open every link.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use jobs::{Decision, Gate};
use service::{Caller, Fields, Json, OptionalJson, Parse, Path, Problem, read};

use super::gates::{self, DecisionBody, GateName};
use super::views::{LinkView, LinksRequestView, LinksView};
use crate::app::{App, ask};
use crate::gate_links::Grant;

/// A month, in seconds.
const LONGEST: i32 = 2_592_000;
const USUAL: i32 = 86_400;

/// What a page that decides may do: post its own form, and nothing else.
const POLICY: &str =
    "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// How long links are to be good for.
#[derive(Debug)]
pub(crate) struct LinksRequest {
    expires_in_seconds: i32,
}

impl Parse for LinksRequest {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let seconds = fields.optional("expires_in_seconds", read::integer_within(1, LONGEST));
        Some(Self {
            expires_in_seconds: seconds.unwrap_or(USUAL),
        })
    }
}

/// Make links that decide an open gate once, one for each decision: for a mail or a chat.
///
/// They hold for this gate, at this revision and with this document only, and for so long only. Whoever opens one needs no
/// key: it counts as a decision of the key that asked for it.
#[utoipa::path(
    post,
    path = "/jobs/{id}/gates/{name}/links",
    tag = "gates",
    params(("id" = uuid::Uuid, Path, description = "The job"), ("name" = String, Path, description = "The gate, by its stage")),
    request_body = Option<LinksRequestView>,
    responses(
        (status = 200, description = "The links", body = LinksView),
        (status = 404, description = "No such job, or it has not reached such a gate"),
        (status = 409, description = "The gate is decided"),
    ),
)]
pub(crate) async fn make(
    State(app): State<Arc<App>>,
    caller: Caller,
    GateName(id, name): GateName,
    OptionalJson(LinksRequest { expires_in_seconds }): OptionalJson<LinksRequest>,
) -> Result<Json<LinksView>, Problem> {
    let gate = gates::gate(&app, id, &name).await?;
    if gate.decided_at.is_some() {
        return Err(gates::decided_before(gate));
    }
    let lasts = Duration::from_secs(u64::from(expires_in_seconds.unsigned_abs()));
    let expires_at = ask(app.store.now()).await? + lasts;
    let link = |decision: Decision| {
        let token = app.links.sign(&Grant {
            job_id: id,
            name: gate.name.clone(),
            revision: gate.revision,
            document_hash: gate.document_hash.clone(),
            decision,
            issuer: caller.key_id.to_string(),
            expires_at: expires_at.unix_timestamp(),
        });
        LinkView {
            decision: decision.as_str(),
            path: format!("/gates/{token}"),
            expires_at,
        }
    };
    Ok(Json(LinksView {
        links: vec![link(Decision::Approve), link(Decision::Reject)],
    }))
}

/// Show what a signed link would decide. Decides nothing.
#[utoipa::path(
    get,
    path = "/gates/{token}",
    tag = "gates",
    params(("token" = String, Path, description = "The signed part of the link")),
    responses(
        (status = 200, description = "A page with one button", body = String, content_type = "text/html; charset=utf-8"),
        (status = 404, description = "Not a link of this service"),
        (status = 409, description = "The gate is decided, or shows something else by now"),
        (status = 410, description = "The link has expired"),
    ),
)]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Path(token): Path<String>,
) -> Result<Response, Problem> {
    let grant = grant(&app, &token).await?;
    let gate = gates::gate(&app, grant.job_id, &grant.name).await?;
    if gate.decided_at.is_some() {
        return Err(gates::decided_before(gate));
    }
    if gate.revision != grant.revision {
        return Err(Problem::conflict(
            "The gate shows something else by now; ask for a new link.",
        ));
    }
    Ok(page(&question(&grant, &gate)))
}

/// Decide the gate that a signed link is for.
#[utoipa::path(
    post,
    path = "/gates/{token}",
    tag = "gates",
    params(("token" = String, Path, description = "The signed part of the link")),
    responses(
        (status = 200, description = "Decided", body = String, content_type = "text/html; charset=utf-8"),
        (status = 404, description = "Not a link of this service"),
        (status = 409, description = "The gate was decided before, or shows something else by now"),
        (status = 410, description = "The link has expired"),
    ),
)]
pub(crate) async fn decide(
    State(app): State<Arc<App>>,
    Path(token): Path<String>,
) -> Result<Response, Problem> {
    let grant = grant(&app, &token).await?;
    let body = DecisionBody {
        reason: Some("by a signed link".to_owned()),
        revision: Some(grant.revision),
        document_hash: Some(grant.document_hash.clone()),
        patch: None,
    };
    let Json(decided) = gates::decide(
        &app,
        grant.job_id,
        &grant.name,
        grant.decision,
        &grant.issuer,
        body,
    )
    .await?;
    Ok(page(&format!(
        "<h1>Done</h1><p>The gate <b>{}</b> is {}.</p>",
        escaped(&grant.name),
        decided.state()
    )))
}

/// What the link is good for, if it is one and its time has not run out.
async fn grant(app: &App, token: &str) -> Result<Grant, Problem> {
    let grant = app
        .links
        .check(token)
        .ok_or_else(|| Problem::not_found("This is no link of this service."))?;
    if ask(app.store.now()).await?.unix_timestamp() >= grant.expires_at {
        return Err(Problem::gone("The link has expired; ask for a new one."));
    }
    Ok(grant)
}

fn question(grant: &Grant, gate: &Gate) -> String {
    let (title, button) = match grant.decision {
        Decision::Approve => ("Approve", "Approve"),
        Decision::Reject => ("Reject", "Reject"),
    };
    format!(
        "<h1>{title} {}?</h1><p>Job {}, revision {}</p><pre>{}</pre><form method=\"post\"><button>{button}</button></form>",
        escaped(&gate.name),
        gate.job_id,
        gate.revision,
        escaped(&format!("{:#}", gate.document)),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// Kept by nobody, framed by nobody, and its address told to nobody.
fn page(body: &str) -> Response {
    let headers: [(HeaderName, HeaderValue); 6] = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store, max-age=0"),
        ),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            HeaderName::from_static("x-robots-tag"),
            HeaderValue::from_static("noindex, nofollow"),
        ),
    ];
    let text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Gate</title><body>{body}</body></html>"
    );
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_says_is_text_on_the_page_and_never_markup() {
        assert_eq!(
            escaped("<script>\"'&</script>"),
            "&lt;script&gt;&quot;&#39;&amp;&lt;/script&gt;"
        );
    }
}
