//! The XML of a document's part as a tree, with the texts in it as one. Knows no placeholders; everything that is no text
//! stays as it was.

use std::io;
use std::ops::Range;

use quick_xml::events::{BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer};

use super::template::Unusable;

/// Elements within elements; a document of Word's stays far below.
const DEEPEST: usize = 128;
/// Elements of all texts together, each of which takes many times as much memory as it does in the file. A thousand
/// pages have fewer.
pub(super) const MOST_ELEMENTS: usize = 500_000;
/// Stands for a line break of a value until it becomes one of the document's.
pub(super) const BREAK: char = '\u{2028}';

/// A node of it.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Element(Element),
    Text(String),
    /// Declarations, comments and the like.
    Other(Event<'static>),
}

/// An element, with all that is in it.
#[derive(Clone, Debug)]
pub(super) struct Element {
    pub(super) start: BytesStart<'static>,
    pub(super) children: Vec<Node>,
}

/// The tree of some XML, of at most so many elements.
pub(super) fn read(xml: &str, left: &mut usize) -> Result<Vec<Node>, Unusable> {
    let malformed = || Unusable("the template is refused: its XML is malformed".to_owned());
    let mut reader = Reader::from_str(xml);
    let mut open: Vec<Element> = Vec::new();
    let mut top = Vec::new();
    loop {
        let depth = open.len();
        let into = open
            .last_mut()
            .map_or(&mut top, |element| &mut element.children);
        let event = reader.read_event().map_err(|_| malformed())?;
        if matches!(event, Event::Start(_) | Event::Empty(_)) {
            *left = left.checked_sub(1).ok_or_else(|| {
                Unusable(format!(
                    "the template is refused: its XML has more than {MOST_ELEMENTS} elements"
                ))
            })?;
        }
        match event {
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

/// The XML of a tree.
pub(super) fn write(nodes: &[Node]) -> Vec<u8> {
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

impl Node {
    /// About how many bytes it takes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Element(element) => {
                let children = element.children.iter().map(Self::weight);
                element.start.len() + 16 + children.sum::<usize>()
            }
            Self::Text(text) => text.len(),
            Self::Other(_) => 16,
        }
    }
}

/// The texts of an element in their order, as one, with a line end around each paragraph, so that no placeholder goes on
/// from one into the next.
#[derive(Default)]
pub(super) struct Texts {
    pub(super) whole: String,
    spans: Vec<Range<usize>>,
}

impl Element {
    pub(super) fn is(&self, local: &str) -> bool {
        self.start.local_name().as_ref() == local.as_bytes()
    }

    pub(super) fn texts(&self) -> Texts {
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
    pub(super) fn replace(&mut self, replacements: &[(Range<usize>, String)]) {
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
    // Both are in order; looking at all of them for each would take for ever.
    let first = replacements.partition_point(|(range, _)| range.end <= span.start);
    let here = replacements[first..]
        .iter()
        .take_while(|(range, _)| range.start < span.end);
    for (range, words) in here {
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
