//! Commands: what they are given, what they may say, and what their exit code means.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::System;

#[tokio::test]
async fn a_command_gets_its_payload_and_gives_result_progress_and_output() {
    let script = r#"
[ $# = 0 ] || exit 1
cat > stdin.json
cmp stdin.json "$OPS_PAYLOAD_FILE" || exit 1
echo "{\"progress\": 0.25, \"message\": \"a quarter\"}" >> "$OPS_EVENTS_FILE"
echo "no json" >> "$OPS_EVENTS_FILE"
echo "to stdout"; echo "to stderr" >&2; printf 'no line end'
touch "$OPS_ARTIFACTS_DIR/kept" || exit 1
cat stdin.json > "$OPS_RESULT_FILE""#;
    let system = System::builder().shell("work", script, "").start().await;
    let payload = json!({"text": "ü $(reboot) 'x' \"y\"\n", "list": [1, {"deep": null}]});
    let job = system
        .run_until(
            &json!({"job_type": "work", "payload": payload}),
            "succeeded",
        )
        .await;
    assert_eq!((&job["result"], &job["error"]), (&payload, &Value::Null));
    let id = job["id"].as_str().expect("an id");
    let events = system.events(id).await;
    let progress: Vec<&Value> = events
        .iter()
        .filter(|event| event["kind"] == "progress")
        .collect();
    assert_eq!(progress.len(), 1, "{events:?}");
    assert_eq!(
        (
            &progress[0]["data"]["progress"],
            &progress[0]["data"]["message"]
        ),
        (&json!(0.25), &json!("a quarter"))
    );
    assert_eq!(job["progress"]["progress"], 0.25);
    let log = system.log(id).await;
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["no line end", "to stderr", "to stdout"]);
    system.stop().await;
}

#[tokio::test]
async fn a_command_inherits_four_variables_and_has_its_own_and_nothing_else() {
    let settings = [
        ("PATH", "/usr/bin:/bin"),
        ("HOME", "/somewhere"),
        ("LANG", "C.UTF-8"),
        ("TZ", "Europe/Berlin"),
    ];
    let mut builder = System::builder().job_type(
        "environment",
        "command = [\"env\"]\nenv = { INDEX = \"main\" }",
    );
    for (name, value) in settings {
        builder = builder.set(name, value);
    }
    let system = builder.start().await;
    let job = system
        .run_until(&json!({"job_type": "environment"}), "succeeded")
        .await;
    let id = job["id"].as_str().expect("an id");
    let log = system.log(id).await;
    let found: BTreeMap<&str, &str> = log
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let mut names: Vec<&str> = settings.map(|(name, _)| name).to_vec();
    names.extend([
        "INDEX",
        "OPS_JOB_ID",
        "OPS_JOB_TYPE",
        "OPS_ATTEMPT",
        "OPS_FENCE",
    ]);
    names.extend([
        "OPS_PAYLOAD_FILE",
        "OPS_RESULT_FILE",
        "OPS_INPUT_DIR",
        "OPS_INPUTS_FILE",
        "OPS_ARTIFACTS_DIR",
        "OPS_EVENTS_FILE",
    ]);
    names.sort_unstable();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), names);
    for (name, value) in settings.into_iter().chain([
        ("INDEX", "main"),
        ("OPS_JOB_TYPE", "environment"),
        ("OPS_ATTEMPT", "1"),
    ]) {
        assert_eq!(found[name], value);
    }
    assert_eq!(
        (found["OPS_JOB_ID"], found["OPS_FENCE"]),
        (id, job["fence"].to_string().as_str())
    );
    system.stop().await;
}

#[tokio::test]
async fn exit_75_is_tried_again_until_it_works() {
    let system = System::builder()
        .shell(
            "flaky",
            "[ \"$OPS_ATTEMPT\" -ge 2 ] || exit 75",
            "max_attempts = 3",
        )
        .start()
        .await;
    let job = system
        .run_until(&json!({"job_type": "flaky"}), "succeeded")
        .await;
    assert_eq!(
        (&job["attempt"], &job["max_attempts"], &job["error"]),
        (&json!(2), &json!(3), &Value::Null)
    );
    let id = job["id"].as_str().expect("an id");
    assert_eq!(
        system.kinds(id).await,
        [
            "queued",
            "running",
            "retry_scheduled",
            "running",
            "succeeded"
        ]
    );
    let events = system.events(id).await;
    let scheduled = &events[2]["data"];
    assert_eq!(
        (&scheduled["job_type"], &scheduled["queue"]),
        (&json!("flaky"), &json!("default"))
    );
    assert_eq!(
        (&scheduled["attempt"], &scheduled["max_attempts"]),
        (&json!(1), &json!(3))
    );
    assert!(
        scheduled["run_at"].as_str() > events[2]["at"].as_str(),
        "{events:?}"
    );
    let fences: Vec<i64> = [1, 3]
        .iter()
        .filter_map(|index| events[*index]["data"]["fence"].as_i64())
        .collect();
    assert!(fences.len() == 2 && fences[0] < fences[1], "{events:?}");
    system.stop().await;
}

#[tokio::test]
async fn exit_75_without_attempts_left_is_a_dead_letter() {
    let system = System::builder()
        .shell("flaky", "exit 75", "")
        .start()
        .await;
    let job = system
        .run_until(&json!({"job_type": "flaky"}), "failed")
        .await;
    let id = job["id"].as_str().expect("an id");
    assert_eq!(
        system.kinds(id).await,
        ["queued", "running", "failed", "dead_lettered"]
    );
    let data = &system.events(id).await[3]["data"];
    assert_eq!(
        (
            &data["job_type"],
            &data["queue"],
            &data["attempt"],
            &data["max_attempts"]
        ),
        (&json!("flaky"), &json!("default"), &json!(1), &json!(1))
    );
    assert!(!job["dead_lettered_at"].is_null(), "{job}");
    assert_eq!(
        system
            .database
            .count("select count(*) from ops_dead_letters")
            .await,
        1
    );
    system.stop().await;
}

#[tokio::test]
async fn any_other_exit_code_fails_at_once_even_with_attempts_left() {
    let builder = System::builder().shell(
        "broken",
        "echo 'the reason' >&2; exit 1",
        "max_attempts = 3",
    );
    let system = builder
        .shell("killed", "kill -9 $$", "max_attempts = 3")
        .start()
        .await;
    for (job_type, why) in [
        ("broken", "exit code 1: the reason"),
        ("killed", "killed by signal 9"),
    ] {
        let job = system
            .run_until(&json!({ "job_type": job_type }), "failed")
            .await;
        assert_eq!((&job["error"], &job["attempt"]), (&json!(why), &json!(1)));
        assert_eq!(
            system.kinds(job["id"].as_str().expect("an id")).await,
            ["queued", "running", "failed"]
        );
    }
    system.stop().await;
}

#[tokio::test]
async fn a_command_that_cannot_start_or_answers_nonsense_fails_and_says_so() {
    let builder = System::builder().job_type("missing", "command = [\"./no-such-program\"]");
    let system = builder
        .shell("nonsense", "echo nonsense > \"$OPS_RESULT_FILE\"", "")
        .start()
        .await;
    for (job_type, why) in [("missing", "could not be run"), ("nonsense", "not JSON")] {
        let job = system
            .run_until(&json!({ "job_type": job_type }), "failed")
            .await;
        assert!(
            job["error"]
                .as_str()
                .is_some_and(|error| error.contains(why)),
            "{job}"
        );
    }
    system.stop().await;
}
