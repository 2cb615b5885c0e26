//! `POST /v1/run`: recorded like any other job, answered with what it left, and with problems otherwise.

use serde_json::{Value, json};
use service::KeyDigest;
use tests::{Multipart, RUNNER_TOKEN, System, wait_until};

#[tokio::test]
async fn a_synchronous_run_answers_with_what_it_left() {
    let script = r#"
case "$(cat "$OPS_PAYLOAD_FILE")" in *'"fail"'*) echo report > "$OPS_ARTIFACTS_DIR/report.txt"; exit 2;; *'"die"'*) kill -9 $$;; *'"sleep"'*) sleep 600 & sleep 600;; esac
cat "$OPS_INPUT_DIR"/* > "$OPS_ARTIFACTS_DIR/copy.bin""#;
    let system = System::builder()
        .set("SYNC_RUN_ENABLED", "1")
        .set("RUNNER_REQUEST_TIMEOUT_SECONDS", "2")
        .set("RUNNER_CONCURRENCY", "1")
        .set("RUNNER_MAX_UPLOAD_BYTES", "100000")
        .shell("copy", script, "")
        .start()
        .await;
    let runner = system.runner(0);
    let task = |what: &str| {
        Multipart::new()
            .json(
                "task",
                &json!({"job_type": "copy", "payload": {"do": what}}),
            )
            .file("f", "a.txt", b"PAYLOAD")
    };
    let ok = task("copy").post(&runner, "/v1/run").await.expect(200);
    assert_eq!(
        (ok.header("content-type"), ok.header("x-ops-exit-code")),
        ("application/zip", "0")
    );
    assert!(
        ok.body.starts_with("PK") && ok.body.contains("copy.bin") && ok.body.contains("PAYLOAD")
    );
    let job = system.job(ok.header("x-ops-job-id")).await;
    assert_eq!(
        (&job["status"], &job["created_by"]),
        (
            &json!("succeeded"),
            &json!(KeyDigest::of(RUNNER_TOKEN).id().to_string())
        )
    );
    let failed = task("fail").post(&runner, "/v1/run").await.expect(200);
    assert_eq!(failed.header("x-ops-exit-code"), "2");
    assert!(failed.body.contains("report.txt"));
    assert_eq!(
        system.job(failed.header("x-ops-job-id")).await["status"],
        "failed"
    );
    let died = task("die").post(&runner, "/v1/run").await;
    died.problem(500);
    let slow = task("sleep").post(&runner, "/v1/run").await;
    slow.problem(408);
    let slow = system.job(slow.header("x-ops-job-id")).await;
    assert_eq!(
        (&slow["status"], &slow["error"]),
        (&json!("failed"), &json!("timed out after 2 s"))
    );
    let mut busy = tokio::task::JoinSet::new();
    let (of_task, slow) = (runner.clone(), task("sleep"));
    busy.spawn(async move { slow.post(&of_task, "/v1/run").await });
    wait_until("the slot is taken", async || {
        (system
            .database
            .count("select count(*) from ops_jobs where status = 'running'")
            .await
            == 1)
            .then_some(())
    })
    .await;
    let refused = task("copy").post(&runner, "/v1/run").await;
    refused.problem(429);
    assert_eq!(refused.header("retry-after"), "1");
    busy.join_next()
        .await
        .expect("a task")
        .expect("an answer")
        .problem(408);
    for (upload, status) in [
        (Multipart::new().file("f", "a", b"x"), 422),
        (Multipart::new().text("task", "{"), 400),
        (
            Multipart::new().json("task", &json!({"job_type": "nobody_s"})),
            403,
        ),
        (
            Multipart::new().json("task", &json!({"job_type": "copy", "x": 1})),
            422,
        ),
        (task("copy").file("f", "b", &[0; 100_000]), 413),
    ] {
        upload.post(&runner, "/v1/run").await.problem(status);
    }
    runner
        .post("/v1/run", &json!({"job_type": "copy"}))
        .await
        .problem(415);
    task("copy")
        .post(&runner.anonymous(), "/v1/run")
        .await
        .problem(401);
    system.stop().await;
}

#[tokio::test]
async fn whoever_hangs_up_has_a_synchronous_run_aborted() {
    let system = System::builder()
        .set("SYNC_RUN_ENABLED", "1")
        .shell("sleep", "sleep 600 & sleep 600", "")
        .start()
        .await;
    let runner = system.runner(0);
    let task = Multipart::new()
        .json("task", &json!({"job_type": "sleep"}))
        .file("f", "a.txt", b"x");
    let call = task.post(&runner, "/v1/run");
    let running = wait_until("the job runs", async || {
        (system
            .database
            .count("select count(*) from ops_jobs where status = 'running'")
            .await
            == 1)
            .then_some(())
    });
    tokio::select! {
        answer = call => panic!("answered too early: {answer:?}"),
        () = running => {}
    }
    wait_until("the job is aborted", async || {
        (system
            .database
            .count("select count(*) from ops_jobs where status = 'aborted'")
            .await
            == 1)
            .then_some(())
    })
    .await;
    assert_eq!(system.running_runner(0).runner_id(), "runner-1");
    system.stop().await;
}

#[tokio::test]
async fn a_synchronous_run_is_not_there_unless_its_flag_is_on() {
    let system = System::builder().start().await;
    Multipart::new()
        .json("task", &json!({}))
        .post(&system.runner(0), "/v1/run")
        .await
        .problem(404);
    Multipart::new()
        .json("task", &json!({}))
        .post(&system.runner(0).anonymous(), "/v1/run")
        .await
        .problem(401);
    system.stop().await;
}

#[tokio::test]
async fn a_document_is_rendered_or_its_report_says_what_is_missing() {
    let system = System::builder()
        .set("SYNC_RUN_ENABLED", "1")
        .allow("document_render")
        .start()
        .await;
    let template = "# {{title}}\n{{#people}}\n- {{name}}\n{{/people}}\n";
    let task = |data: Value, strict: bool| {
        let task =
            json!({"job_type": "document_render", "payload": {"data": data, "strict": strict}});
        Multipart::new()
            .json("task", &task)
            .file("template", "letter.md", template.as_bytes())
    };
    let whole = json!({"title": "Night", "people": [{"name": "A"}, {"name": "B"}]});
    for (data, strict, code, word) in [
        (whole.clone(), true, "0", "# Night\n- A\n- B\n"),
        (
            json!({"title": "Night", "people": [{}]}),
            false,
            "2",
            "people[0].name",
        ),
        (
            json!({"title": "Night", "people": [], "extra": 1}),
            true,
            "4",
            "extra is in the data",
        ),
    ] {
        let answer = task(data, strict)
            .post(&system.runner(0), "/v1/run")
            .await
            .expect(200);
        assert_eq!(answer.header("x-ops-exit-code"), code, "{answer:?}");
        assert!(
            answer.body.contains(word)
                && answer.body.contains("report.json")
                && answer.body.contains("report.md")
        );
        assert_eq!(answer.body.contains("\"document\": null"), code == "2");
    }
    let bomb = Multipart::new()
        .json("task", &json!({"job_type": "document_render"}))
        .file("template", "bomb.docx", b"PK\x05\x06 no document at all");
    bomb.post(&system.runner(0), "/v1/run").await.problem(500);
    system.stop().await;
}
