//! Placeholders: how they are written, what they stand for, and what is found wrong on the way. There is no logic but
//! "for each" and "unless": nothing in a template is ever run, and what a value holds is never looked at again.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Value};

/// Sections within sections.
const DEEPEST: usize = 16;
/// What an item of a list counts for, beside what is written for it: many lists within lists may write nothing.
const ITEM: usize = 256;
/// What one rendering may come to, in bytes.
const LONGEST: usize = 64 * 1024 * 1024;
/// So many findings are kept of each kind.
const MOST_FINDINGS: usize = 200;

/// What a placeholder asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `{{name}}`, `{{name?}}`, `{{name|otherwise}}`
    Value,
    /// `{{#name}}`
    Open,
    /// `{{^name}}`
    OpenNot,
    /// `{{/name}}`
    Close,
}

/// A placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) kind: Kind,
    pub(super) path: String,
    optional: bool,
    otherwise: Option<String>,
    /// Where it stands, braces and all.
    pub(super) range: Range<usize>,
}

/// Some of a template.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Text(Range<usize>),
    Value(Tag),
    Section {
        tag: Tag,
        body: Vec<Piece>,
        range: Range<usize>,
    },
}

impl Piece {
    /// Where it stands.
    pub(super) fn range(&self) -> Range<usize> {
        match self {
            Self::Text(range) | Self::Section { range, .. } => range.clone(),
            Self::Value(tag) => tag.range.clone(),
        }
    }
}

/// Why a template cannot be rendered at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unusable(pub(super) String);

/// Where names are looked up: the data, and within sections what they are about.
#[derive(Clone, Debug)]
pub(super) struct Scope<'data> {
    value: &'data Value,
    path: String,
}

/// What was found while rendering.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// Required and not there, with how often it is asked for.
    pub(super) missing: BTreeMap<String, usize>,
    /// Formally wrong, each in words.
    pub(super) faults: Vec<String>,
    /// The first names of every path that was looked up.
    pub(super) used: std::collections::BTreeSet<String>,
    written: usize,
    /// How many sections the rendering is in.
    within: usize,
}

impl Findings {
    pub(super) fn missing(&mut self, path: &str) {
        if self.missing.len() < MOST_FINDINGS || self.missing.contains_key(path) {
            *self.missing.entry(path.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn fault(&mut self, what: String) {
        if self.faults.len() < MOST_FINDINGS && !self.faults.contains(&what) {
            self.faults.push(what);
        }
    }

    /// Goes into a section; not without end.
    pub(super) fn enter(&mut self) -> Result<(), Unusable> {
        if self.within == DEEPEST {
            return Err(too_deep());
        }
        self.within += 1;
        Ok(())
    }

    /// Goes out of it again.
    pub(super) fn leave(&mut self) {
        self.within = self.within.saturating_sub(1);
    }

    /// Counts what is written, and what it takes to know that nothing is; a section in a section in a section grows quickly.
    pub(super) fn write(&mut self, bytes: usize) -> Result<(), Unusable> {
        self.written = self.written.saturating_add(bytes);
        if self.written > LONGEST {
            return Err(Unusable(format!(
                "the document would be larger than {LONGEST} bytes"
            )));
        }
        Ok(())
    }
}

fn too_deep() -> Unusable {
    Unusable(format!("sections are nested deeper than {DEEPEST}"))
}

/// Every placeholder of a text, in order; what only looks like one is a fault and stays as it is.
pub(super) fn tags(text: &str, findings: &mut Findings) -> Vec<Tag> {
    let mut tags = Vec::new();
    // Every byte is looked at a few times at most, however the text is made.
    let (mut at, mut line_end) = (0, 0);
    while let Some(open) = text[at..].find("{{").map(|found| at + found) {
        if line_end <= open {
            line_end = text[open..]
                .find('\n')
                .map_or(text.len(), |found| open + found);
        }
        let line = &text[open..line_end];
        let Some(close) = line.find("}}").map(|found| open + found) else {
            findings.fault(format!("a placeholder is not closed: {}", shown(line)));
            // Nor is what else is opened in this line.
            at = line_end;
            continue;
        };
        match tag(&text[open + 2..close], open..close + 2) {
            Some(tag) => tags.push(tag),
            None => findings.fault(format!("no placeholder: {}", shown(&text[open..close + 2]))),
        }
        at = close + 2;
    }
    tags
}

/// As much of a text as fits into a remark.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

fn tag(inside: &str, range: Range<usize>) -> Option<Tag> {
    let inside = inside.trim();
    let (kind, rest) = match inside.chars().next()? {
        '#' => (Kind::Open, &inside[1..]),
        '^' => (Kind::OpenNot, &inside[1..]),
        '/' => (Kind::Close, &inside[1..]),
        _ => (Kind::Value, inside),
    };
    let (name, otherwise) = match rest.split_once('|') {
        Some((name, otherwise)) if kind == Kind::Value => (name, Some(otherwise.trim().to_owned())),
        Some(_) => return None,
        None => (rest, None),
    };
    let name = name.trim();
    let (path, optional) = match name.strip_suffix('?') {
        Some(path) => (path.trim_end(), true),
        None => (name, false),
    };
    let part = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-'))
    };
    let is_path = path == "." || path.split('.').all(part);
    is_path.then(|| Tag {
        kind,
        path: path.to_owned(),
        optional,
        otherwise,
        range,
    })
}

/// Parses a whole text.
pub(super) fn parse(text: &str, findings: &mut Findings) -> Result<Vec<Piece>, Unusable> {
    let tags = tags(text, findings);
    // The pieces of the open sections, outermost first, each with the tag that opened it.
    let mut open: Vec<(Tag, Vec<Piece>)> = Vec::new();
    let mut pieces = Vec::new();
    let mut at = 0;
    for tag in tags {
        if at < tag.range.start {
            pieces.push(Piece::Text(at..tag.range.start));
        }
        at = tag.range.end;
        match tag.kind {
            Kind::Value => pieces.push(Piece::Value(tag)),
            Kind::Open | Kind::OpenNot if open.len() == DEEPEST => {
                return Err(too_deep());
            }
            Kind::Open | Kind::OpenNot => open.push((tag, std::mem::take(&mut pieces))),
            Kind::Close => {
                let Some((opened, outer)) =
                    open.pop().filter(|(opened, _)| opened.path == tag.path)
                else {
                    return Err(Unusable(format!(
                        "{{{{/{}}}}} closes nothing that is open there",
                        tag.path
                    )));
                };
                let range = opened.range.start..tag.range.end;
                let body = std::mem::replace(&mut pieces, outer);
                pieces.push(Piece::Section {
                    tag: opened,
                    body,
                    range,
                });
            }
        }
    }
    if let Some((tag, _)) = open.pop() {
        return Err(Unusable(format!("{{{{#{}}}}} is never closed", tag.path)));
    }
    if at < text.len() {
        pieces.push(Piece::Text(at..text.len()));
    }
    Ok(pieces)
}

/// Writes the pieces of a text.
pub(super) fn render(
    pieces: &[Piece],
    text: &str,
    scopes: &[Scope<'_>],
    findings: &mut Findings,
) -> Result<String, Unusable> {
    let mut out = String::new();
    for piece in pieces {
        let written = match piece {
            Piece::Text(range) => text[range.clone()].to_owned(),
            Piece::Value(tag) => value(tag, scopes, findings),
            Piece::Section { tag, body, .. } => {
                let mut all = String::new();
                for item in items(tag, scopes, findings)? {
                    let mut inner = scopes.to_vec();
                    inner.extend(item);
                    all.push_str(&render(body, text, &inner, findings)?);
                }
                all
            }
        };
        findings.write(written.len())?;
        out.push_str(&written);
    }
    Ok(out)
}

/// Renders a text, without the lines on which nothing but sections begin and end.
pub(super) fn render_text(
    text: &str,
    data: &Value,
    findings: &mut Findings,
) -> Result<String, Unusable> {
    let text = without_lone_lines(text);
    let pieces = parse(&text, findings)?;
    render(&pieces, &text, &root(data), findings)
}

/// Where a rendering begins.
pub(super) fn root(data: &Value) -> Vec<Scope<'_>> {
    vec![Scope {
        value: data,
        path: String::new(),
    }]
}

/// A line that holds a section's tag alone leaves no empty line behind.
fn without_lone_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        let is_lone = tags(bare, &mut Findings::default())
            .first()
            .is_some_and(|tag| tag.kind != Kind::Value && tag.range == (0..bare.len()));
        out.push_str(if is_lone { bare } else { line });
    }
    out
}

/// What a placeholder stands for.
pub(super) fn value(tag: &Tag, scopes: &[Scope<'_>], findings: &mut Findings) -> String {
    let (found, path) = find(&tag.path, scopes, findings);
    match found {
        Some(Value::String(text)) if !text.trim().is_empty() => return text.clone(),
        Some(Value::Number(number)) => return number.to_string(),
        Some(Value::Bool(truth)) => return truth.to_string(),
        Some(other @ (Value::Array(_) | Value::Object(_))) => {
            findings.fault(format!("{path} is no text and no number"));
            return other.to_string();
        }
        Some(Value::String(_) | Value::Null) | None => {}
    }
    match &tag.otherwise {
        Some(otherwise) => otherwise.clone(),
        None => {
            if !tag.optional {
                findings.missing(&path);
            }
            String::new()
        }
    }
}

/// What a section is written for: once an item, each with what it adds to the scopes.
pub(super) fn items<'data>(
    tag: &Tag,
    scopes: &[Scope<'data>],
    findings: &mut Findings,
) -> Result<Vec<Option<Scope<'data>>>, Unusable> {
    let items = all_items(tag, scopes, findings);
    findings.write(items.len().saturating_mul(ITEM))?;
    Ok(items)
}

fn all_items<'data>(
    tag: &Tag,
    scopes: &[Scope<'data>],
    findings: &mut Findings,
) -> Vec<Option<Scope<'data>>> {
    let (found, path) = find(&tag.path, scopes, findings);
    let is_there = match found {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Number(_) | Value::Object(_) | Value::Bool(true)) => true,
    };
    if tag.kind == Kind::OpenNot {
        return if is_there { Vec::new() } else { vec![None] };
    }
    match found {
        None | Some(Value::Null) => {
            if !tag.optional {
                findings.missing(&path);
            }
            Vec::new()
        }
        Some(Value::Array(items)) => items
            .iter()
            .enumerate()
            .map(|(index, value)| {
                Some(Scope {
                    value,
                    path: format!("{path}[{index}]"),
                })
            })
            .collect(),
        Some(value @ Value::Object(_)) => vec![Some(Scope { value, path })],
        Some(_) if is_there => vec![None],
        Some(_) => Vec::new(),
    }
}

/// Looks a path up, from the innermost scope outwards; also gives the path from the data's root.
fn find<'data>(
    path: &str,
    scopes: &[Scope<'data>],
    findings: &mut Findings,
) -> (Option<&'data Value>, String) {
    let innermost = scopes.last();
    if path == "." {
        let told = innermost
            .map(|scope| scope.path.clone())
            .unwrap_or_default();
        return (
            innermost.map(|scope| scope.value),
            if told.is_empty() {
                ".".to_owned()
            } else {
                told
            },
        );
    }
    let first = path.split('.').next().unwrap_or_default();
    let holds = |scope: &&Scope<'data>| {
        scope
            .value
            .as_object()
            .is_some_and(|object| object.contains_key(first))
    };
    let scope = scopes.iter().rev().find(holds).or(innermost);
    let Some(scope) = scope else {
        return (None, path.to_owned());
    };
    let from_root = if scope.path.is_empty() {
        findings.used.insert(first.to_owned());
        path.to_owned()
    } else {
        format!("{}.{path}", scope.path)
    };
    let mut found = Some(scope.value);
    for part in path.split('.') {
        found = found.and_then(|value| match value {
            Value::Object(object) => object.get(part),
            Value::Array(items) => part
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get(index)),
            _ => None,
        });
    }
    (found, from_root)
}

/// Whether a value at a path (`a.b`, or `a[].b` for each of a list) is there; notes what is not.
pub(super) fn require(path: &str, data: &Map<String, Value>, findings: &mut Findings) {
    let first = path.split(['.', '[']).next().unwrap_or_default();
    findings.used.insert(first.to_owned());
    let mut found: Vec<(String, Option<&Value>)> = Vec::new();
    for part in path.split('.') {
        let (name, each) = match part.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (part, false),
        };
        let next: Vec<(String, Option<&Value>)> = if found.is_empty() {
            vec![(name.to_owned(), data.get(name))]
        } else {
            found
                .iter()
                .map(|(path, value)| {
                    (
                        format!("{path}.{name}"),
                        value.and_then(|value| value.get(name)),
                    )
                })
                .collect()
        };
        found = if each {
            next.into_iter().flat_map(each_of).collect()
        } else {
            next
        };
    }
    for (path, value) in found {
        let is_there = match value {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => !text.trim().is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(_) => true,
        };
        if !is_there {
            findings.missing(&path);
        }
    }
}

fn each_of((path, value): (String, Option<&Value>)) -> Vec<(String, Option<&Value>)> {
    match value.and_then(Value::as_array) {
        Some(items) if !items.is_empty() => items
            .iter()
            .enumerate()
            .map(|(index, item)| (format!("{path}[{index}]"), Some(item)))
            .collect(),
        _ => vec![(path, None)],
    }
}

#[cfg(test)]
mod tests;
