//! `GET /openapi.json` and `GET /docs`: the description of the API for programs, and the same as a page for people.
//! The page needs no script and no outside resource.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::Value;

use crate::app::App;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
    color-scheme:light dark}pre{overflow:auto;padding:1rem;border:1px solid #8888}\
    h2{margin-top:2.5rem;font-size:1.1rem;border-top:1px solid #8888;padding-top:1rem}";
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Read this description of the API.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "service",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)),
)]
pub(crate) async fn openapi_json(State(app): State<Arc<App>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        app.openapi.clone(),
    )
}

/// Read this description of the API as a page.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "service",
    responses((status = 200, description = "A page", body = String, content_type = "text/html; charset=utf-8")),
)]
pub(crate) async fn docs(State(app): State<Arc<App>>) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    let document = serde_json::from_slice(&app.openapi).unwrap_or_default();
    (headers, page(&document))
}

// Writing to a String cannot fail, hence the ignored results below.

fn page(document: &Value) -> String {
    let info = &document["info"];
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>{about}</p>",
        title = text(&info["title"]),
        about = text(&info["description"]),
    );
    for (path, item) in members(&document["paths"]) {
        for (method, operation) in members(item) {
            write_operation(
                &mut html,
                &format!("{} {path}", method.to_uppercase()),
                operation,
            );
        }
    }
    for (name, schema) in members(&document["components"]["schemas"]) {
        let shown = serde_json::to_string_pretty(schema).unwrap_or_default();
        let _ = write!(
            html,
            "<h2 id=\"{0}\">{0}</h2><pre>{1}</pre>",
            escaped(name),
            escaped(&shown)
        );
    }
    html
}

fn write_operation(html: &mut String, name: &str, operation: &Value) {
    let _ = write!(
        html,
        "<h2><code>{}</code></h2><p>{}</p>",
        escaped(name),
        text(&operation["summary"])
    );
    let _ = write!(html, "<p>{}</p><ul>", text(&operation["description"]));
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
        let _ = write!(
            html,
            "<li><code>{name}</code> ({place}) {}",
            text(&parameter["description"])
        );
    }
    let _ = write!(html, "{}", schema_link("takes", &operation["requestBody"]));
    for (status, response) in members(&operation["responses"]) {
        let _ = write!(
            html,
            "<li><b>{}</b> {}",
            escaped(status),
            text(&response["description"])
        );
        let _ = write!(html, "{}", schema_link("", response));
    }
    html.push_str("</ul>");
}

/// Links to the schema of a body, where it has one of its own.
fn schema_link(word: &str, body: &Value) -> String {
    let schemas = members(&body["content"]).filter_map(|(_, content)| {
        let schema = &content["schema"];
        let own = schema["$ref"]
            .as_str()
            .or_else(|| schema["oneOf"][1]["$ref"].as_str());
        own?.rsplit('/').next().map(escaped)
    });
    let links = schemas.map(|name| format!(" <a href=\"#{name}\">{name}</a>"));
    match (links.collect::<String>(), word) {
        (links, _) if links.is_empty() => links,
        (links, "") => links,
        (links, word) => format!("<li>{word}{links}"),
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openapi;

    #[test]
    fn the_page_has_every_operation_and_every_link_leads_somewhere() {
        let document = openapi();
        let page = page(&document);
        for (path, item) in members(&document["paths"]) {
            for (method, _) in members(item) {
                assert!(
                    page.contains(&format!("<code>{} {path}</code>", method.to_uppercase())),
                    "{path}"
                );
            }
        }
        for target in page.split("href=\"#").skip(1) {
            let name = target.split('"').next().expect("a name");
            assert!(page.contains(&format!("id=\"{name}\"")), "{name}");
        }
        for outside in ["<script", "src=", "=\"http", "=\"//", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
