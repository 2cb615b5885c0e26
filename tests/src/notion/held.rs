//! What this Notion has, and what it does with a request: the database, its pages, and what it was told to do instead.

use std::collections::{BTreeMap, VecDeque};

use axum::http::HeaderMap;
use serde_json::{Value, json};
use uuid::Uuid;

use super::check::{self, Refusal};
use super::limit::Limit;
use super::{Asked, Instead, NOTION_DATABASE_ID, NOTION_TOKEN, Page};

const VERSION: &str = "2022-06-28";

/// Status, `Retry-After` and body.
type Answered = (u16, Option<u32>, Value);

#[derive(Debug)]
pub(super) struct Held {
    pub(super) token: String,
    pub(super) schema: BTreeMap<String, String>,
    pub(super) pages: Vec<Page>,
    pub(super) asked: Vec<Asked>,
    pub(super) instead: VecDeque<(&'static str, Instead)>,
    pub(super) always: Option<Instead>,
    pub(super) sparse: bool,
    pub(super) limit: Limit,
}

impl Held {
    /// A database with every property that the product's documentation names, and one of somebody's own.
    pub(super) fn new() -> Self {
        let schema = [
            ("Job", "title"),
            ("Job ID", "rich_text"),
            ("Status", "select"),
            ("Type", "select"),
            ("Queue", "select"),
            ("Attempts", "number"),
            ("Created", "date"),
            ("Finished", "date"),
            ("Error", "rich_text"),
            ("Somebody's own", "checkbox"),
        ];
        let schema = schema.map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        Self {
            token: NOTION_TOKEN.to_owned(),
            schema: schema.into(),
            pages: Vec::new(),
            asked: Vec::new(),
            instead: VecDeque::new(),
            always: None,
            sparse: false,
            limit: Limit::new(),
        }
    }

    /// What is answered; `None`: nothing ever.
    pub(super) fn done(
        &mut self,
        what: &str,
        headers: &HeaderMap,
        path: &str,
        body: &[u8],
    ) -> Option<Answered> {
        let planned = self.instead.iter().position(|(at, _)| *at == what);
        let planned = planned.and_then(|index| self.instead.remove(index));
        let instead = planned.map(|(_, instead)| instead).or(self.always);
        match instead {
            Some(Instead::Refuse(status, retry_after)) => {
                self.limit.refused_for(retry_after);
                let refusal = Refusal::planned(status);
                return Some((status, retry_after, refusal.json()));
            }
            Some(Instead::Ignore) => return None,
            Some(Instead::Swallow) | None => {}
        }
        let answered = match self.work(headers, what, path, body) {
            Ok(answer) => (200, None, answer),
            Err(refusal) => (refusal.status, refusal.retry_after, refusal.json()),
        };
        match instead {
            None => Some(answered),
            Some(Instead::Swallow | Instead::Refuse(..) | Instead::Ignore) => None,
        }
    }

    fn work(
        &mut self,
        headers: &HeaderMap,
        what: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Value, Refusal> {
        check::headers(headers, &self.token, VERSION)?;
        self.limit.take()?;
        let id = path.split('/').find_map(|part| Uuid::try_parse(part).ok());
        match what {
            "GET /databases" => {
                self.database(id)?;
                Ok(self.described())
            }
            "POST /databases/query" => {
                self.database(id)?;
                self.query(&check::json(headers, body)?)
            }
            "POST /pages" => self.create(&check::json(headers, body)?),
            "PATCH /pages" => self.update(id, &check::json(headers, body)?),
            _ => Err(Refusal::new(
                400,
                "invalid_request_url",
                "Invalid request URL.",
            )),
        }
    }

    fn database(&self, id: Option<Uuid>) -> Result<(), Refusal> {
        let ours = Uuid::try_parse(NOTION_DATABASE_ID).ok();
        if id == ours {
            return Ok(());
        }
        let id = id.map(|id| id.to_string()).unwrap_or_default();
        Err(Refusal::not_found("database", &id))
    }

    fn described(&self) -> Value {
        let properties: serde_json::Map<String, Value> = self
            .schema
            .iter()
            .map(|(name, kind)| {
                let described = json!({"id": name, "name": name, "type": kind, kind: {}});
                (name.clone(), described)
            })
            .collect();
        json!({
            "object": "database", "id": NOTION_DATABASE_ID, "archived": false, "in_trash": false,
            "title": [{"type": "text", "text": {"content": "Jobs"}}], "properties": properties,
        })
    }

    fn query(&self, body: &Value) -> Result<Value, Refusal> {
        let query = check::query(body, &self.schema)?;
        let found: Vec<&Page> = self
            .pages
            .iter()
            .filter(|page| !page.archived && page.text(&query.property) == query.equals)
            .collect();
        let start = match query.start_cursor {
            None if self.sparse => {
                return Ok(list(&[], found.first().map(|page| page.id.as_str())));
            }
            None => 0,
            Some(cursor) => {
                let at = found.iter().position(|page| page.id == cursor);
                at.ok_or_else(|| Refusal::invalid("The start_cursor provided is invalid."))?
            }
        };
        let end = found.len().min(start + query.page_size);
        let results: Vec<Value> = found[start..end].iter().map(|page| shown(page)).collect();
        Ok(list(&results, found.get(end).map(|page| page.id.as_str())))
    }

    fn create(&mut self, body: &Value) -> Result<Value, Refusal> {
        check::only(body, &["parent", "properties", "children", "icon", "cover"])?;
        let parent = body["parent"]["database_id"].as_str();
        let parent = parent.and_then(|id| Uuid::try_parse(id).ok());
        if parent.is_none() {
            return Err(Refusal::invalid(
                "body failed validation: body.parent.database_id should be a valid uuid.",
            ));
        }
        self.database(parent)?;
        check::properties(&body["properties"], &self.schema)?;
        let number = u128::try_from(self.pages.len() + 1).expect("a number");
        let number = number + (u128::from(self.asked.len() as u64) << 32);
        let page = Page {
            id: Uuid::from_u128((0x1a9e_u128 << 112) + number).to_string(),
            properties: body["properties"].clone(),
            archived: false,
        };
        let shown = shown(&page);
        self.pages.push(page);
        Ok(shown)
    }

    fn update(&mut self, id: Option<Uuid>, body: &Value) -> Result<Value, Refusal> {
        check::only(
            body,
            &["properties", "archived", "in_trash", "icon", "cover"],
        )?;
        let id = id.map(|id| id.to_string()).unwrap_or_default();
        let page = self.pages.iter_mut().find(|page| page.id == id);
        let page = page.ok_or_else(|| Refusal::not_found("page", &id))?;
        if page.archived {
            return Err(Refusal::invalid(
                "Can't edit block that is archived. You must unarchive the block before editing.",
            ));
        }
        check::properties(&body["properties"], &self.schema)?;
        for (name, value) in body["properties"].as_object().into_iter().flatten() {
            page.properties[name] = value.clone();
        }
        Ok(shown(page))
    }
}

fn list(results: &[Value], next_cursor: Option<&str>) -> Value {
    json!({
        "object": "list", "type": "page_or_database", "page_or_database": {}, "results": results,
        "has_more": next_cursor.is_some(), "next_cursor": next_cursor,
    })
}

fn shown(page: &Page) -> Value {
    json!({
        "object": "page", "id": page.id, "archived": page.archived, "in_trash": page.archived,
        "parent": {"type": "database_id", "database_id": NOTION_DATABASE_ID},
        "properties": page.properties,
    })
}
