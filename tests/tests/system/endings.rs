//! How commands are brought to an end, and that no job hangs on what a command prints, answers or leaves behind.

use serde_json::json;
use tests::{System, processes_of, wait_until};

/// A process and its child in the same group, neither of which ends when it is asked to.
const DEAF: &str = r#"
trap '' TERM
sh -c 'trap "" TERM; while :; do sleep 0.1; done' &
while :; do sleep 0.1; done"#;

async fn until_both_run(system: &System) {
    wait_until("the command and its child run", async || {
        (processes_of(system.folder()).len() >= 2).then_some(())
    })
    .await;
}

async fn until_none_runs(system: &System) {
    wait_until("no process of the job is left", async || {
        processes_of(system.folder()).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_timeout_kills_a_deaf_command_and_its_child() {
    let system = System::builder()
        .shell("deaf", DEAF, "timeout_seconds = 2")
        .start()
        .await;
    let id = system.submit_type("deaf").await;
    system.until(&id, "running").await;
    until_both_run(&system).await;
    let job = system.until(&id, "failed").await;
    assert_eq!(job["error"], "timed out after 2 s");
    until_none_runs(&system).await;
    let id = system
        .submit(&json!({"job_type": "deaf", "timeout_seconds": 1}))
        .await;
    assert_eq!(
        system.until(&id, "failed").await["error"],
        "timed out after 1 s",
        "the job's own limit holds"
    );
    system.stop().await;
}

#[tokio::test]
async fn an_abort_kills_a_deaf_command_and_its_child() {
    let system = System::builder()
        .shell("deaf", DEAF, "max_attempts = 3")
        .set("RUNNER_LEASE_SECONDS", "6")
        .start()
        .await;
    let id = system.submit_type("deaf").await;
    system.until(&id, "running").await;
    until_both_run(&system).await;
    let asked = system
        .ops
        .post(&format!("/jobs/{id}/abort"), &json!({"reason": "enough"}))
        .await
        .expect(202)
        .json();
    assert_eq!(asked["status"], "running");
    assert!(!asked["abort_requested_at"].is_null(), "{asked}");
    system.until(&id, "aborted").await;
    assert_eq!(
        system.kinds(&id).await,
        ["queued", "running", "abort_requested", "aborted"]
    );
    until_none_runs(&system).await;
    system.stop().await;
}

#[tokio::test]
async fn a_flood_of_output_is_cut_and_says_how_much_is_missing() {
    let system = System::builder()
        .shell("flood", "yes 0123456789abcdef | head -c 20000000", "")
        .start()
        .await;
    let job = system
        .run_until(&json!({"job_type": "flood"}), "succeeded")
        .await;
    let log = system.log(job["id"].as_str().expect("an id")).await;
    assert!((4_000_000..4_400_000).contains(&log.len()), "{}", log.len());
    let remark = log
        .lines()
        .find(|line| line.starts_with("[output cut here: "))
        .expect("a remark");
    let mut numbers = remark
        .split(|sign: char| !sign.is_ascii_digit())
        .filter_map(|number| number.parse::<usize>().ok());
    let (lines, bytes) = (numbers.next(), numbers.next());
    let total = log.len() - remark.len() - 1 + bytes.expect("bytes");
    // The last line has no end, and is given one.
    assert!(total.abs_diff(20_000_000) <= 1, "{total}");
    let total = log.lines().count() - 1 + lines.expect("lines");
    assert_eq!(total, 20_000_000_usize.div_ceil(17));
    assert!(!log.ends_with("left out]\n"), "its end is kept");
    system.stop().await;
}

/// What a command does, and how its job ends.
const STRANGE: [(&str, &str, &str); 14] = [
    (
        "nul",
        r#"printf '{"a":"x\\u0000y","k\\u0000":1}' > "$OPS_RESULT_FILE""#,
        "succeeded",
    ),
    (
        "surrogate",
        r#"printf '"\\ud800"' > "$OPS_RESULT_FILE""#,
        "failed",
    ),
    (
        "huge_number",
        r#"printf '[1e999, 1e-999, 99999999999999999999999]' > "$OPS_RESULT_FILE""#,
        "failed",
    ),
    (
        "large_number",
        r#"printf '[1e308, 1.7976931348623157e308, -0.0, 5e-324]' > "$OPS_RESULT_FILE""#,
        "succeeded",
    ),
    (
        "deep",
        r#"yes '[' | head -n 100000 | tr -d '\n' > "$OPS_RESULT_FILE""#,
        "failed",
    ),
    (
        "deep_and_right",
        r#"{ yes '[' | head -n 120; yes ']' | head -n 120; } | tr -d '\n' > "$OPS_RESULT_FILE""#,
        "succeeded",
    ),
    (
        "no_text",
        r#"printf '"\377\376"' > "$OPS_RESULT_FILE""#,
        "failed",
    ),
    (
        "too_large",
        r#"{ printf '"'; head -c 3000000 /dev/zero | tr '\0' x; printf '"'; } > "$OPS_RESULT_FILE""#,
        "failed",
    ),
    (
        "a_folder",
        r#"rm -f "$OPS_RESULT_FILE"; mkdir "$OPS_RESULT_FILE""#,
        "failed",
    ),
    (
        "a_pipe",
        r#"rm -f "$OPS_RESULT_FILE"; mkfifo "$OPS_RESULT_FILE""#,
        "failed",
    ),
    (
        "binary_output",
        r#"head -c 100000 /dev/urandom; head -c 1000 /dev/zero >&2; exit 1"#,
        "failed",
    ),
    (
        "strange_events",
        r#"printf '{"progress":0.5,"message":"\\u0000"}\n{"progress":1e999}\n{"progress":7}\n[]\n\377\n' >> "$OPS_EVENTS_FILE""#,
        "succeeded",
    ),
    (
        "no_events_file",
        r#"rm -f "$OPS_EVENTS_FILE"; mkdir "$OPS_EVENTS_FILE""#,
        "succeeded",
    ),
    ("no_folder", r#"rm -rf "$PWD""#, "succeeded"),
];

#[tokio::test]
async fn whatever_a_command_answers_or_prints_its_job_ends() {
    let mut builder = System::builder();
    for (name, script, _) in STRANGE {
        builder = builder.shell(name, script, "timeout_seconds = 20");
    }
    let system = builder.start().await;
    let mut ids = Vec::new();
    for (name, _, status) in STRANGE {
        ids.push((system.submit_type(name).await, status));
    }
    for (id, status) in ids {
        let job = system.until(&id, status).await;
        let error = job["error"].as_str().unwrap_or_default();
        assert!(!error.contains("timed out"), "{job}");
        assert_eq!(job["attempt"], 1, "{job}");
        assert!(!system.events(&id).await.is_empty());
    }
    system.stop().await;
}
