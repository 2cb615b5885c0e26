//! What placeholders stand for, and templates that would never end.

use serde_json::json;

use super::*;

fn rendered(text: &str, data: &Value) -> (String, Findings) {
    let mut findings = Findings::default();
    let out = render_text(text, data, &mut findings).expect("a usable template");
    (out, findings)
}

#[test]
fn placeholders_stand_for_data() {
    let data = json!({
        "title": "Ü", "n": 7, "on": true, "person": {"name": "A"},
        "items": [{"x": "1"}, {"x": "2"}], "plain": ["p", "q"], "none": [], "off": false,
    });
    for (template, expected) in [
        ("{{title}} {{ n }} {{on}} {{person.name}}", "Ü 7 true A"),
        ("{{#items}}[{{x}}{{title}}]{{/items}}", "[1Ü][2Ü]"),
        ("{{#plain}}{{.}},{{/plain}}{{plain.1}}", "p,q,q"),
        ("{{#person}}{{name}}{{/person}}", "A"),
        ("{{#none}}x{{/none}}{{^none}}empty{{/none}}", "empty"),
        (
            "{{#off}}x{{/off}}{{^off}}off{{/off}}{{#on}}on{{/on}}",
            "offon",
        ),
        (
            "{{absent?}}{{absent|else}}{{#absent?}}x{{/absent}}{{^absent}}y{{/absent}}",
            "elsey",
        ),
        ("a\n{{#items}}\n- {{x}}\n{{/items}}\nb", "a\n- 1\n- 2\nb"),
        ("{ {title} }", "{ {title} }"),
    ] {
        let (out, findings) = rendered(template, &data);
        assert_eq!(out, expected, "{template}");
        assert!(
            findings.missing.is_empty() && findings.faults.is_empty(),
            "{findings:?}"
        );
    }
}

#[test]
fn what_is_missing_is_named_from_the_root() {
    let data = json!({"items": [{"x": "1"}, {"x": " "}], "person": {}, "empty": ""});
    let (_, findings) = rendered(
        "{{#items}}{{x}}{{/items}}{{person.name}}{{empty}}{{gone}}{{gone}}{{#list}}{{/list}}",
        &data,
    );
    let missing: Vec<_> = findings
        .missing
        .iter()
        .map(|(path, times)| format!("{path} {times}"))
        .collect();
    assert_eq!(
        missing,
        [
            "empty 1",
            "gone 2",
            "items[1].x 1",
            "list 1",
            "person.name 1"
        ]
    );
}

#[test]
fn what_a_value_holds_is_never_looked_at_again() {
    let (out, findings) = rendered("{{a}}", &json!({"a": "{{b}}{{#c}}"}));
    assert_eq!(out, "{{b}}{{#c}}");
    assert!(findings.missing.is_empty());
}

#[test]
fn what_only_looks_like_a_placeholder_is_a_fault_and_stays() {
    let (out, findings) = rendered(
        "{{a b}} {{}} {{x\n}} {{person}}",
        &json!({"person": {"n": 1}}),
    );
    assert_eq!(out, "{{a b}} {{}} {{x\n}} {\"n\":1}");
    assert_eq!(findings.faults.len(), 4, "{findings:?}");
}

#[test]
fn sections_that_do_not_fit_together_are_refused() {
    let deep: String = (0..20).map(|_| "{{#a}}").collect();
    for template in ["{{#a}}", "{{/a}}", "{{#a}}{{#b}}{{/a}}{{/b}}", &deep] {
        assert!(
            render_text(template, &json!({}), &mut Findings::default()).is_err(),
            "{template}"
        );
    }
    let many: Vec<u8> = vec![0; 100];
    let bomb = "{{#t}}{{#t}}{{#t}}{{#t}}{{#t}}x{{/t}}{{/t}}{{/t}}{{/t}}{{/t}}";
    let refused = render_text(bomb, &json!({"t": many}), &mut Findings::default());
    assert!(refused.expect_err("too large").0.contains("larger"));
    let empty = bomb.replace('x', "");
    let refused = render_text(&empty, &json!({"t": many}), &mut Findings::default());
    assert!(refused.expect_err("too much").0.contains("larger"));
}

#[test]
fn a_text_of_nothing_but_braces_is_read_in_no_time() {
    for line in ["{{".repeat(1_000_000), "{{a|}}".repeat(500_000)] {
        let (out, _) = rendered(&line, &json!({}));
        assert_eq!(out.len(), if line.ends_with('}') { 0 } else { line.len() });
    }
}

#[test]
fn required_paths_reach_into_lists() {
    let data = json!({"title": "t", "people": [{"name": "a"}, {}], "none": []});
    let mut findings = Findings::default();
    for path in ["title", "people[].name", "none[].x", "gone.deep"] {
        require(path, data.as_object().expect("an object"), &mut findings);
    }
    let missing: Vec<_> = findings.missing.into_keys().collect();
    assert_eq!(missing, ["gone.deep", "none.x", "people[1].name"]);
}
