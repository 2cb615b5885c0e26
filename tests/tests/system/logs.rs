//! What jobs print: in order, numbered, bounded, the same in every form, and without the runner's secrets.

use base64::Engine as _;
use serde_json::{Value, json};
use tests::{RUNNER_TOKEN, Start, System, lines};

#[tokio::test]
async fn a_log_is_the_same_as_text_as_lines_and_page_by_page() {
    let system = System::builder()
        .shell(
            "talks",
            "seq 2500; echo \"and ü\" >&2; exit 75",
            "max_attempts = 2\nbackoff = { base_seconds = 0 }",
        )
        .start()
        .await;
    let job = system
        .run_until(&json!({"job_type": "talks"}), "failed")
        .await;
    let path = format!("/jobs/{}/log", job["id"].as_str().expect("an id"));
    let text = system.ops.get(&path).await.expect(200);
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(text.body.lines().count(), 2 * 2501);
    let call = system
        .ops
        .call("GET", &path)
        .header("accept", "application/x-ndjson");
    let all = call.send().await.expect(200);
    assert_eq!(all.header("content-type"), "application/x-ndjson");
    let all: Vec<Value> = all
        .body
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let printed: Vec<&str> = all
        .iter()
        .filter_map(|line| line["line"].as_str())
        .collect();
    assert_eq!(printed, text.body.lines().collect::<Vec<_>>());
    for (number, line) in (1..).zip(&all) {
        assert_eq!(line["seq"], number, "{line}");
        assert_eq!(
            line["attempt"],
            if number <= 2501 { 1 } else { 2 },
            "{line}"
        );
    }
    let (mut pages, mut after) = (Vec::new(), 0);
    loop {
        let call = system
            .ops
            .call("GET", &format!("{path}?after={after}&limit=999"));
        let page = call
            .header("accept", "application/json")
            .send()
            .await
            .expect(200)
            .json();
        pages.extend(page["lines"].as_array().cloned().expect("lines"));
        after = page["last_seq"].as_i64().expect("a number");
        if page["complete"] == true {
            break;
        }
    }
    assert_eq!(pages, all);
    let few = system
        .ops
        .get(&format!("{path}?after=2499&limit=3"))
        .await
        .expect(200);
    assert_eq!(few.body.lines().count(), 3);
    assert!(few.body.starts_with("2500\n"), "{}", few.body);
    for wrong in ["after=-1", "limit=0", "format=xml"] {
        let field = wrong.split('=').next().expect("a name");
        assert_eq!(
            system
                .ops
                .get(&format!("{path}?{wrong}"))
                .await
                .wrong_fields(),
            [field]
        );
    }
    system.stop().await;
}

#[tokio::test]
async fn a_page_of_a_long_log_ends_early_and_the_next_goes_on() {
    let script = "head -c 16000 /dev/zero | tr '\\0' x > x; echo >> x; i=0; while [ $i -lt 250 ]; do i=$((i+1)); cat x; done; exit 75";
    let terms = "max_attempts = 3\nbackoff = { base_seconds = 0 }";
    let system = System::builder().shell("loud", script, terms).start().await;
    let job = system
        .run_until(&json!({"job_type": "loud"}), "failed")
        .await;
    let path = format!("/jobs/{}/log", job["id"].as_str().expect("an id"));
    let (mut lines, mut sizes) = (0, Vec::new());
    while sizes.len() < 9 {
        let page = format!("{path}?format=json&limit=10000&after={lines}");
        let page = system.ops.get(&page).await.expect(200).json();
        let found = page["lines"].as_array().expect("lines").len();
        lines += found;
        sizes.push(found);
        if page["complete"] == true {
            break;
        }
    }
    assert_eq!((lines, sizes.len()), (750, 2), "{sizes:?}");
    system.stop().await;
}

#[tokio::test]
async fn many_lines_are_all_there_and_in_order_up_to_the_cap() {
    let figures = lines("seq 700000", 1).await;
    assert_eq!(figures.stored as u64 + figures.left_out, 700_000);
    assert!(
        figures.left_out > 0 && figures.stored > 500_000,
        "{figures:?}"
    );
}

#[tokio::test]
async fn secrets_of_the_runner_and_of_the_handlers_environment_never_leave_the_runner() {
    let own = "handlers-own-secret/+=";
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("user:{RUNNER_TOKEN}"));
    let script = format!(
        "echo \"$API_TOKEN\"; printf '%s' {RUNNER_TOKEN} | cut -c1-9 | tr -d '\\n'; sleep 0.3; printf '%s' {RUNNER_TOKEN} | cut -c10-; \
         echo {encoded}; echo '{{\"progress\": 0.5, \"message\": \"with {RUNNER_TOKEN}\"}}' > $OPS_EVENTS_FILE; \
         echo \"it was $API_TOKEN\" >&2; exit 3"
    );
    let system = System::builder()
        .shell(
            "leaky",
            &script,
            &format!("env = {{ API_TOKEN = \"{own}\" }}"),
        )
        .start()
        .await;
    let job = system
        .run_until(&json!({"job_type": "leaky"}), "failed")
        .await;
    let id = job["id"].as_str().expect("an id");
    let log = system.log(id).await;
    let mut printed: Vec<&str> = log.lines().collect();
    printed.sort_unstable();
    assert_eq!(printed[..2], ["[masked]", "[masked]"], "{log}");
    assert!(!log.contains(&encoded[8..40]), "{log}");
    assert!(
        job["error"]
            .as_str()
            .expect("an error")
            .ends_with("it was [masked]"),
        "{job}"
    );
    let events = system.events(id).await;
    let progress = events
        .iter()
        .find(|event| event["kind"] == "progress")
        .expect("progress");
    assert_eq!(progress["data"]["message"], "with [masked]");
    for stored in [log, json!(events).to_string(), job.to_string()] {
        assert!(
            !stored.contains(own) && !stored.contains(RUNNER_TOKEN),
            "{stored}"
        );
    }
    system.stop().await;
}

#[tokio::test]
async fn reports_are_checked_bounded_and_the_last_of_them_is_kept() {
    let script = r#"
i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo "{\"progress\": 0.$i, \"message\": \"$i\"}"; done > $OPS_EVENTS_FILE
i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo "nonsense"; done >> $OPS_EVENTS_FILE
echo '{"progress": 1, "message": "last"}' >> $OPS_EVENTS_FILE"#;
    let system = System::builder().shell("reports", script, "").start().await;
    let job = system
        .run_until(&json!({"job_type": "reports"}), "succeeded")
        .await;
    assert_eq!(job["progress"]["message"], "last");
    let kinds = system.kinds(job["id"].as_str().expect("an id")).await;
    let count = |kind: &str| kinds.iter().filter(|found| *found == kind).count();
    assert!((2..=40).contains(&count("progress")), "{kinds:?}");
    assert_eq!(
        (count("progress_refused"), count("warning")),
        (20, 1),
        "{kinds:?}"
    );
    system.stop().await;
}

#[tokio::test]
async fn the_last_report_counts_however_many_came_at_once_before_it() {
    let script = r#"
yes '{"progress": 0.25}' | head -c 12000000 > "$OPS_EVENTS_FILE"
printf '\n{"progress": 1, "message": "last"}' >> "$OPS_EVENTS_FILE""#;
    let system = System::builder().shell("floods", script, "").start().await;
    let job = system
        .run_until(&json!({"job_type": "floods"}), "succeeded")
        .await;
    assert_eq!(job["progress"]["message"], "last");
    system.stop().await;
}

#[tokio::test]
async fn the_command_follows_a_job_over_its_streams() {
    let system = System::builder()
        .shell("talks", "echo one; sleep 1; echo two", "")
        .start()
        .await;
    let id = system.submit_type("talks").await;
    let opsctl = |arguments: &[&str]| {
        Start::of("opsctl")
            .arguments(arguments)
            .set("OPS_URL", &system.ops.url("").replace("/api/v1/ops", ""))
            .set("OPS_API_KEY", tests::API_KEY)
            .run()
    };
    let (logs, watched) = tokio::join!(
        opsctl(&["logs", &id, "--follow"]),
        opsctl(&["jobs", "watch", &id])
    );
    assert_eq!((logs.0, logs.1.as_str()), (0, "one\ntwo\n"), "{logs:?}");
    let kinds: Vec<_> = watched
        .1
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .collect();
    assert_eq!(
        (watched.0, kinds),
        (0, vec!["queued", "running", "succeeded"]),
        "{watched:?}"
    );
    let (code, stdout, _) = opsctl(&["logs", &id, "--after", "1"]).await;
    assert_eq!((code, stdout.as_str()), (0, "two\n"));
    let (code, _, stderr) =
        opsctl(&["logs", "0190163d-8694-739b-aea5-966c26f8ad90", "--follow"]).await;
    assert!(
        code != 0 && stderr.contains("no such job"),
        "{code} {stderr}"
    );
    system.stop().await;
}
