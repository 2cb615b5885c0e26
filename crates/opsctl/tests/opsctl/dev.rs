//! `opsctl dev`: the first job, what is kept, who may use it, and every way to end it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::program::{Serving, StateFolder, api_key, opsctl, outcome};

#[test]
fn the_first_job_succeeds_and_the_keys_are_kept_for_the_next_start() {
    let state = StateFolder::new();
    let (code, out, err) = outcome(&mut state.dev(&["--exit"]));
    assert_eq!(code, 0, "{out}{err}{}", state.troubles());
    for kind in ["queued", "running", "succeeded", "hello, world"] {
        assert!(out.contains(kind), "{kind} in {out}");
    }
    for name in ["dev.env", "ops-key.header", "dev.log"] {
        let mode = fs::metadata(state.path(name))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let key = api_key(&state);
    assert!(
        !out.contains(&key)
            && !fs::read_to_string(state.path("dev.log"))
                .expect("read")
                .contains(&key)
    );
    assert_eq!(outcome(&mut state.dev(&["--exit"])).0, 0);
    assert_eq!(api_key(&state), key);
}

#[test]
fn one_folder_serves_one_and_a_signal_ends_it_cleanly() {
    let state = StateFolder::new();
    let serving = Serving::start(state.dev(&[]));
    assert!(
        serving.banner.contains(&api_key(&state)),
        "{}",
        serving.banner
    );
    let (code, _, err) = outcome(&mut state.dev(&["--exit"]));
    assert_eq!(code, 1);
    assert!(err.contains("another opsctl dev"), "{err}");
    let reset = || outcome(opsctl(&["dev", "reset", "--yes", "--state"]).arg(state.root())).0;
    assert_eq!(reset(), 1);
    assert_eq!(
        serving.end_by(Signal::TERM),
        Some(0),
        "{}",
        state.troubles()
    );
    assert!(!state.path("pg/data/postmaster.pid").exists());
    assert_eq!(reset(), 0);
    assert!(!state.path("dev.env").exists() && !state.path("pg/data").exists());
}

#[test]
fn after_a_kill_the_next_start_takes_everything_up_again() {
    let state = StateFolder::new();
    assert_eq!(Serving::start(state.dev(&[])).end_by(Signal::KILL), None);
    let key = api_key(&state);
    let (code, out, err) = outcome(&mut state.dev(&["--exit", "--output", "json"]));
    assert_eq!(code, 0, "{out}{err}{}", state.troubles());
    let job: serde_json::Value = serde_json::from_str(&out).expect("nothing but JSON");
    assert_eq!(job["status"], "succeeded");
    assert_eq!(api_key(&state), key);
}

#[test]
fn the_calls_that_are_shown_work_as_they_stand() {
    let state = StateFolder::new();
    let serving = Serving::start(state.dev(&[]));
    let url = serving.url();
    let asked = |arguments: &[&str]| {
        outcome(
            opsctl(arguments)
                .env("OPS_URL", url)
                .env("OPS_API_KEY", api_key(&state)),
        )
    };
    assert_eq!(
        serving
            .banner
            .lines()
            .filter(|line| line.starts_with("curl "))
            .count(),
        3
    );
    let (code, out, err) = asked(&[
        "jobs",
        "submit",
        "hello",
        "--trigger",
        "--wait",
        "--output",
        "json",
    ]);
    assert_eq!(code, 0, "{out}{err}");
    let job: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let id = job["id"].as_str().expect("an id");
    assert!(asked(&["jobs", "log", id]).1.contains("hello from job"));
    assert_eq!(asked(&["jobs", "abort", id]).0, 5);
    assert_eq!(
        asked(&["jobs", "get", "0190163d-8694-739b-aea5-966c26f8ad90"]).0,
        3
    );
    assert_eq!(asked(&["jobs", "list", "--status", "nonsense"]).0, 2);
    assert_eq!(
        asked(&["jobs", "submit", "nobody_takes_it", "--trigger"]).0,
        1
    );
    assert_eq!(
        outcome(
            opsctl(&["jobs", "list"])
                .env("OPS_URL", url)
                .env("OPS_API_KEY", "wrong")
        )
        .0,
        4
    );
    assert_eq!(outcome(&mut opsctl(&["jobs", "list"])).0, 2);
    assert_eq!(serving.end_by(Signal::INT), Some(0));
}

#[test]
fn what_is_ephemeral_leaves_nothing_behind() {
    let temporary = StateFolder::new();
    let mut command = opsctl(&[
        "dev",
        "--ephemeral",
        "--exit",
        "--control-plane-port",
        "0",
        "--runner-port",
        "0",
    ]);
    let (code, out, err) = outcome(
        command
            .env("TMPDIR", temporary.root())
            .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
    );
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(fs::read_dir(temporary.root()).expect("read").count(), 0);
}
