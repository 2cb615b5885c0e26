//! The text of a DOCX, rendered: placeholders that Word has split over runs, sections within a paragraph, over paragraphs,
//! and over the rows of a table. Works on a tree of the XML; everything that is no text stays as it was.

use std::fs::File;
use std::io;
use std::ops::Range;

use quick_xml::events::{BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer};
use serde_json::Value;

use super::package::Package;
use super::template::{
    Findings, Kind, Piece, Scope, Tag, Unusable, items, parse, render, root, tags,
};

/// Elements within elements; a document of Word's stays far below.
const DEEPEST: usize = 128;
/// Stands for a line break of a value until it becomes one of the document's.
const BREAK: char = '\u{2028}';

#[derive(Clone, Debug)]
enum Node {
    Element(Element),
    Text(String),
    /// Declarations, comments and the like.
    Other(Event<'static>),
}

#[derive(Clone, Debug)]
struct Element {
    start: BytesStart<'static>,
    children: Vec<Node>,
}

/// Renders a template into a file.
pub(super) fn render_docx(
    template: File,
    data: &Value,
    findings: &mut Findings,
    to: impl FnOnce() -> io::Result<File>,
) -> Result<io::Result<()>, Unusable> {
    let mut package = Package::open(template)?;
    let mut texts = Vec::new();
    for name in package.texts.clone() {
        let tree = read(&package.text(&name)?)?;
        let tree = container(&tree, &root(data), findings)?;
        texts.push((name, write(&tree)));
    }
    Ok(to().and_then(|to| package.write(&texts, to)))
}

fn read(xml: &str) -> Result<Vec<Node>, Unusable> {
    let malformed = || Unusable("the template is refused: its XML is malformed".to_owned());
    let mut reader = Reader::from_str(xml);
    let mut open: Vec<Element> = Vec::new();
    let mut top = Vec::new();
    loop {
        let depth = open.len();
        let into = open
            .last_mut()
            .map_or(&mut top, |element| &mut element.children);
        match reader.read_event().map_err(|_| malformed())? {
            Event::Eof if depth == 0 => return Ok(top),
            Event::Eof => return Err(malformed()),
            Event::Start(start) => {
                if depth == DEEPEST {
                    return Err(Unusable(
                        "the template is refused: its XML is nested too deeply".to_owned(),
                    ));
                }
                open.push(Element {
                    start: start.into_owned(),
                    children: Vec::new(),
                });
            }
            Event::End(_) => {
                let closed = Node::Element(open.pop().ok_or_else(malformed)?);
                open.last_mut()
                    .map_or(&mut top, |element| &mut element.children)
                    .push(closed);
            }
            Event::Empty(start) => into.push(Node::Element(Element {
                start: start.into_owned(),
                children: Vec::new(),
            })),
            Event::Text(text) => push_text(into, &text.xml10_content().map_err(|_| malformed())?),
            Event::GeneralRef(entity) => {
                let letter = match entity.resolve_char_ref().map_err(|_| malformed())? {
                    Some(letter) => letter,
                    None => predefined(&entity.decode().map_err(|_| malformed())?)
                        .ok_or_else(malformed)?,
                };
                push_text(into, letter.encode_utf8(&mut [0; 4]));
            }
            Event::DocType(_) => return Err(malformed()),
            other @ (Event::CData(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_)) => {
                into.push(Node::Other(other.into_owned()));
            }
        }
    }
}

/// The five that need no declaration; there are no others here.
fn predefined(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    })
}

fn push_text(into: &mut Vec<Node>, text: &str) {
    if let Some(Node::Text(before)) = into.last_mut() {
        before.push_str(text);
    } else {
        into.push(Node::Text(text.to_owned()));
    }
}

fn write(nodes: &[Node]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for node in nodes {
        // Writing into memory does not fail.
        let _ = write_node(&mut writer, node);
    }
    writer.into_inner()
}

fn write_node(writer: &mut Writer<Vec<u8>>, node: &Node) -> io::Result<()> {
    match node {
        Node::Text(text) => writer.write_event(Event::Text(BytesText::new(text))),
        Node::Other(event) => writer.write_event(event.borrow()),
        Node::Element(element) if element.children.is_empty() => {
            writer.write_event(Event::Empty(element.start.borrow()))
        }
        Node::Element(element) => {
            writer.write_event(Event::Start(element.start.borrow()))?;
            for child in &element.children {
                write_node(writer, child)?;
            }
            writer.write_event(Event::End(element.start.to_end()))
        }
    }
}

/// The texts of an element in their order, as one, with a line end around each paragraph, so that no placeholder goes on
/// from one into the next.
#[derive(Default)]
struct Texts {
    whole: String,
    spans: Vec<Range<usize>>,
}

impl Element {
    fn is(&self, local: &str) -> bool {
        self.start.local_name().as_ref() == local.as_bytes()
    }

    /// About how many bytes it takes.
    fn weight(&self) -> usize {
        let children = self.children.iter().map(|child| match child {
            Node::Element(element) => element.weight(),
            Node::Text(text) => text.len(),
            Node::Other(_) => 16,
        });
        self.start.len() + 16 + children.sum::<usize>()
    }

    fn texts(&self) -> Texts {
        let mut texts = Texts::default();
        self.gather(&mut texts);
        texts
    }

    fn gather(&self, texts: &mut Texts) {
        let is_paragraph = self.is("p");
        if is_paragraph {
            texts.whole.push('\n');
        }
        for child in &self.children {
            match child {
                Node::Text(text) if self.is("t") => {
                    let start = texts.whole.len();
                    texts.whole.push_str(text);
                    texts.spans.push(start..texts.whole.len());
                }
                Node::Element(element) => element.gather(texts),
                Node::Text(_) | Node::Other(_) => {}
            }
        }
        if is_paragraph {
            texts.whole.push('\n');
        }
    }

    /// Puts other words into places of the texts; what a place spans goes, its words stand where it began.
    fn replace(&mut self, replacements: &[(Range<usize>, String)]) {
        let Texts { whole, spans } = self.texts();
        let mut at = 0;
        self.replace_in(replacements, &whole, &spans, &mut at);
    }

    fn replace_in(
        &mut self,
        replacements: &[(Range<usize>, String)],
        whole: &str,
        spans: &[Range<usize>],
        at: &mut usize,
    ) {
        let is_text = self.is("t");
        let mut changed = false;
        for child in &mut self.children {
            match child {
                Node::Text(text) if is_text => {
                    let span = spans[*at].clone();
                    *at += 1;
                    let new = replaced(whole, &span, replacements);
                    changed |= new != *text;
                    *text = new;
                }
                Node::Element(element) => element.replace_in(replacements, whole, spans, at),
                Node::Text(_) | Node::Other(_) => {}
            }
        }
        if changed {
            // Without it, blanks at the ends of the new words would be lost.
            let name = String::from_utf8_lossy(self.start.name().as_ref()).into_owned();
            self.start = BytesStart::new(name).with_attributes([("xml:space", "preserve")]);
        }
        self.break_lines();
    }

    /// Makes line breaks of a value line breaks of the document.
    fn break_lines(&mut self) {
        let broken = |node: &Node| matches!(node, Node::Element(text) if text.is("t") && text.children.iter().any(|child| matches!(child, Node::Text(text) if text.contains(BREAK))));
        if !self.children.iter().any(broken) {
            return;
        }
        let children = std::mem::take(&mut self.children);
        for child in children {
            match child {
                Node::Element(text) if text.is("t") => self.children.extend(lines_of(&text)),
                other => self.children.push(other),
            }
        }
    }
}

fn lines_of(element: &Element) -> Vec<Node> {
    let text: String = element
        .children
        .iter()
        .filter_map(|child| {
            if let Node::Text(text) = child {
                Some(text.as_str())
            } else {
                None
            }
        })
        .collect();
    let name = String::from_utf8_lossy(element.start.name().as_ref()).into_owned();
    let prefix = name
        .split_once(':')
        .map(|(prefix, _)| format!("{prefix}:"))
        .unwrap_or_default();
    let mut nodes = Vec::new();
    for (index, line) in text.split(BREAK).enumerate() {
        if index > 0 {
            let start = BytesStart::new(format!("{prefix}br"));
            nodes.push(Node::Element(Element {
                start,
                children: Vec::new(),
            }));
        }
        let start = element.start.clone();
        nodes.push(Node::Element(Element {
            start,
            children: vec![Node::Text(line.to_owned())],
        }));
    }
    nodes
}

/// What stands in a span once the replacements are made.
fn replaced(whole: &str, span: &Range<usize>, replacements: &[(Range<usize>, String)]) -> String {
    let mut out = String::new();
    let mut at = span.start;
    for (range, words) in replacements {
        if range.end <= at || range.start >= span.end {
            continue;
        }
        if range.start >= at {
            out.push_str(&whole[at..range.start]);
        }
        if range.start >= span.start {
            out.push_str(words);
        }
        at = range.end.min(span.end);
    }
    out.push_str(&whole[at..span.end]);
    out
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
        findings.write(child.weight())?;
        if !text.contains("{{") {
            out.push(node.clone());
            continue;
        }
        match unbalanced(&text) {
            Some(tag) => {
                let length = end_of(&nodes[at..], &tag)? + 1;
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
        nodes[1..nodes.len() - 1].to_vec()
    } else if first.is("tr") && last.is("tr") {
        let mut body = nodes.to_vec();
        strip(body.first_mut(), unbalanced);
        strip(body.last_mut(), first_unopened);
        body
    } else {
        return Err(Unusable(format!(
            "{{{{#{}}}}} goes over several paragraphs: its tags must stand alone in theirs",
            tag.path
        )));
    };
    for item in items(tag, scopes, findings) {
        let mut inner = scopes.to_vec();
        inner.extend(item);
        out.extend(container(&body, &inner, findings)?);
    }
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
    let mut bare = row.clone();
    strip(bare.children.get_mut(opening), unbalanced);
    strip(bare.children.get_mut(closing), first_unopened);
    for item in items(&tag, scopes, findings) {
        let mut inner = scopes.to_vec();
        inner.extend(item);
        // There may be another section in it.
        self::row(&bare, &inner, findings, out)?;
    }
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
