//! Whole renderings, and templates that mean harm.

use std::io::Cursor;

use serde_json::json;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::package::Package;
use super::*;

const TYPES: &str = r#"<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>"#;

type Entries<'bytes> = Vec<(&'bytes str, &'bytes [u8])>;

/// A package of these entries.
fn zipped(entries: &[(&str, &[u8])]) -> File {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default())
            .expect("begun");
        zip.write_all(bytes).expect("written");
    }
    file_of(&zip.finish().expect("an archive").into_inner())
}

fn file_of(bytes: &[u8]) -> File {
    use std::io::Seek as _;
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    file.rewind().expect("at the start");
    file
}

fn document(body: &str) -> File {
    let xml = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><w:document xmlns:w="w"><w:body>{body}</w:body></w:document>"#
    );
    zipped(&[
        ("[Content_Types].xml", TYPES.as_bytes()),
        ("word/document.xml", xml.as_bytes()),
        ("word/media/a.png", b"png"),
    ])
}

/// The text of a rendered document, paragraph by paragraph.
fn rendered(body: &str, data: &Value) -> (Vec<String>, Findings) {
    let mut findings = Findings::default();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out.docx");
    docx::render_docx(document(body), data, &mut findings, || private_file(&path))
        .expect("usable")
        .expect("written");
    let mut package = Package::open(File::open(&path).expect("opened")).expect("a package");
    let xml = package.text("word/document.xml").expect("text");
    let paragraphs = xml.split("</w:p>").map(|paragraph| {
        let breaks = paragraph.replace("<w:br/>", "|");
        let mut out = String::new();
        let mut inside = false;
        for letter in breaks.chars() {
            match letter {
                '<' => inside = true,
                '>' => inside = false,
                letter if !inside => out.push(letter),
                _ => {}
            }
        }
        out
    });
    let mut paragraphs: Vec<String> = paragraphs.collect();
    paragraphs.pop();
    (paragraphs, findings)
}

fn p(text: &str) -> String {
    format!("<w:p><w:r><w:t>{text}</w:t></w:r></w:p>")
}

#[test]
fn a_placeholder_that_is_split_over_runs_is_found() {
    let body = "<w:p><w:r><w:rPr><w:b/></w:rPr><w:t>To {</w:t></w:r><w:proofErr/><w:r><w:t>{na</w:t></w:r><w:r><w:t>me}</w:t></w:r>\
                <w:r><w:t>}, {{greeting}}!</w:t></w:r></w:p>";
    let (paragraphs, findings) = rendered(body, &json!({"name": "A & <B>\nC", "greeting": "hi"}));
    assert_eq!(paragraphs, ["To A &amp; &lt;B&gt;|C, hi!"]);
    assert!(findings.missing.is_empty());
}

#[test]
fn sections_repeat_paragraphs_rows_and_words() {
    let cell = |text: &str| format!("<w:tc>{}</w:tc>", p(text));
    let table = format!(
        "<w:tbl><w:tr>{}{}</w:tr><w:tr>{}{}</w:tr></w:tbl>",
        cell("Name"),
        cell("Price"),
        cell("{{#items}}{{name}}"),
        cell("{{price}}{{/items}}"),
    );
    let body = [
        p("{{#people}}"),
        p("Dear {{.}}"),
        p("and"),
        p("{{/people}}"),
        table,
        p("{{#items}}{{name}} {{/items}}end"),
    ]
    .concat();
    let data = json!({"people": ["A", "B"], "items": [{"name": "x", "price": 1}, {"name": "y", "price": 2.5}]});
    let (paragraphs, findings) = rendered(&body, &data);
    assert_eq!(
        paragraphs,
        [
            "Dear A", "and", "Dear B", "and", "Name", "Price", "x", "1", "y", "2.5", "x y end"
        ]
    );
    assert!(
        findings.missing.is_empty() && findings.faults.is_empty(),
        "{findings:?}"
    );
    let rows = [
        ("{{#items}}", "x"),
        ("{{name}}", "{{price}}"),
        ("{{/items}}", ""),
    ];
    let rows: String = rows
        .iter()
        .map(|(a, b)| format!("<w:tr>{}{}</w:tr>", cell(a), cell(b)))
        .collect();
    let (paragraphs, _) = rendered(&format!("<w:tbl>{rows}</w:tbl>"), &data);
    assert_eq!(
        paragraphs,
        ["", "x", "x", "1", "", "", "", "x", "y", "2.5", "", ""]
    );
}

/// Written by a word processor (LibreOffice): styles, a table, an image, a text box, a footnote, a list, header and footer,
/// and placeholders whose letters have different formats.
const TWENTY_PAGES: &[u8] = include_bytes!("twenty-pages.docx");

#[test]
fn a_document_of_twenty_pages_from_a_word_processor_is_rendered_everywhere() {
    let data = json!({
        "customer": {"name": "Müller & Söhne <GmbH>", "contact": "Ada Lovelace"}, "date": "2026-11-25",
        "source": "the night log", "boxed": "inside the box", "company": "Ops Inc.", "reference": "R-17", "total": "42.50",
        "items": [{"name": "Lamp", "count": 2, "price": "40.00"}, {"name": "Manual", "count": 1}],
        "sections": [{"title": "What broke", "text": "one\ntwo", "points": ["disk", "fan"]}, {"title": "What was done", "text": "-", "points": ["-"]}],
        "remarks": ["keep cool"],
    });
    let mut findings = Findings::default();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out.docx");
    docx::render_docx(file_of(TWENTY_PAGES), &data, &mut findings, || {
        private_file(&path)
    })
    .expect("usable")
    .expect("written");
    assert!(
        findings.missing.is_empty() && findings.faults.is_empty(),
        "{findings:?}"
    );
    let mut package = Package::open(File::open(&path).expect("opened")).expect("a package");
    let names = package.texts.clone();
    let texts: Vec<String> = names
        .iter()
        .map(|name| package.text(name).expect("text"))
        .collect();
    let all = texts.concat();
    assert!(!all.contains("{{") && !all.contains("}}"));
    for (words, times) in [
        ("Müller &amp; Söhne &lt;GmbH&gt;", 21),
        ("Ada Lovelace", 1),
        ("Ops Inc.", 1),
        ("the night log", 1),
        ("R-17, page ", 1),
        ("R-17-20.8", 1),
        ("Lamp", 1),
        (">free<", 1),
        ("What was done", 1),
        ("disk; fan; end of points", 1),
        ("Remark: keep cool", 1),
    ] {
        assert_eq!(all.matches(words).count(), times, "{words}");
    }
    assert!(all.contains("Boxed: inside the box") && !all.contains("No remarks"));
    let before = Package::open(file_of(TWENTY_PAGES)).expect("a package");
    assert_eq!(names, before.texts, "every part is still there");
}

#[test]
fn sections_that_cannot_be_followed_are_refused() {
    for body in [
        [p("a {{#items}}"), p("{{/items}}")].concat(),
        p("{{#items}}"),
        p("{{/items}}"),
        format!(
            "{}<w:tbl><w:tr><w:tc>{}</w:tc></w:tr></w:tbl>",
            p("{{#items}}"),
            p("{{/other}}")
        ),
    ] {
        let refused = docx::render_docx(
            document(&body),
            &json!({"items": [1]}),
            &mut Findings::default(),
            tempfile::tempfile,
        );
        assert!(refused.is_err(), "{body}");
    }
}

#[test]
fn a_template_that_would_take_for_ever_or_all_memory_is_refused_at_once() {
    let refused = |body: &str, data: &Value| {
        let mut findings = Findings::default();
        let rendered = docx::render_docx(document(body), data, &mut findings, tempfile::tempfile);
        rendered.expect_err("refused").0
    };
    let nested = p("{{#a}}").repeat(10_000) + &p("{{/a}}").repeat(10_000);
    assert!(refused(&nested, &json!({"a": true})).contains("nested deeper"));
    let cells = |tag: &str, count| format!("<w:tc>{}</w:tc>", p(tag)).repeat(count);
    let row = format!(
        "<w:tbl><w:tr>{}{}</w:tr></w:tbl>",
        cells("{{#a}}", 5000),
        cells("{{/a}}", 5000)
    );
    assert!(refused(&row, &json!({"a": true})).contains("nested deeper"));
    let many: Vec<u8> = vec![0; 1000];
    let empty = p("{{#t}}").repeat(5) + &p("{{/t}}").repeat(5);
    assert!(refused(&empty, &json!({"t": many})).contains("larger"));
    let skipped = p("{{#t}}")
        + &p("{{#none?}}")
        + &p("words").repeat(10_000)
        + &p("{{/none}}")
        + &p("{{/t}}");
    assert!(refused(&skipped, &json!({"t": many})).contains("larger"));
    // Numbers, so that it is no bomb to the eye.
    let numbers = |count: u32| (0..count).map(|number| number.wrapping_mul(2_654_435_761));
    let crowd: String = numbers(600_000)
        .map(|number| format!("<w:r a=\"{number}\"/>"))
        .collect();
    assert!(refused(&crowd, &json!({})).contains("elements"));
    let runs: String = numbers(60_000)
        .map(|number| format!("<w:t>{{{{a|{number}}}}}</w:t>"))
        .collect();
    let (paragraphs, _) = rendered(&format!("<w:p>{runs}</w:p>"), &json!({}));
    let expected: String = numbers(60_000).map(|number| number.to_string()).collect();
    assert!(paragraphs == [expected], "many runs in one paragraph");
}

#[test]
fn hostile_packages_are_refused_and_nothing_is_written() {
    let types = ("[Content_Types].xml", TYPES.as_bytes());
    let good = (
        "word/document.xml",
        b"<w:document xmlns:w=\"w\"/>".as_slice(),
    );
    let relation = |kind: &str, mode: &str| {
        format!(
            "<Relationships><Relationship Type=\"http://x/{kind}\" Target=\"http://evil/\" TargetMode=\"{mode}\"/></Relationships>"
        )
    };
    let (template, image, link) = (
        relation("attachedTemplate", "External"),
        relation("image", "External"),
        relation("hyperlink", "External"),
    );
    let zeros = vec![0; 8 * 1024 * 1024];
    let utf16 = b"\xff\xfe<\0?\0";
    let entity =
        b"<!DOCTYPE x [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><w:document>&a;</w:document>";
    let laughs =
        b"<!DOCTYPE x [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;\">]><w:document>&b;</w:document>";
    let undeclared =
        b"<w:document xmlns:w=\"w\"><w:p><w:r><w:t>&xxe; {{a}}</w:t></w:r></w:p></w:document>";
    let deep: String = (0..5000).map(|_| "<w:p>").collect();
    let many: Vec<String> = (0..2500)
        .map(|number| format!("word/media/{number}"))
        .collect();
    let mut crowd: Vec<(&str, &[u8])> = vec![types, good];
    crowd.extend(many.iter().map(|name| (name.as_str(), b"".as_slice())));
    let cases: Vec<(&str, Entries<'_>)> = vec![
        ("no document", vec![types]),
        ("no types", vec![good]),
        ("a path out", vec![types, good, ("../evil.xml", b"x")]),
        ("an absolute path", vec![types, good, ("/etc/evil", b"x")]),
        (
            "a path of another system",
            vec![types, good, ("word\\..\\evil", b"x")],
        ),
        (
            "a double by case",
            vec![types, good, ("WORD/document.xml", good.1)],
        ),
        (
            "an external entity",
            vec![types, ("word/document.xml", entity)],
        ),
        (
            "a billion laughs",
            vec![types, ("word/document.xml", laughs)],
        ),
        (
            "an entity of nobody",
            vec![types, ("word/document.xml", undeclared)],
        ),
        (
            "an entity elsewhere",
            vec![types, good, ("word/styles.xml", entity)],
        ),
        (
            "another encoding",
            vec![types, good, ("word/styles.xml", utf16)],
        ),
        (
            "a template from elsewhere",
            vec![
                types,
                good,
                ("word/_rels/settings.xml.rels", template.as_bytes()),
            ],
        ),
        (
            "an image from elsewhere",
            vec![
                types,
                good,
                ("word/_rels/document.xml.rels", image.as_bytes()),
            ],
        ),
        ("macros", vec![types, good, ("word/vbaProject.bin", b"x")]),
        (
            "macro types",
            vec![
                ("[Content_Types].xml", b"<Types macroEnabled=\"1\"/>"),
                good,
            ],
        ),
        (
            "an embedded object",
            vec![types, good, ("word/embeddings/oleObject1.bin", b"x")],
        ),
        ("a bomb", vec![types, good, ("word/media/bomb.png", &zeros)]),
        (
            "too deep",
            vec![types, ("word/document.xml", deep.as_bytes())],
        ),
        ("a crowd", crowd),
    ];
    for (what, entries) in cases {
        let mut asked = false;
        let refused = docx::render_docx(
            zipped(&entries),
            &json!({"a": 1}),
            &mut Findings::default(),
            || {
                asked = true;
                tempfile::tempfile()
            },
        );
        assert!(refused.is_err(), "{what}");
        assert!(!asked, "{what}");
    }
    for garbage in [b"".as_slice(), b"PK\x03\x04", b"no zip at all"] {
        assert!(Package::open(file_of(garbage)).is_err());
    }
    let harmless = zipped(&[
        types,
        good,
        ("word/_rels/document.xml.rels", link.as_bytes()),
    ]);
    assert!(
        Package::open(harmless).is_ok(),
        "a link that a reader clicks"
    );
}

#[test]
fn a_link_in_the_package_is_refused() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_symlink(
        "word/document.xml",
        "/etc/passwd",
        SimpleFileOptions::default(),
    )
    .expect("a link");
    let bytes = zip.finish().expect("an archive").into_inner();
    assert!(Package::open(file_of(&bytes)).is_err());
}

#[test]
fn the_payload_s_schema_takes_what_the_type_takes() {
    let schema = PayloadSchema::new(&schema()).expect("a schema");
    let full = json!({
        "template": "a.docx", "data": {"a": 1}, "required": ["a"], "strict": true, "data_schema": {}, "output": "b.docx",
    });
    for good in [json!({}), full] {
        assert!(schema.faults(&good).is_empty());
        assert!(serde_json::from_value::<Payload>(good).is_ok());
    }
    for bad in [
        json!({"x": 1}),
        json!({"data": []}),
        json!({"output": "../x.md"}),
        json!({"strict": "yes"}),
    ] {
        assert!(!schema.faults(&bad).is_empty(), "{bad}");
    }
}
