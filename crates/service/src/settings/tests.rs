//! The promises of a configuration as a whole: what wins, what is refused, what is never shown.

use std::path::PathBuf;
use std::time::Duration;

use super::*;

const SETTINGS: &[Setting] = &[
    Setting::new(
        "OPS_KEY",
        Kind::SecretList,
        Fallback::RequiredWhen("in prod"),
        "keys",
    ),
    Setting::new("RUNNER_TOKEN", Kind::Secret, Fallback::Required, "a token"),
    Setting::new(
        "RUNNER_LEASE_SECONDS",
        Kind::Seconds(5, 600),
        Fallback::Is("30"),
        "a span",
    ),
    Setting::new(
        "RUNNER_SLOTS",
        Kind::Integer(1, 100),
        Fallback::Is("4"),
        "a number",
    ),
    Setting::new(
        "RUNNER_BIND",
        Kind::Address,
        Fallback::Is("127.0.0.1:1"),
        "an address",
    ),
    Setting::new("RUNNER_URL", Kind::Url, Fallback::Unset, "another address"),
    Setting::new("RUNNER_LIST", Kind::List, Fallback::Is("a,b"), "texts"),
    Setting::new("RUNNER_NAME", Kind::Text, Fallback::Unset, "a text"),
];

const TABLES: &[&[Setting]] = &[SharedSettings::SETTINGS, crate::flags::SETTINGS, SETTINGS];

struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(name: &str, text: &str) -> File {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("written");
    File {
        _folder: folder,
        path,
    }
}

fn load(config: Option<&File>, pairs: &[(&str, &str)]) -> Values {
    let sources = Sources {
        config: config.map(|file| file.path.clone()),
        environment: Environment::from_pairs(pairs.iter().copied()),
    };
    Values::load(TABLES, &["job_types"], sources)
}

fn refused(values: Values) -> Vec<String> {
    let error = values.finish(()).expect_err("must be refused");
    error
        .problems
        .into_iter()
        .map(|problem| problem.name)
        .collect()
}

#[test]
fn later_layers_win() {
    let file = file(
        "a.toml",
        "runner_lease_seconds = 40\nRUNNER_SLOTS = 5\nrunner_list = [\"x\"]\n",
    );
    let mut values = load(Some(&file), &[("RUNNER_SLOTS", "6")]);
    assert_eq!(
        values.seconds("RUNNER_LEASE_SECONDS"),
        Duration::from_secs(40)
    );
    assert_eq!(values.integer::<u16>("RUNNER_SLOTS"), 6);
    assert_eq!(values.list("RUNNER_LIST"), ["x"]);
    assert_eq!(values.address("RUNNER_BIND").port(), 1);
    let source = |name| {
        values
            .sources()
            .find(|(known, _)| *known == name)
            .map(|(_, from)| from)
    };
    assert_eq!(source("RUNNER_SLOTS"), Some(Source::Environment));
    assert_eq!(source("RUNNER_LEASE_SECONDS"), Some(Source::File));
    assert_eq!(source("RUNNER_BIND"), Some(Source::Default));
    assert_eq!(source("RUNNER_URL"), Some(Source::Unset));
    values.finish(()).expect("nothing is wrong");
}

#[test]
fn toml_and_yaml_say_the_same_and_ops_config_names_either() {
    for (name, text) in [
        ("a.toml", "runner_name = \"n\"\n[job_types.x]\na = 1\n"),
        ("a.yaml", "runner_name: n\njob_types:\n  x:\n    a: 1\n"),
    ] {
        let file = file(name, text);
        let path = file.path.to_str().expect("text");
        let mut values = load(None, &[("OPS_CONFIG", path)]);
        assert_eq!(
            values.optional_text("RUNNER_NAME").as_deref(),
            Some("n"),
            "{name}"
        );
        type Types = std::collections::BTreeMap<String, std::collections::BTreeMap<String, u32>>;
        let types: Types = values.section("job_types");
        assert_eq!(types["x"]["a"], 1, "{name}");
        assert_eq!(values.config_file(), Some(file.path.as_path()));
        values.finish(()).expect("nothing is wrong");
    }
}

#[test]
fn environment_texts_reach_the_program_as_they_are() {
    for text in [
        "0123",
        "true",
        "[x]",
        "\"quoted\"",
        " spaced ",
        "{a=1}",
        "1e5",
    ] {
        let mut values = load(None, &[("RUNNER_TOKEN", text)]);
        assert_eq!(values.secret("RUNNER_TOKEN").expose(), text);
        values.finish(()).expect("nothing is wrong");
    }
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let mut values = load(
        None,
        &[
            ("RUNNER_TOKEN", ""),
            ("RUNNER_URL", ""),
            ("RUNNER_SLOTS", ""),
        ],
    );
    assert_eq!(values.optional_url("RUNNER_URL"), None);
    assert_eq!(values.integer::<u64>("RUNNER_SLOTS"), 4);
    values.secret("RUNNER_TOKEN");
    assert_eq!(refused(values), ["RUNNER_TOKEN"]);
}

#[test]
fn every_wrong_setting_is_told_at_once_and_no_value_is_shown() {
    let names = [
        "APP_ENV",
        "DATABASE_URL",
        "DATABASE_MAX_CONNECTIONS",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "JOBS_ENABLED",
        "RUNNER_LEASE_SECONDS",
        "RUNNER_SLOTS",
        "RUNNER_BIND",
        "RUNNER_URL",
    ];
    let pairs = names.map(|name| (name, "canary=!"));
    let mut values = load(None, &pairs);
    SharedSettings::read(&mut values);
    values.seconds("RUNNER_LEASE_SECONDS");
    values.integer::<u64>("RUNNER_SLOTS");
    values.address("RUNNER_BIND");
    values.optional_url("RUNNER_URL");
    values.secret("RUNNER_TOKEN");
    let error = values.finish(()).expect_err("all are wrong");
    let text = error.to_string();
    for name in names.iter().chain(&["RUNNER_TOKEN"]) {
        assert!(
            text.lines()
                .any(|line| line.starts_with(&format!("{name}: "))),
            "{name} in {text}"
        );
    }
    assert_eq!(text.lines().count(), names.len() + 1);
    assert!(!text.contains("canary"), "{text}");
    assert!(text.contains("PostgreSQL"), "{text}");
}

#[test]
fn unknown_keys_of_a_file_are_refused_with_the_nearest_name() {
    let file = file(
        "a.toml",
        "runner_slot = 1\nnonsense_altogether = \"canary\"\nRunner_Name = \"x\"\n",
    );
    let error = load(Some(&file), &[]).finish(()).expect_err("unknown keys");
    let text = error.to_string();
    assert!(
        text.contains("runner_slot: ") && text.contains("`runner_slots`"),
        "{text}"
    );
    assert!(text.contains("nonsense_altogether: "), "{text}");
    assert!(text.contains("Runner_Name: "), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn a_secret_in_a_file_must_be_quoted() {
    for (name, text) in [
        ("a.toml", "runner_token = 123\n"),
        ("a.yaml", "runner_token: 123\n"),
    ] {
        let file = file(name, text);
        assert_eq!(refused(load(Some(&file), &[])), ["RUNNER_TOKEN"], "{name}");
    }
}

#[test]
fn a_wrong_section_is_told_by_its_place_without_its_value() {
    let file = file("a.toml", "[job_types.x]\na = \"canary\"\n");
    let mut values = load(Some(&file), &[]);
    type Types = std::collections::BTreeMap<String, std::collections::BTreeMap<String, u32>>;
    let _: Types = values.section("job_types");
    let text = values.finish(()).expect_err("wrong").to_string();
    assert!(
        text.starts_with("job_types: at ") && text.contains("x.a"),
        "{text}"
    );
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn a_misspelt_variable_of_ours_is_warned_of_and_others_are_let_be() {
    let values = load(
        None,
        &[
            ("RUNNER_SLOST", "1"),
            ("RUNNER_OF_THE_CI", "1"),
            ("PATHS", "x"),
        ],
    );
    assert_eq!(
        values.warnings(),
        ["RUNNER_SLOST is no setting of this program: did you mean RUNNER_SLOTS?"]
    );
    values.finish(()).expect("a warning is no fault");
}

#[test]
fn listening_beyond_this_machine_must_be_meant() {
    for (bind, allow, right) in [
        ("127.0.0.1:80", "0", true),
        ("[::1]:80", "0", true),
        ("0.0.0.0:80", "0", false),
        ("[::]:80", "0", false),
        ("10.0.0.1:80", "0", false),
        ("0.0.0.0:80", "1", true),
    ] {
        let mut values = load(
            None,
            &[("RUNNER_BIND", bind), ("ALLOW_EXTERNAL_BIND", allow)],
        );
        values.bind_address("RUNNER_BIND");
        assert_eq!(values.finish(()).is_ok(), right, "{bind} {allow}");
    }
}

#[test]
fn what_a_condition_requires_is_refused_when_absent() {
    let mut values = load(None, &[]);
    values.require("OPS_KEY");
    let text = values.finish(()).expect_err("absent").to_string();
    assert_eq!(text, "OPS_KEY: is required in prod: set it");
    let mut values = load(None, &[("OPS_KEY", " , ")]);
    values.secret_list("OPS_KEY");
    assert_eq!(refused(values), ["OPS_KEY"]);
}

#[test]
fn a_getter_that_does_not_fit_its_declaration_is_refused() {
    let mut values = load(None, &[("RUNNER_NAME", "1")]);
    values.integer::<u64>("RUNNER_NAME");
    values.text("UNHEARD_OF");
    assert_eq!(refused(values), ["RUNNER_NAME", "UNHEARD_OF"]);
}

#[test]
fn the_shared_settings_are_read_as_documented() {
    let pairs = [
        ("APP_ENV", "test"),
        ("DATABASE_URL", "postgres://u:canary@h/d"),
        ("GATES_ENABLED", "1"),
        ("LOG_FORMAT", "json"),
    ];
    let mut values = load(None, &pairs);
    let shared = SharedSettings::read(&mut values);
    let shared = values.finish(shared).expect("right");
    assert!(shared.app_env.is_development());
    assert_eq!(shared.database_max_connections, 10);
    assert!(shared.flags.is_on(crate::flags::Flag::Gates));
    assert!(!shared.flags.is_on(crate::flags::Flag::Jobs));
    assert!(!format!("{shared:?}").contains("canary"));
}
