//! The text of a DOCX, rendered: placeholders that Word has split over runs, sections within a paragraph, over paragraphs,
//! and over the rows of a table. Works on a tree of the XML; everything that is no text stays as it was.

use std::borrow::Cow;
use std::fs::File;
use std::io;

use serde_json::Value;

use super::package::Package;
use super::template::{
    Findings, Kind, Piece, Scope, Tag, Unusable, items, parse, render, root, tags,
};
use super::tree::{BREAK, Element, MOST_ELEMENTS, Node, read, write};

/// Renders a template into a file.
pub(super) fn render_docx(
    template: File,
    data: &Value,
    findings: &mut Findings,
    to: impl FnOnce() -> io::Result<File>,
) -> Result<io::Result<()>, Unusable> {
    let mut package = Package::open(template)?;
    let (mut texts, mut left) = (Vec::new(), MOST_ELEMENTS);
    for name in package.texts.clone() {
        let tree = read(&package.text(&name)?, &mut left)?;
        let tree = container(&tree, &root(data), findings)?;
        texts.push((name, write(&tree)));
    }
    Ok(to().and_then(|to| package.write(&texts, to)))
}

/// The first section that begins in a text and does not end in it.
fn unbalanced(text: &str) -> Option<Tag> {
    let mut open = Vec::new();
    for tag in tags(text, &mut Findings::default()) {
        match tag.kind {
            Kind::Open | Kind::OpenNot => open.push(tag),
            Kind::Close => drop(open.pop()),
            Kind::Value => {}
        }
    }
    open.into_iter().next()
}

fn container(
    nodes: &[Node],
    scopes: &[Scope<'_>],
    findings: &mut Findings,
) -> Result<Vec<Node>, Unusable> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(node) = nodes.get(at) {
        at += 1;
        let Node::Element(child) = node else {
            out.push(node.clone());
            continue;
        };
        let text = child.texts().whole;
        // What is copied costs memory too, a hundred times in a section of a hundred.
        findings.write(node.weight())?;
        if !text.contains("{{") {
            out.push(node.clone());
            continue;
        }
        match unbalanced(&text) {
            Some(tag) => {
                let length = end_of(&nodes[at..], &tag)? + 1;
                // All of it was looked at, also where nothing of it will be written.
                findings.write(nodes[at..at + length].iter().map(Node::weight).sum())?;
                block(
                    &nodes[at - 1..at + length],
                    &tag,
                    scopes,
                    findings,
                    &mut out,
                )?;
                at += length;
            }
            None if child.is("p") => out.push(Node::Element(paragraph(child, scopes, findings)?)),
            None if child.is("tr") => row(child, scopes, findings, &mut out)?,
            None => {
                let children = container(&child.children, scopes, findings)?;
                out.push(Node::Element(Element {
                    start: child.start.clone(),
                    children,
                }));
            }
        }
    }
    Ok(out)
}

/// How many nodes further a section ends.
fn end_of(nodes: &[Node], tag: &Tag) -> Result<usize, Unusable> {
    let mut open = vec![tag.path.clone()];
    for (index, node) in nodes.iter().enumerate() {
        let Node::Element(element) = node else {
            continue;
        };
        for inner in tags(&element.texts().whole, &mut Findings::default()) {
            match inner.kind {
                Kind::Open | Kind::OpenNot => open.push(inner.path),
                Kind::Close if open.pop().as_ref() != Some(&inner.path) => {
                    let what = format!("{{{{/{}}}}} closes nothing that is open there", inner.path);
                    return Err(Unusable(what));
                }
                Kind::Close | Kind::Value => {}
            }
            if open.is_empty() {
                return Ok(index);
            }
        }
    }
    let what = format!(
        "{{{{#{}}}}} is never closed at the level where it is opened",
        tag.path
    );
    Err(Unusable(what))
}

/// A section over several nodes: between two paragraphs that hold nothing but its tags, or over whole rows.
fn block(
    nodes: &[Node],
    tag: &Tag,
    scopes: &[Scope<'_>],
    findings: &mut Findings,
    out: &mut Vec<Node>,
) -> Result<(), Unusable> {
    let [Node::Element(first), .., Node::Element(last)] = nodes else {
        return Err(Unusable(format!("{{{{#{}}}}} is never closed", tag.path)));
    };
    let is_alone = |element: &Element| {
        let text = element.texts().whole;
        let text = text.trim();
        let found = tags(text, &mut Findings::default());
        matches!(found.as_slice(), [only] if only.range == (0..text.len()))
    };
    let body = if is_alone(first) && is_alone(last) {
        Cow::Borrowed(&nodes[1..nodes.len() - 1])
    } else if first.is("tr") && last.is("tr") {
        let mut body = nodes.to_vec();
        strip(body.first_mut(), unbalanced);
        strip(body.last_mut(), first_unopened);
        Cow::Owned(body)
    } else {
        return Err(Unusable(format!(
            "{{{{#{}}}}} goes over several paragraphs: its tags must stand alone in theirs",
            tag.path
        )));
    };
    findings.enter()?;
    for item in items(tag, scopes, findings)? {
        let mut inner = scopes.to_vec();
        inner.extend(item);
        out.extend(container(&body, &inner, findings)?);
    }
    findings.leave();
    Ok(())
}

fn first_unopened(text: &str) -> Option<Tag> {
    let mut open = 0;
    tags(text, &mut Findings::default())
        .into_iter()
        .find(|tag| match tag.kind {
            Kind::Open | Kind::OpenNot => {
                open += 1;
                false
            }
            Kind::Close if open == 0 => true,
            Kind::Close => {
                open -= 1;
                false
            }
            Kind::Value => false,
        })
}

/// Takes a tag out of an element's text.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what get_mut and first_mut give"
)]
fn strip(node: Option<&mut Node>, which: fn(&str) -> Option<Tag>) {
    if let Some(Node::Element(element)) = node
        && let Some(tag) = which(&element.texts().whole)
    {
        element.replace(&[(tag.range, String::new())]);
    }
}

/// A row; one with a section from one of its cells to another is written once an item.
fn row(
    row: &Element,
    scopes: &[Scope<'_>],
    findings: &mut Findings,
    out: &mut Vec<Node>,
) -> Result<(), Unusable> {
    let opening = row.children.iter().position(
        |cell| matches!(cell, Node::Element(cell) if unbalanced(&cell.texts().whole).is_some()),
    );
    let Some(opening) = opening else {
        let children = container(&row.children, scopes, findings)?;
        out.push(Node::Element(Element {
            start: row.start.clone(),
            children,
        }));
        return Ok(());
    };
    let Some(Node::Element(cell)) = row.children.get(opening) else {
        return Ok(());
    };
    let Some(tag) = unbalanced(&cell.texts().whole) else {
        return Ok(());
    };
    let closing = opening + 1 + end_of(&row.children[opening + 1..], &tag)?;
    findings.write(row.children.iter().map(Node::weight).sum())?;
    findings.enter()?;
    let mut bare = row.clone();
    strip(bare.children.get_mut(opening), unbalanced);
    strip(bare.children.get_mut(closing), first_unopened);
    for item in items(&tag, scopes, findings)? {
        let mut inner = scopes.to_vec();
        inner.extend(item);
        // There may be another section in it.
        self::row(&bare, &inner, findings, out)?;
    }
    findings.leave();
    Ok(())
}

fn paragraph(
    paragraph: &Element,
    scopes: &[Scope<'_>],
    findings: &mut Findings,
) -> Result<Element, Unusable> {
    let text = paragraph.texts().whole;
    let pieces = parse(&text, findings)?;
    let mut replacements = Vec::new();
    for piece in &pieces {
        if !matches!(piece, Piece::Text(_)) {
            let words = render(std::slice::from_ref(piece), &text, scopes, findings)?;
            replacements.push((piece.range(), fit_for_xml(&words)));
        }
    }
    let mut rendered = paragraph.clone();
    rendered.replace(&replacements);
    Ok(rendered)
}

/// Without what XML cannot hold.
fn fit_for_xml(words: &str) -> String {
    let words = words
        .replace("\r\n", "\n")
        .replace('\n', &BREAK.to_string());
    words
        .chars()
        .filter(|letter| !letter.is_control() || *letter == '\t')
        .filter(|letter| !matches!(letter, '\u{fffe}' | '\u{ffff}'))
        .collect()
}
