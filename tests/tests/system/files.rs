//! Files: what goes up with a job, what comes down from it, and what of all that means harm.

use serde_json::{Value, json};
use service::KeyDigest;
use tests::{Multipart, RUNNER_TOKEN, System, raw, wait_until};

/// Names under which somebody might hope to find another file.
const TRAVERSALS: [&str; 60] = [
    "../kept.txt",
    "../../etc/passwd",
    "../../../../../../etc/passwd",
    "..%2fkept.txt",
    "..%2Fkept.txt",
    "%2e%2e/kept.txt",
    "%2e%2e%2fkept.txt",
    "%2E%2E%2Fkept.txt",
    "..%252fkept.txt",
    "%252e%252e%252fkept.txt",
    "%25252e%25252e%25252fkept.txt",
    "..\\kept.txt",
    "..%5ckept.txt",
    "..%5Ckept.txt",
    "%2e%2e%5ckept.txt",
    "..%255ckept.txt",
    "....//kept.txt",
    "....\\\\kept.txt",
    "..../kept.txt",
    "..;/kept.txt",
    "..;x=1/kept.txt",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "%2f%2fetc%2fpasswd",
    "/%2e%2e/etc/passwd",
    "./kept.txt",
    "././kept.txt",
    "%2e/kept.txt",
    "%2e%2fkept.txt",
    "kept.txt/.",
    "kept.txt/..",
    "kept.txt/../kept.txt",
    "kept.txt%2f..%2fkept.txt",
    "kept.txt/",
    "kept.txt//",
    "kept.txt%00",
    "kept.txt%00.png",
    "%00kept.txt",
    "kept.txt%0a",
    "kept.txt%0d%0a",
    "kept.txt%20",
    "%20kept.txt",
    "kept.txt.",
    "kept.txt...",
    "KEPT.TXT",
    "C:%5ckept.txt",
    "C:/kept.txt",
    "file:///etc/passwd",
    "file:%2f%2f%2fetc%2fpasswd",
    "%c0%ae%c0%ae/kept.txt",
    "%c0%ae%c0%ae%c0%afkept.txt",
    "%e0%80%ae%e0%80%ae%e0%80%afkept.txt",
    "%uff0e%uff0e/kept.txt",
    "%ef%bc%8e%ef%bc%8e/kept.txt",
    "..%c0%afkept.txt",
    "..%c1%9ckept.txt",
    "\\\\server\\share",
    "~/kept.txt",
    "kept.txt%3fx",
];

#[tokio::test]
async fn what_a_handler_leaves_is_listed_and_fetched() {
    let script = r#"
cd "$OPS_ARTIFACTS_DIR"; mkdir -p deep; printf '0123456789' > 'deep/a b.txt'; : > empty.json
ln -s /etc/passwd link; ln "$OPS_PAYLOAD_FILE" hard; mkfifo pipe"#;
    let system = System::builder().shell("leave", script, "").start().await;
    let job = system
        .run_until(&json!({"job_type": "leave"}), "succeeded")
        .await;
    let id = job["id"].as_str().expect("an id");
    let list = system
        .ops
        .get(&format!("/jobs/{id}/artifacts"))
        .await
        .expect(200)
        .json();
    let names: Vec<_> = list["artifacts"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["name"].clone())
        .collect();
    assert_eq!(names, ["deep/a b.txt", "empty.json"]);
    let first = &list["artifacts"][0];
    assert_eq!(
        (&first["size"], &first["content_type"], &first["stage"]),
        (
            &json!(10),
            &json!("text/plain; charset=utf-8"),
            &Value::Null
        )
    );
    assert_eq!(
        first["sha256"],
        "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
    );
    let path = format!("/jobs/{id}/artifacts/deep/a%20b.txt");
    let whole = system.ops.get(&path).await.expect(200);
    assert_eq!(
        (whole.body.as_str(), whole.header("content-length")),
        ("0123456789", "10")
    );
    assert_eq!(
        whole.header("etag"),
        format!("\"{}\"", first["sha256"].as_str().expect("a digest"))
    );
    assert_eq!(
        whole.header("content-disposition"),
        "attachment; filename*=UTF-8''a%20b.txt"
    );
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    let part = system
        .ops
        .call("GET", &path)
        .header("range", "bytes=3-5")
        .send()
        .await
        .expect(206);
    assert_eq!(
        (part.body.as_str(), part.header("content-range")),
        ("345", "bytes 3-5/10")
    );
    let beyond = system
        .ops
        .call("GET", &path)
        .header("range", "bytes=10-")
        .send()
        .await;
    beyond.problem(416);
    assert_eq!(beyond.header("content-range"), "bytes */10");
    system
        .ops
        .call("GET", &path)
        .header("if-none-match", whole.header("etag"))
        .send()
        .await
        .expect(304);
    let slashed = system
        .ops
        .get(&format!("/jobs/{id}/artifacts/deep%2Fa%20b.txt"))
        .await
        .expect(200);
    assert_eq!(slashed.body, "0123456789");
    let events = system.events(id).await;
    let warning = events
        .iter()
        .find(|event| event["kind"] == "warning")
        .expect("a remark");
    assert_eq!(warning["data"]["count"], 3, "{warning}");
    system
        .ops
        .get("/jobs/0190163d-8694-739b-aea5-966c26f8ad90/artifacts")
        .await
        .problem(404);
    system
        .ops
        .get("/jobs/0190163d-8694-739b-aea5-966c26f8ad90/artifacts.zip")
        .await
        .problem(404);
    system.stop().await;
}

#[tokio::test]
async fn no_spelling_of_a_path_gets_at_another_file() {
    let system = System::builder()
        .shell("leave", "echo kept > \"$OPS_ARTIFACTS_DIR/kept.txt\"", "")
        .start()
        .await;
    let job = system
        .run_until(&json!({"job_type": "leave"}), "succeeded")
        .await;
    let id = job["id"].as_str().expect("an id");
    system
        .ops
        .get(&format!("/jobs/{id}/artifacts/kept.txt"))
        .await
        .expect(200);
    for name in TRAVERSALS {
        // Written onto the wire as it is: clients tidy such paths up.
        let path = format!("/api/v1/ops/jobs/{id}/artifacts/{name}");
        let status = raw::status(
            system.ops.authority(),
            "GET",
            &path,
            &[("x-ops-key", tests::API_KEY)],
        )
        .await;
        assert!(
            status == 404 || (status == 400 && name.contains('\\')),
            "{name}: {status}"
        );
    }
    system.stop().await;
}

#[tokio::test]
async fn an_attempt_that_fails_shows_what_it_left_and_the_next_one_only_its_own() {
    let script = r#"echo "$OPS_ATTEMPT" > "$OPS_ARTIFACTS_DIR/of-$OPS_ATTEMPT.txt"
[ "$OPS_ATTEMPT" = 2 ] || exit 75"#;
    let system = System::builder()
        .shell(
            "twice",
            script,
            "max_attempts = 2\nbackoff = { base_seconds = 1, cap_seconds = 1 }",
        )
        .start()
        .await;
    let id = system.submit_type("twice").await;
    system.until(&id, "succeeded").await;
    let list = system
        .ops
        .get(&format!("/jobs/{id}/artifacts"))
        .await
        .expect(200)
        .json();
    assert_eq!(
        list["artifacts"].as_array().map(Vec::len),
        Some(1),
        "{list}"
    );
    assert_eq!(list["artifacts"][0]["name"], "of-2.txt");
    wait_until("what the first attempt left is forgotten", async || {
        (system
            .database
            .count("select count(*) from ops_files")
            .await
            == 1)
            .then_some(())
    })
    .await;
    system.stop().await;
}

#[tokio::test]
async fn files_go_up_with_a_job_and_their_names_never_become_paths() {
    let script = r#"
cp "$OPS_INPUTS_FILE" "$OPS_RESULT_FILE"; cd "$OPS_INPUT_DIR"; ls -A > "$OPS_ARTIFACTS_DIR/names.txt"; cat ./* > "$OPS_ARTIFACTS_DIR/all.bin""#;
    let system = System::builder().shell("take", script, "").start().await;
    let upload = Multipart::new()
        .file("file", "../../etc/pass wd.txt", b"one")
        .json("job", &json!({"job_type": "take"}))
        .file("file", "..\\x\\pass_wd.txt", b"two")
        .file("other", "..", b"three");
    let job = upload.post(&system.ops, "/jobs").await.expect(201).json();
    let id = job["id"].as_str().expect("an id");
    let done = system.until(id, "succeeded").await;
    let names = system
        .ops
        .get(&format!("/jobs/{id}/artifacts/names.txt"))
        .await
        .expect(200)
        .body;
    let mut names: Vec<_> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["file", "pass_wd-2.txt", "pass_wd.txt"]);
    assert_eq!(done["result"]["inputs"][0]["name"], "pass wd.txt");
    assert_eq!(
        done["result"]["inputs"][2],
        json!({
            "file": "file", "name": "file", "content_type": "application/octet-stream", "size": 5,
            "sha256": "8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f",
        })
    );
    system.stop().await;
}

#[tokio::test]
async fn an_idempotency_key_stands_for_the_files_too() {
    let system = System::builder().shell("take", "true", "").start().await;
    let upload = |bytes: &[u8]| {
        Multipart::new()
            .json("job", &json!({"job_type": "take"}))
            .file("f", "a", bytes)
    };
    let ops = system.ops.with("idempotency-key", "k1");
    let first = upload(b"one").post(&ops, "/jobs").await.expect(201).json();
    let again = upload(b"one").post(&ops, "/jobs").await.expect(200);
    assert_eq!(
        (again.header("idempotency-replayed"), &again.json()["id"]),
        ("true", &first["id"])
    );
    upload(b"two").post(&ops, "/jobs").await.problem(422);
    ops.post("/jobs", &json!({"job_type": "take"}))
        .await
        .problem(422);
    assert_eq!(
        system
            .database
            .count("select count(*) from ops_files")
            .await,
        1,
        "what came to nothing is forgotten"
    );
    system.stop().await;
}

#[tokio::test]
async fn a_wrong_upload_changes_nothing() {
    let system = System::builder()
        .set("MAX_UPLOAD_BYTES", "100000")
        .shell("take", "true", "")
        .start()
        .await;
    let job = json!({"job_type": "take"});
    for (upload, status) in [
        (Multipart::new().file("f", "a", b"x"), 422),
        (
            Multipart::new()
                .json("job", &json!({"job_type": "A"}))
                .file("f", "a", b"x"),
            422,
        ),
        (Multipart::new().json("job", &job).json("job", &job), 422),
        (
            Multipart::new().json("job", &job).json("payload", &job),
            422,
        ),
        (Multipart::new().text("job", "{").file("f", "a", b"x"), 400),
        (
            Multipart::new()
                .file("f", "a", &[0; 100_001])
                .json("job", &job),
            413,
        ),
        (
            Multipart::new()
                .file("f", "a", &[0; 60_000])
                .file("f", "b", &[0; 60_000])
                .json("job", &job),
            413,
        ),
        (
            Multipart::new()
                .json("job", &job)
                .file("f", "a", b"x")
                .broken(),
            400,
        ),
    ] {
        upload.post(&system.ops, "/jobs").await.problem(status);
    }
    for kind in [
        "application/x-www-form-urlencoded",
        "multipart/mixed; boundary=b",
        "text/plain",
    ] {
        system
            .ops
            .call("POST", "/jobs")
            .header("content-type", kind)
            .bytes("a=b")
            .send()
            .await
            .problem(415);
    }
    assert_eq!(
        system.database.count("select count(*) from ops_jobs").await,
        0
    );
    assert_eq!(
        system
            .database
            .count("select count(*) from ops_files")
            .await,
        0
    );
    Multipart::new()
        .file("f", "a", &[7; 100_000])
        .json("job", &job)
        .post(&system.ops, "/jobs")
        .await
        .expect(201);
    system.stop().await;
}

#[tokio::test]
async fn an_upload_over_the_limit_is_refused_before_it_is_read() {
    let system = System::builder().start().await;
    let announced = [
        ("x-ops-key", tests::API_KEY),
        ("content-type", "multipart/form-data; boundary=b"),
        ("content-length", "1073741824"),
    ];
    // Not a byte of the gigabyte is sent.
    let status = raw::status(
        system.ops.authority(),
        "POST",
        "/api/v1/ops/jobs",
        &announced,
    )
    .await;
    assert_eq!(status, 413);
    system.stop().await;
}

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
